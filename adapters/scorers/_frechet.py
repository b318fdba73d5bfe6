"""Fréchet distance of two Gaussians fitted to features (Heusel et al., 2017, eq. 6).

d^2 = |mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2))
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from genrun.adapters.scorers._options import Device, identity
from genrun.adapters.scorers.contract import Sample, SetPart, UnscoredError

if TYPE_CHECKING:
    from genrun.adapters import shapes
    from genrun.adapters.shapes import FeatureCovariance, FeatureMean, RgbFrames

Features = Callable[["RgbFrames"], "shapes.Features"]
"""Frames of one picture or clip, (T, H, W, 3) uint8 -> features, (n, D) float64."""

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".pgm", ".ppm")
"""Endings of real pictures, whatever their case: those of pytorch-fid."""

CLIPS = (".mp4", ".webm", ".mov", ".gif", ".avi", ".mkv", ".m4v", ".mpg", ".mpeg")
"""Endings of real clips: UCF-101 is .avi, Kinetics .mp4 and .mkv."""


@dataclass(frozen=True)
class FrechetOptions:
    """Options of `fvd`, and most of `fid`.

    Attributes:
        network: the feature network, a TorchScript file.
        reference: a folder of real pictures or clips, or a saved statistics file (.npz with mu and sigma, as of
            pytorch-fid).
        frames: how many frames of a clip are looked at.
        batch: pictures at once.
        device: where to run.
    """

    network: Path | None = None
    reference: Path | None = None
    frames: int = 16
    batch: int = 32
    device: Device = "auto"

    def __post_init__(self) -> None:
        for name in ("frames", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: wanted at least 1")

    @property
    def network_id(self) -> str | None:
        """The hash of the network, for keys of caches."""
        return self.network and identity(self.network)

    def settings(self) -> dict[str, object]:
        """Return what decides values: network, reference and frames, by their hashes."""
        reference = self.reference and identity(self.reference)
        return {"frames": self.frames, "network": self.network_id, "reference": reference}

    def check_reference(self, metric: str) -> Path:
        """Return the reference. Raises UnscoredError where a job names none."""
        if self.reference is None:
            raise UnscoredError(
                f"{metric} needs real pictures to compare with: "
                f"score: [{{kind: {metric}, reference: FOLDER_OR_STATISTICS.npz}}]"
            )
        return self.reference


@dataclass(frozen=True)
class Gaussian:
    """Mean (D,) and covariance (D, D) of features, float64, and how many they were fitted to."""

    mean: FeatureMean
    covariance: FeatureCovariance
    count: int = 0


def fitted(rows: Iterable[shapes.FeaturePart]) -> Gaussian:
    """Fit a Gaussian to features (n, D), given in parts; memory is that of one part and the sums.

    Raises:
        UnscoredError: fewer than two rows.
    """
    import torch

    count, total, products = 0, torch.zeros(()), torch.zeros(())
    for part in rows:
        count += len(part)
        total = total + part.sum(0)
        products = products + part.T @ part
    if count < 2:
        raise UnscoredError(f"a covariance needs two samples at least, there {'is' if count == 1 else 'are'} {count}")
    mean = total / count
    return Gaussian(mean, (products - count * torch.outer(mean, mean)) / (count - 1), count)


def distance(ours: Gaussian, theirs: Gaussian) -> float:
    """Return the squared Fréchet distance, at least 0.

    Raises:
        UnscoredError: features of different length.
    """
    import torch

    if ours.mean.shape != theirs.mean.shape:
        sizes = f"{len(ours.mean)} and {len(theirs.mean)}"
        raise UnscoredError(f"the reference's features are of another network: {sizes} numbers")
    apart = (ours.mean - theirs.mean).square().sum()
    root = torch.linalg.eigvals(ours.covariance @ theirs.covariance).sqrt().real.sum()
    return max(0.0, (apart + ours.covariance.trace() + theirs.covariance.trace() - 2 * root).item())


def measured(
    name: str, samples: Sequence[Sample], features: Features, options: FrechetOptions, workspace: Path
) -> SetPart:
    """Measure the distance of samples to a reference; samples that cannot be read are left out by name.

    Raises:
        UnscoredError: no reference, or too few samples.
    """
    theirs = reference(name, features, options, workspace)
    refused: dict[str, float | str] = {}

    def rows() -> Iterable[shapes.FeaturePart]:
        for sample in samples:
            try:
                # A copy, so that no more than one clip's frames are in memory.
                yield features(dataclasses.replace(sample).frames)
            except UnscoredError as error:
                refused[sample.name] = str(error)

    ours = fitted(rows())
    return SetPart(name, distance(ours, theirs), _remark(ours, theirs), refused)


def _remark(ours: Gaussian, theirs: Gaussian) -> str | None:
    """Say of how few samples a distance is, where either side has fewer than features; a count of 0 is not known."""
    few = [f"{ours.count} samples"] if ours.count < len(ours.mean) else []
    few += [f"{theirs.count} real ones"] if 0 < theirs.count < len(theirs.mean) else []
    if not few:
        return None
    return f"of {' and '.join(few)} with {len(ours.mean)} features: compare it with such of as many samples only"


def reference(name: str, features: Features, options: FrechetOptions, workspace: Path) -> Gaussian:
    """Return the Gaussian of the real pictures: from a statistics file, or of a folder, whose statistics are kept."""
    given = options.check_reference(name)
    if given.is_file():
        return _read(given)
    if not given.is_dir():
        raise UnscoredError(f"{name}: there is no {given}")
    kept = workspace / f"reference-{identity(given)}-{options.network_id}-{options.frames}.npz"
    # One that is damaged is fitted anew.
    with contextlib.suppress(UnscoredError):
        if kept.is_file():
            return _read(kept)
    files = sorted(path for path in given.rglob("*") if path.suffix.lower() in (*PICTURES, *CLIPS))
    if not files:
        raise UnscoredError(f"{name}: there are no pictures or clips in {given}")
    found = fitted(_features_of(path, features) for path in files)
    _write(found, kept)
    return found


def _features_of(path: Path, features: Features) -> shapes.Features:
    frames = _frames(path)
    try:
        return features(frames)
    except UnscoredError as error:
        raise UnscoredError(f"of the real pictures {path.name}: {error}") from error


def _frames(path: Path) -> RgbFrames:
    """Read a real picture or clip of any kind that Pillow or FFmpeg reads."""
    import numpy as np
    from PIL import Image

    from genrun.adapters.input_files import DEEP
    from genrun.adapters.media import MediaError, read_frames

    try:
        if path.suffix.lower() in PICTURES:
            with Image.open(path) as image:
                if image.mode in DEEP:
                    # Pillow would cut them off at 255, which is white.
                    raise ValueError(f"its numbers have more than 8 bits (mode {image.mode}); save it as RGB with 8")
                return np.array(image.convert("RGB"))[None]
        return read_frames(path)
    except (OSError, ValueError, MediaError) as error:
        raise UnscoredError(f"of the real pictures {path.name} cannot be read: {error}") from error


def _read(path: Path) -> Gaussian:
    import zipfile
    import zlib

    import numpy as np
    import torch

    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            mean, covariance = (torch.from_numpy(file[key]).double() for key in ("mu", "sigma"))
            count = int(file["n"]) if "n" in file else 0
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UnscoredError(f"{path} is no statistics file (.npz with mu and sigma): {error}") from error
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise UnscoredError(f"{path}: mu {tuple(mean.shape)} and sigma {tuple(covariance.shape)} do not fit")
    return Gaussian(mean, covariance, count)


def _write(found: Gaussian, path: Path) -> None:
    """Keep statistics. They save time and nothing else, so that a full disk costs no score."""
    import os
    import platform

    import numpy as np
    import psutil

    begun = f".{path.stem}.{platform.node()}-"
    partial = path.with_name(f"{begun}{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for other in path.parent.glob(f"{glob.escape(begun)}*"):
            # Of this machine's processes that were killed.
            if (pid := other.name.removeprefix(begun)).isdigit() and not psutil.pid_exists(int(pid)):
                other.unlink(missing_ok=True)
        with partial.open("wb") as file:
            np.savez(file, mu=found.mean.numpy(), sigma=found.covariance.numpy(), n=found.count)
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
