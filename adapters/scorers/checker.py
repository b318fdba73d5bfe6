"""Accuracy of demo pictures against their captions, by a rule-based reader of the frames, without weights.

    checker = 1 when every attribute of the caption is found in the frames, else 0

and one share per attribute, `checker.shape`, `checker.color`, ...: its mean over items is the accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from genrun.adapters.scorers.contract import Sample, UnscoredError

DEMO_PREFIX = "demo"
NOT_OF_THIS_WORLD = "the checker reads captions and square frames of the demo world only"


@dataclass(frozen=True)
class Checker:
    """Accuracy of the demo models' pictures against their captions."""

    name: str = "checker"
    version: int = 2
    title: str = "accuracy"
    definition: str = (
        "Share of items in which every attribute that the caption names is found in the decoded frames by the demo "
        "models' rule-based checker."
    )
    higher_is_better: bool = True
    bounds: tuple[float, float] = (0.0, 1.0)
    style: Literal["share"] = "share"
    reads: Literal["media"] = "media"
    compares: bool = False

    def measure(self, sample: Sample, _reference: Sample | None, /) -> Mapping[str, float]:
        """Return 1.0 or 0.0, and the same for each attribute.

        Raises:
            UnscoredError: not a demo model, or a caption that the checker cannot read.
        """
        if not sample.adapter.startswith(DEMO_PREFIX):
            raise UnscoredError("the checker knows the demo models only")
        from genrun.adapters.demo.checker import check

        frames = sample.frames
        try:
            found = check(frames, sample.caption)
        except ValueError as error:
            raise UnscoredError(NOT_OF_THIS_WORLD) from error
        parts = {f"{self.name}.{attribute}": float(right) for attribute, right in found.items()}
        return {self.name: float(all(found.values())), **parts}


METRIC = Checker()
