"""Image similarity: how far the result still shows the picture that it was made from, by CLIP (Radford et al., 2021).

    image_similarity = mean over frames of <e_frame, e_input> / (|e_frame| |e_input|)

The input is the prompt's `image`, else its `video`, `control_image` or `ip_adapter_image`; of a clip, and of several, the
mean over frames spread over them. As VBench's `i2v_subject` does with DINO, it looks at what is shown, not at pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from genrun.adapters.scorers._options import spread
from genrun.adapters.scorers.clip_score import ClipOptions, ClipScore
from genrun.adapters.scorers.contract import Sample, UnscoredError

FIELDS = ("image", "video", "control_image", "ip_adapter_image")
"""Inputs that a result can be compared with, the first that there is."""


@dataclass(frozen=True)
class ImageSimilarity:
    """Cosine of the embeddings of frames and input."""

    options: ClipOptions = field(default_factory=ClipOptions)
    name: str = "image_similarity"
    version: int = 1
    title: str = "similarity to input"
    definition: str = (
        "Cosine of the CLIP embeddings (Radford et al., 2021) of the frames and of the picture that they were made from, "
        "mean over frames spread over the clip."
    )
    needs: str = "a CLIP checkpoint"
    higher_is_better: bool = True
    style: Literal["number"] = "number"
    reads: Literal["media"] = "media"
    compares: bool = False
    bounds: tuple[float, float] = (-1.0, 1.0)
    inputs: tuple[str, ...] = FIELDS

    @property
    def settings(self) -> Mapping[str, object]:
        """The options that decide values."""
        return self._clip.settings

    def measure(self, sample: Sample, _reference: Sample | None, /) -> Mapping[str, float]:
        """Return {"image_similarity": value}.

        Raises:
            UnscoredError: the prompt has no picture, it is lost, or the checkpoint cannot be had.
        """
        given = next((name for name in FIELDS if name in sample.inputs), None)
        if given is None:
            raise UnscoredError("its prompt has no image to compare with")
        clip = self._clip.clip_of(sample.adapter)
        made = clip.embeddings(spread(sample.frames, self.options.frames))
        sources = [clip.embeddings(spread(frames, self.options.frames)) for frames in sample.input_frames(given)]
        cosines = [(made @ source.T).mean().item() for source in sources]
        return {self.name: sum(cosines) / len(cosines)}

    @cached_property
    def _clip(self) -> ClipScore:
        return ClipScore(self.options)


METRIC = ImageSimilarity()
