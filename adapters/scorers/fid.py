"""Fréchet inception distance to real pictures (Heusel et al., 2017), of all frames looked at of all items of a cell.

The feature network is torch-fidelity's InceptionV3, whose numbers are those of the TensorFlow original; its weights are
downloaded when they are first needed. Or it is a TorchScript file of the user's, such as `inception-v3-2015-12-05.pt`, which
NVIDIA publishes with StyleGAN. Both resize pictures themselves and give 2048 features. FID is biased by the number of
samples: compare only numbers of equally many. Statistics files must come from the same network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from genrun.adapters.scorers._frechet import FrechetOptions, measured
from genrun.adapters.scorers._network import Inception, load_network, run
from genrun.adapters.scorers._options import device_of, identity, spread
from genrun.adapters.scorers.contract import Sample, SetPart

if TYPE_CHECKING:
    from genrun.adapters.shapes import ByteImages, Features, RgbFrames

DEFAULT_NETWORK = "inception-v3-2015-12-05"


@dataclass(frozen=True)
class FidOptions(FrechetOptions):
    """Options of `fid`.

    Attributes:
        network: a feature network of your own, a TorchScript file; torch-fidelity's InceptionV3 by default.
        reference: a folder of real pictures or clips, or a saved statistics file (.npz with mu and sigma, as of
            pytorch-fid).
        frames: how many frames of a clip are looked at.
        batch: pictures at once.
        device: where to run.
        weights: InceptionV3's weights as torch-fidelity publishes them; downloaded by default.
    """

    weights: Path | None = None

    @property
    def network_id(self) -> str | None:
        """The hash of the network, for keys of caches."""
        if self.network is None:
            return DEFAULT_NETWORK if self.weights is None else f"{DEFAULT_NETWORK}:{identity(self.weights)}"
        return super().network_id


@dataclass(frozen=True)
class Fid:
    """Squared Fréchet distance of Inception features to those of real pictures."""

    options: FidOptions = field(default_factory=FidOptions)
    name: str = "fid"
    version: int = 1
    title: str = "FID"
    definition: str = (
        "Fréchet inception distance (Heusel et al., 2017) of the frames of all items to the real pictures that the job "
        "names, with InceptionV3 unless it names another network. Depends on the number of samples."
    )
    needs: str = "real pictures, and torch-fidelity or a feature network"
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
            UnscoredError: the network cannot be had, there is no reference, or too few samples.
        """
        network = self._network

        def features(frames: RgbFrames) -> Features:
            import torch

            pixels = torch.from_numpy(spread(frames, self.options.frames)).permute(0, 3, 1, 2).contiguous()
            parts = pixels.to(device_of(self.options.device)).split(self.options.batch)
            return torch.cat([network(part) for part in parts])

        yield measured(self.name, samples, features, self.options, workspace)

    @cached_property
    def _network(self) -> Callable[[ByteImages], Features]:
        device = device_of(self.options.device)
        if self.options.network is not None:
            network = load_network(self.options.network, self.name, "inception-v3-2015-12-05.pt", device)
            return partial(run, network, return_features=True)
        # Asked for first, so that nothing is downloaded for a job that names no reference.
        self.options.check_reference(self.name)
        return Inception(self.name, self.options.weights, device)

    def combine(self, values: Mapping[str, float], /) -> Mapping[str, float]:
        """Return nothing: no other number follows from it."""
        return {}


METRIC = Fid()
