"""Peak signal-to-noise ratio of the decoded frames against the sequential sampler's.

    psnr = 10 log10(255^2 / mean((frames - frames_ref)^2)), at most 100 dB

over all pixels of all frames, as read back from the media files. Identical frames have no finite ratio: they count as
100 dB, so that a mean over items exists (a single level of difference in one value of a 480p clip is above 100 dB too).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from genrun.adapters.scorers._network import without_torchvision
from genrun.adapters.scorers.contract import Sample, UnscoredError

if TYPE_CHECKING:
    from genrun.adapters.shapes import Pixels

# Of identical frames, as said above.
CAP_DB = 100.0


@dataclass(frozen=True)
class Psnr:
    """Peak signal-to-noise ratio in dB."""

    name: str = "psnr"
    version: int = 1
    title: str = "PSNR"
    definition: str = (
        "Peak signal-to-noise ratio in dB of the decoded media against the sequential sampler's, over all pixels of "
        "all frames; identical frames count as 100 dB."
    )
    higher_is_better: bool = True
    bounds: tuple[float, float] = (0.0, CAP_DB)
    style: Literal["decibel"] = "decibel"
    reads: Literal["media"] = "media"
    compares: bool = True

    def measure(self, sample: Sample, reference: Sample | None, /) -> Mapping[str, float]:
        """Return {"psnr": dB}."""
        with without_torchvision():
            from torchmetrics.functional.image import peak_signal_noise_ratio

        ours, theirs = frame_pair(sample, reference)
        return {self.name: min(peak_signal_noise_ratio(ours, theirs, data_range=255.0).item(), CAP_DB)}


def frame_pair(sample: Sample, reference: Sample | None) -> tuple[Pixels, Pixels]:
    """Return the frames of both, float32 in 0..255 of shape (T, 3, H, W).

    Raises:
        UnscoredError: media are missing, unreadable, or differ in shape.
    """
    import torch

    if reference is None:
        raise UnscoredError("no sequential item of this prompt and seed to compare with")
    ours = sample.frames
    try:
        theirs = reference.frames
    except UnscoredError as error:
        raise UnscoredError(f"the sequential item: {error}") from error
    if ours.shape != theirs.shape:
        raise UnscoredError(f"frames differ in shape: {ours.shape} and sequential {theirs.shape}")
    return torch.tensor(ours).permute(0, 3, 1, 2).float(), torch.tensor(theirs).permute(0, 3, 1, 2).float()


METRIC = Psnr()
