"""The pairs on which a run falls behind its baseline most, with both clips."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.runner.compare import Comparison, Difference
from genrun.runner.compare import tables as formatting
from genrun.runner.compare.results import CellComparison, Pair, PairedItem
from genrun.runner.job.schema import COSTS
from genrun.runner.report import text
from genrun.runner.report.names import title_of
from genrun.runner.store.folder import RunFolder

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem

ROOM = "pairs"
"""Folder of the report that holds the baseline's clips, so that the page still has them when that run is gone."""


@dataclass(frozen=True)
class Worst:
    """Listings of pairs, and the files that they need.

    Attributes:
        listings: {"cell", "against", "metric", "k" (colour), "rows"}; a row is {"p": prompt, "s": seed, "w", "h", "d":
            difference ("" for drift), "c": [clip of the baseline, clip of the run]}; a clip is {"i": id, "v": value, "m":
            media, "f": its file}, where "m" is relative to the run folder or, with a leading "pairs/", to the report.
        files: "pairs/..." -> the baseline's file, absolute.
    """

    listings: tuple[dict[str, Any], ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)


def worst_pairs(found: Comparison, run: RunFolder, colours: Mapping[str, int]) -> Worst:
    """List the worst pairs of every cell and metric, that of a failed gate first.

    Args:
        found: the comparison.
        run: the candidate.
        colours: cell -> index of its colour.
    """
    items = {item.id: item for item in run.items()}
    room = _Room(run, None if found.baseline is None else Path(found.baseline), {})
    listings = [
        {
            "cell": cell.label,
            "against": "baseline" if found.by is None else cell.baseline_label,
            "metric": title_of(each.metric),
            "k": colours.get(cell.label, 0),
            "rows": [_row(pair, each, items, room) for pair in each.worst],
        }
        for cell, each in sorted(_shown(found), key=_order(found))
    ]
    return Worst(tuple(listings), room.files)


def _shown(found: Comparison) -> Iterator[tuple[CellComparison, Difference]]:
    for cell in found.cells:
        for each in cell.differences:
            if each.worst and each.metric not in COSTS and formatting.is_shown(cell, each):
                yield cell, each


def _order(found: Comparison) -> Any:
    """What failed a gate comes first, then what the command line would show, then all else as it comes."""
    failed = {(cell.label, gate.metric) for cell, gate in found.gates if gate.state == "failed"}
    first = formatting.worst_metric(found)
    return lambda pair: ((pair[0].label, pair[1].metric) not in failed, pair[1].metric != first)


@dataclass(frozen=True)
class _Room:
    """Where clips are found: in the run, and in the baseline's folder, from which the report takes its own."""

    run: RunFolder
    baseline: Path | None
    files: dict[str, Path]

    def clip(self, side: PairedItem, found: Difference) -> dict[str, Any]:
        value = None if side.value is None else text.styled(side.value, found.style)
        clip: dict[str, Any] = {"i": side.item_id, "v": value}
        if side.media is None:
            return clip
        path = Path(side.media)
        if path.is_relative_to(self.run.path):
            return {**clip, "m": self.run.relative(path)}
        # A record may name any path; only files of the baseline's own folder are taken.
        if self.baseline is None or not path.is_relative_to(self.baseline) or ".." in path.parts:
            return clip
        address = f"{ROOM}/{self.baseline.name}/{path.name}"
        self.files[address] = path
        return {**clip, "m": address, "f": str(path)}


def _row(pair: Pair, found: Difference, items: Mapping[str, WorkItem], room: _Room) -> dict[str, Any]:
    sampling = items[pair.candidate.item_id].sampling
    difference = "" if pair.baseline.value is None else text.styled(pair.difference, found.style)
    return {
        "p": pair.prompt,
        "s": pair.seed,
        "w": sampling.get("width") or 16,
        "h": sampling.get("height") or 9,
        "d": f"+{difference}" if difference and pair.difference > 0 else difference,
        "c": [room.clip(side, found) for side in (pair.baseline, pair.candidate)],
    }
