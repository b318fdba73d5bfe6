"""Structural similarity of the decoded frames to the sequential sampler's (Wang et al., 2004; torchmetrics' version).

Mean over frames, Gaussian window of 11 x 11 with sigma 1.5, data range 255; 1 is identical. Windows at the edges are filled
up with mirrored pixels, where Wang et al. and scikit-image leave a margin of 5 pixels out: small pictures get other numbers
there (of 64 x 64 pixels .78 in place of .83).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from genrun.adapters.scorers._network import without_torchvision
from genrun.adapters.scorers.contract import Sample, UnscoredError
from genrun.adapters.scorers.psnr import frame_pair

# Wang et al., 2004, and torchmetrics' default.
WINDOW = 11

# A 720p clip of 129 frames would take gigabytes at once.
FRAMES_AT_ONCE = 8


@dataclass(frozen=True)
class Ssim:
    """Structural similarity index, mean over frames."""

    name: str = "ssim"
    version: int = 1
    title: str = "SSIM"
    definition: str = (
        "Structural similarity (Wang et al., 2004) of the decoded media to the sequential sampler's, mean over frames, with "
        "windows mirrored at the edges, as torchmetrics has it; 1 is identical."
    )
    higher_is_better: bool = True
    bounds: tuple[float, float] = (-1.0, 1.0)
    style: Literal["number"] = "number"
    reads: Literal["media"] = "media"
    compares: bool = True

    def measure(self, sample: Sample, reference: Sample | None, /) -> Mapping[str, float]:
        """Return {"ssim": value}; memory is that of eight frames.

        Raises:
            UnscoredError: frames smaller than the window.
        """
        import torch

        with without_torchvision():
            from torchmetrics.functional.image import structural_similarity_index_measure

        ours, theirs = frame_pair(sample, reference)
        if min(ours.shape[-2:]) < WINDOW:
            raise UnscoredError(f"frames are smaller than the window of {WINDOW} pixels: {tuple(ours.shape[-2:])}")
        parts = [
            structural_similarity_index_measure(a, b, data_range=255.0, reduction="none")
            for a, b in zip(ours.split(FRAMES_AT_ONCE), theirs.split(FRAMES_AT_ONCE), strict=True)
        ]
        tensors = [part for part in parts if isinstance(part, torch.Tensor)]
        return {self.name: torch.cat([part.reshape(-1) for part in tensors]).mean().item()}


METRIC = Ssim()
