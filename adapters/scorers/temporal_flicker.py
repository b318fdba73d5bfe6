"""Temporal flicker of a clip: how little neighbouring frames differ (VBench's temporal_flickering, Huang et al., 2024).

    temporal_flicker = (255 - mean over t of mean |frame_t - frame_t+1|) / 255

over all pixels and channels of the 8-bit frames; 1 is a still picture. It rewards stillness: VBench asks for it on prompts
that describe still scenes, and elsewhere it is to be read beside a measure of motion.

Frames are read in the colours that the file says (BT.709). VBench reads them by OpenCV, which takes every clip for BT.601:
its own number, `vbench.temporal_flickering`, differs in the third or fourth decimal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from genrun.adapters.scorers.contract import Sample, UnscoredError


@dataclass(frozen=True)
class TemporalFlicker:
    """1 - mean absolute difference of neighbouring frames / 255."""

    name: str = "temporal_flicker"
    version: int = 1
    title: str = "flicker"
    definition: str = (
        "Temporal flickering by VBench's formula: one minus the mean absolute difference of neighbouring frames, in units "
        "of the largest pixel value. 1 is a still picture. VBench's own number differs a little, as its OpenCV reads "
        "colours by BT.601."
    )
    higher_is_better: bool = True
    bounds: tuple[float, float] = (0.0, 1.0)
    style: Literal["number"] = "number"
    reads: Literal["media"] = "media"
    compares: bool = False

    def measure(self, sample: Sample, _reference: Sample | None, /) -> Mapping[str, float]:
        """Return {"temporal_flicker": value in 0..1}; memory is that of two frames beside the clip.

        Raises:
            UnscoredError: an image, or a clip of one frame.
        """
        from itertools import pairwise

        import numpy as np

        frames = sample.frames
        if len(frames) < 2:
            raise UnscoredError("a single frame cannot flicker")
        # |a - b| of unsigned bytes without a wider type: the larger minus the smaller.
        differences = [(np.maximum(a, b) - np.minimum(a, b)).mean() for a, b in pairwise(frames)]
        return {self.name: float((255.0 - np.mean(differences)) / 255.0)}


METRIC = TemporalFlicker()
