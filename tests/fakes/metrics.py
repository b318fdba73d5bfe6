"""Metrics of a package of its own, which measure the fake worker's files without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from genrun.adapters.scorers.contract import Sample, UnscoredError


@dataclass(frozen=True)
class Bytes:
    """The mean byte of a file, or the share of bytes that are those of the reference."""

    name: str
    compares: bool
    version: int = 1
    title: str = "bytes"
    definition: str = "What the bytes of the media file say."
    higher_is_better: bool = True
    bounds: tuple[float, float] = (0.0, 255.0)
    style: Literal["number"] = "number"
    reads: Literal["media"] = "media"

    def measure(self, sample: Sample, reference: Sample | None, /) -> Mapping[str, float]:
        """Return the number."""
        ours = _bytes(sample)
        if reference is None:
            return {self.name: sum(ours) / len(ours)}
        return {self.name: sum(a == b for a, b in zip(ours, _bytes(reference), strict=True)) / len(ours)}


def _bytes(sample: Sample) -> bytes:
    if sample.media is None:
        raise UnscoredError("no media file")
    return sample.media.read_bytes()


MEAN = Bytes("mean_byte", compares=False)
SAME = Bytes("same_bytes", compares=True)


def publish(folder: Path) -> None:
    """Make a folder that, on the path of Python's modules, is an installed package with these metrics."""
    package = folder / "fake_metrics-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-metrics\nVersion: 1\n")
    points = (f"{metric.name} = {__name__}:{attribute}" for attribute, metric in (("MEAN", MEAN), ("SAME", SAME)))
    (package / "entry_points.txt").write_text("\n".join(("[genrun.scorers]", *points, "")))
