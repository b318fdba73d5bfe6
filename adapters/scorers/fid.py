"""Fréchet inception distance to real pictures (Heusel et al., 2017), of all frames looked at of all items of a cell.

The feature network is a TorchScript file of the user's: usually Inception's (`inception-v3-2015-12-05.pt`, as NVIDIA
publishes it with StyleGAN), which resizes pictures itself and gives 2048 features. FID is biased by the number of samples:
compare only numbers of equally many. Statistics files must come from the same network.
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
from genrun.adapters.scorers.contract import Sample, SetPart

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class Fid:
    """Squared Fréchet distance of Inception features to those of real pictures."""

    options: FrechetOptions = field(default_factory=FrechetOptions)
    name: str = "fid"
    version: int = 1
    title: str = "FID"
    definition: str = (
        "Fréchet inception distance (Heusel et al., 2017) of the frames of all items to real pictures, with the feature "
        "network and the reference that the job names. Depends on the number of samples."
    )
    needs: str = "a feature network and real pictures"
    higher_is_better: bool = False
    bounds: tuple[float, float] = (0.0, math.inf)
    style: Literal["number"] = "number"
    reads: Literal["media"] = "media"
    compares: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """One number."""
        return (self.name,)

    @property
    def settings(self) -> Mapping[str, Any]:
        """What decides values: network, reference and frames."""
        return self.options.settings()

    def measure_set(self, samples: Sequence[Sample], _parts: Sequence[str], workspace: Path, /) -> Iterator[SetPart]:
        """Measure the distance.

        Raises:
            UnscoredError: no network, no reference, or too few samples.
        """
        device = device_of(self.options.device)
        network = load_network(self.options.network, self.name, "inception-v3-2015-12-05.pt", device)

        def features(frames: NDArray) -> Tensor:
            import torch

            pixels = torch.from_numpy(spread(frames, self.options.frames)).permute(0, 3, 1, 2).contiguous()
            parts = pixels.to(device).split(self.options.batch)
            return torch.cat([run(network, part, return_features=True) for part in parts])

        yield measured(self.name, samples, features, self.options, workspace)

    def combine(self, values: Mapping[str, float], /) -> Mapping[str, float]:
        """Nothing follows."""
        return {}


METRIC = Fid()
