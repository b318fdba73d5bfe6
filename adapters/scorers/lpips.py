"""Learned perceptual distance of the decoded frames to the sequential sampler's (LPIPS: Zhang et al., 2018).

    lpips = mean over frames of |f(frame) - f(frame_ref)|^2

where f are a network's features with LPIPS' weights folded in, as NVIDIA publishes them with StyleGAN (`vgg16.pt`,
TorchScript). 0 is identical. The network is a file of the user's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from genrun.adapters.scorers._network import load_network, run
from genrun.adapters.scorers._options import Device, device_of, identity
from genrun.adapters.scorers.contract import Sample, UnscoredError
from genrun.adapters.scorers.psnr import frame_pair


@dataclass(frozen=True)
class LpipsOptions:
    """Options of `lpips`.

    Attributes:
        network: the feature network, a TorchScript file.
        batch: frames at once.
        device: where to run.
    """

    network: Path | None = None
    batch: int = 8
    device: Device = "auto"

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError("batch: wanted at least 1")


@dataclass(frozen=True)
class Lpips:
    """LPIPS, mean over frames."""

    options: LpipsOptions = field(default_factory=LpipsOptions)
    name: str = "lpips"
    version: int = 1
    title: str = "LPIPS"
    definition: str = (
        "Learned perceptual distance (LPIPS, Zhang et al., 2018) of the decoded media to the sequential sampler's, mean "
        "over frames; 0 is identical."
    )
    needs: str = "a feature network"
    higher_is_better: bool = False
    bounds: tuple[float, float] = (0.0, math.inf)
    style: Literal["number"] = "number"
    reads: Literal["media"] = "media"
    compares: bool = True

    @property
    def settings(self) -> Mapping[str, Any]:
        """The option that decides values: the network."""
        return {"network": self.options.network and identity(self.options.network)}

    def measure(self, sample: Sample, reference: Sample | None, /) -> Mapping[str, float]:
        """Return {"lpips": distance}.

        Raises:
            UnscoredError: no network, or frames that do not compare.
        """
        import torch

        ours, theirs = (frames.to(device_of(self.options.device)) for frames in frame_pair(sample, reference))
        network = self._network()
        wanted = {"resize_images": False, "return_lpips": True}
        parts = [
            (run(network, a, **wanted) - run(network, b, **wanted)).square().sum(1)
            for a, b in zip(ours.split(self.options.batch), theirs.split(self.options.batch), strict=True)
        ]
        return {self.name: torch.cat(parts).mean().item()}

    def _network(self) -> Any:
        found = self._loaded
        if isinstance(found, UnscoredError):
            raise found
        return found

    @cached_property
    def _loaded(self) -> Any:
        try:
            return load_network(self.options.network, self.name, "vgg16.pt", device_of(self.options.device))
        except UnscoredError as error:
            return error


METRIC = Lpips()
