"""Fréchet video distance to real clips (Unterthiner et al., 2018), of all items of a cell.

The feature network is a TorchScript file of the user's: usually I3D's (`i3d_torchscript.pt`, as published with StyleGAN-V),
called with clips (1, 3, T, H, W) in 0..255, which it rescales and resizes itself. T is `frames` for every clip, spread
evenly; clips of fewer frames are refused, since features of clips of different length do not compare.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from genrun.adapters.scorers._frechet import FrechetOptions, measured
from genrun.adapters.scorers._network import load_network, run
from genrun.adapters.scorers._options import device_of, spread
from genrun.adapters.scorers.contract import Sample, SetPart, UnscoredError

if TYPE_CHECKING:
    from genrun.adapters.shapes import Features, RgbFrames


@dataclass(frozen=True)
class Fvd:
    """Squared Fréchet distance of I3D features to those of real clips."""

    options: FrechetOptions = field(default_factory=FrechetOptions)
    name: str = "fvd"
    version: int = 1
    title: str = "FVD"
    definition: str = (
        "Fréchet video distance (Unterthiner et al., 2018) of all items to real clips, with the feature network and the "
        "reference that the job names. Depends on the number of samples."
    )
    needs: str = "a feature network and real clips"
    higher_is_better: bool = False
    bounds: tuple[float, float] = (0.0, math.inf)
    style: Literal["number"] = "number"
    reads: Literal["media"] = "media"
    compares: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """The one number."""
        return (self.name,)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The options that decide values: network, reference and frames."""
        return self.options.settings()

    def measure_set(self, samples: Sequence[Sample], _parts: Sequence[str], workspace: Path, /) -> Iterator[SetPart]:
        """Measure the distance.

        Raises:
            UnscoredError: no network, no reference, or too few clips that are long enough.
        """
        device = device_of(self.options.device)
        network = load_network(self.options.network, self.name, "i3d_torchscript.pt", device)

        def features(frames: RgbFrames) -> Features:
            import torch

            if len(frames) < self.options.frames:
                raise UnscoredError(f"{len(frames)} frames, fewer than the {self.options.frames} that fvd looks at")
            clip = torch.from_numpy(spread(frames, self.options.frames)).permute(3, 0, 1, 2)[None]
            return run(network, clip.float().to(device), rescale=True, resize=True, return_features=True)

        yield measured(self.name, samples, features, self.options, workspace)

    def combine(self, values: Mapping[str, float], /) -> Mapping[str, float]:
        """Return nothing: no other number follows from it."""
        return {}


METRIC = Fvd()
