"""Comparison: the run against its baseline, or its own cells against each other; paired differences and the worst pairs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from genrun.runner import numbers
from genrun.runner.compare import Comparison, Difference, compare_cells, compare_runs, formats, gates_of
from genrun.runner.compare.results import CellComparison, Pair, PairedItem
from genrun.runner.errors import GenrunError, UnreadableError
from genrun.runner.job.schema import COSTS
from genrun.runner.report import charts
from genrun.runner.report.charts import Bar, Scale
from genrun.runner.report.render import address, shown_path, title_of
from genrun.runner.report.sections.gates import GatesSection, collect_gates
from genrun.runner.store.folder import RunFolder, is_run
from genrun.runner.store.nights import read_night
from genrun.runner.store.results import is_as_recorded
from genrun.runner.store.runs import pinned

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem

PAIRS = "pairs"
"""Folder of the report for the baseline's clips, so that the page still has them when that run is gone."""


@dataclass(frozen=True)
class DifferenceRow:
    """A metric of one cell beside the baseline: the columns of `tables.difference_row`, and their pictures.

    Attributes:
        title: of the metric.
        n: pairs, of how many.
        baseline: mean.
        candidate: mean.
        difference: mean of the differences with its interval.
        effect: Cohen's d.
        verdict: "better", "worse" or "".
        wins, ties, losses: prompts; all 0 for a metric of the whole set, and where no pair was measured.
        bar: the interval beside 0, or None.
        is_of_set: True for one number of all items.
    """

    title: str
    n: str
    baseline: str
    candidate: str
    difference: str
    effect: str
    verdict: str
    wins: int
    ties: int
    losses: int
    bar: Bar | None
    is_of_set: bool

    @property
    def prompts(self) -> int:
        """The number of prompts that were compared."""
        return self.wins + self.ties + self.losses

    @property
    def shares(self) -> tuple[tuple[str, float, float], ...]:
        """(name, from, width) of wins, ties and losses along a bar, in per cent."""
        total = self.prompts
        found, start = [], 0.0
        for name, count in (("wins", self.wins), ("ties", self.ties), ("losses", self.losses)):
            width = round(100 * count / total, 2) if total else 0.0
            found.append((name, start, width))
            start = round(start + width, 2)
        return tuple(found)


@dataclass(frozen=True)
class CellTable:
    """The differences of one cell.

    Attributes:
        label: of the cell.
        colour: index of its colour.
        against: label of the cell it is held against.
        pairs: prompts and seeds that both have.
        identical: pairs whose files are the same byte for byte.
        alone: prompts and seeds of one side only.
        rows: metrics that differ on any pair.
        equal: titles of those that do not.
    """

    label: str
    colour: int
    against: str
    pairs: int
    identical: int
    alone: int
    rows: tuple[DifferenceRow, ...]
    equal: tuple[str, ...]


@dataclass(frozen=True)
class ComparisonSection:
    """The comparison as the page shows it.

    Attributes:
        against: "this run's sequential items", or the name of the baseline's run; "" without any.
        path: the baseline's run, absolute, or "".
        baseline: the same, as a word of a command.
        gates: of the job.
        cells: those with a baseline.
        unmatched: labels of cells without one.
        worst: listings of the pairs on which the run falls behind most: {"cell", "against", "metric", "k" (colour), "rows"};
            a row is {"p": prompt, "s": seed, "w", "h", "d": difference ("" for drift), "c": [clip of the baseline, clip of
            the run]}; a clip is {"i": id, "v": value, "m": media, "f": its file}, where "m" is relative to the run folder
            or, with a leading "pairs/", to the report; "no" in place of both says why the baseline's is not shown.
        files: "pairs/..." -> the baseline's file, absolute, of all that `worst` needs.
        note: what could not be compared, or "".
    """

    against: str = ""
    path: str = ""
    baseline: str = ""
    gates: GatesSection = field(default_factory=GatesSection)
    cells: tuple[CellTable, ...] = ()
    unmatched: tuple[str, ...] = ()
    worst: tuple[dict[str, Any], ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    note: str = ""

    @property
    def has_table(self) -> bool:
        """True when there are differences to show, or no gates that would say why there are none."""
        return bool(self.cells) or bool(self.note and not self.gates.rows)


def collect_comparison(run: RunFolder, colours: Mapping[str, int]) -> ComparisonSection | None:
    """Compare a run with its baseline, or by its own cells when it has gates; None where there is neither.

    The baseline is the one that its night was judged by, or that is pinned beside it.

    Args:
        run: the run of the page.
        colours: cell -> index of its colour.
    """
    gates = gates_of(run.job_document())
    try:
        baseline, note = _baseline(run)
        if baseline is None and not gates:
            return ComparisonSection(note=note) if note else None
        return _section(_compare(run, baseline), run, colours, note)
    except GenrunError as error:
        return ComparisonSection(note=" ".join(filter(None, (error.message, error.remedy))))


def _baseline(run: RunFolder) -> tuple[RunFolder | None, str]:
    """Return the run's baseline, and what is wrong with it."""
    night = read_night(run.night_path)
    if night is not None and night.baseline is not None:
        path = Path(night.baseline)
        if path.is_dir() and is_run(path):
            return RunFolder.open(path), ""
        return None, f"The baseline of this night is no longer there: {path.name}."
    found = pinned(run.path.parent)
    return (None if found is None or found.path == run.path else found), ""


def _compare(run: RunFolder, baseline: RunFolder | None) -> Comparison:
    is_matrix = len({tuple(item.axes.items()) for item in run.items()}) > 1
    is_night = run.night_path.is_file()
    if baseline is None and is_matrix and not is_night:
        return compare_cells(run)
    return compare_runs(baseline, run)


def _section(found: Comparison, run: RunFolder, colours: Mapping[str, int], note: str) -> ComparisonSection:
    baseline = "" if found.by is not None or found.baseline is None else found.baseline
    files: dict[str, Path] = {}
    return ComparisonSection(
        against=_against(found),
        path=baseline,
        baseline=shlex.quote(shown_path(Path(baseline))) if baseline else "",
        gates=collect_gates(found.gates, found.state, colours),
        cells=tuple(table for cell in found.cells if (table := _table(cell, colours)).rows or table.equal),
        unmatched=found.unmatched,
        worst=tuple(_listings(found, run, colours, files)),
        files=files,
        note=note,
    )


def _against(found: Comparison) -> str:
    if found.by is None:
        return "" if found.baseline is None else Path(found.baseline).name
    labels = {cell.baseline_label for cell in found.cells}
    return f"this run's {labels.pop()} items" if len(labels) == 1 else f"this run's own cells along {found.by}"


def _table(cell: CellComparison, colours: Mapping[str, int]) -> CellTable:
    shown = [each for each in cell.differences if each.difference is not None and formats.is_shown(cell, each)]
    equal = [each for each in shown if _is_equal(each)]
    return CellTable(
        label=cell.label,
        colour=colours.get(cell.label, 0),
        against=cell.baseline_label,
        pairs=cell.pairs,
        identical=cell.identical,
        alone=cell.only_baseline + cell.only_candidate,
        rows=tuple(_row(cell, each) for each in shown if each not in equal),
        equal=tuple(title_of(each.metric) for each in equal),
    )


def _is_equal(found: Difference) -> bool:
    """Return whether a metric was measured on every pair, and is the same on each."""
    mean = found.difference
    if mean is None or mean.n == 0 or mean.missing or found.effect is not None:
        return False
    return not found.wins and not found.losses and found.baseline == found.candidate


def _row(cell: CellComparison, found: Difference) -> DifferenceRow:
    _, _, n, baseline, candidate, difference, effect, _, verdict = formats.difference_row(cell, found)
    mean, bar = found.difference, None
    if mean is not None and mean.value is not None and not mean.is_of_set:
        ends = [end for end in (mean.value, mean.low, mean.high) if end is not None]
        bar = charts.bar(Scale.around(0.0, ends), mean.value, mean.low, mean.high, 0.0)
    return DifferenceRow(
        title=title_of(found.metric),
        n=n,
        baseline=baseline,
        candidate=candidate,
        difference=difference,
        effect=effect,
        verdict=verdict,
        wins=found.wins,
        ties=found.ties,
        losses=found.losses,
        bar=bar,
        is_of_set=mean is not None and mean.is_of_set,
    )


# ---- the worst pairs ----


def _listings(
    found: Comparison, run: RunFolder, colours: Mapping[str, int], files: dict[str, Path]
) -> list[dict[str, Any]]:
    """List the worst pairs of every cell and metric; note in `files` which of the baseline's files they need."""
    items = {item.id: item for item in run.items()}
    baseline = None if found.baseline is None else Path(found.baseline)
    failed = {(cell.label, gate.metric) for cell, gate in found.gates if gate.state == "failed"}
    first = formats.worst_metric(found)
    shown = [
        (cell, each)
        for cell in found.cells
        for each in cell.differences
        if each.worst and each.metric not in COSTS and formats.is_shown(cell, each)
    ]
    # What failed a gate comes first, then what the command line would show, then all else as it comes.
    shown.sort(key=lambda pair: ((pair[0].label, pair[1].metric) not in failed, pair[1].metric != first))
    return [
        {
            "cell": cell.label,
            "against": "baseline" if found.by is None else cell.baseline_label,
            "metric": title_of(each.metric),
            "k": colours.get(cell.label, 0),
            "rows": [
                {
                    **_pair(pair, each, items[pair.candidate.item_id]),
                    "c": [_clip(side, each, run, baseline, files) for side in (pair.baseline, pair.candidate)],
                }
                for pair in each.worst
            ],
        }
        for cell, each in shown
    ]


def _pair(pair: Pair, found: Difference, item: WorkItem) -> dict[str, Any]:
    difference = "" if pair.baseline.value is None else numbers.styled(pair.difference, found.style)
    return {
        "p": pair.prompt,
        "s": pair.seed,
        "w": item.sampling.get("width") or 16,
        "h": item.sampling.get("height") or 9,
        "d": f"+{difference}" if difference and pair.difference > 0 else difference,
    }


def _clip(
    side: PairedItem, found: Difference, run: RunFolder, baseline: Path | None, files: dict[str, Path]
) -> dict[str, Any]:
    """Find a clip in the run, or in the baseline's folder, from which the report takes its own."""
    clip: dict[str, Any] = {
        "i": side.item_id,
        "v": None if side.value is None else numbers.styled(side.value, found.style),
    }
    if side.media is None:
        return clip
    path = Path(side.media)
    if path.is_relative_to(run.path):
        return {**clip, "m": run.relative(path)}
    name = f"{PAIRS}/{'' if baseline is None else baseline.name}/{path.name}"
    # A record may name any path, and a file may have been changed since: only what the baseline wrote is shown as its own.
    if baseline is None or (files.get(name) != path and not _is_as_recorded(baseline, side.item_id)):
        return {**clip, "no": "not the file that was recorded"}
    files[name] = path
    return {**clip, "m": name, "f": str(path)}


def _is_as_recorded(run: Path, item_id: str) -> bool:
    record = RunFolder.open(run).record(item_id)
    try:
        return record is not None and is_as_recorded(run, record, "media")
    except UnreadableError:
        return False


def with_addresses(listings: tuple[dict[str, Any], ...], media_root: str) -> list[dict[str, Any]]:
    """Return the listings of worst pairs for the page's script.

    Args:
        listings: of a comparison.
        media_root: what comes before a path of the run on the page.
    """

    def clip(found: Mapping[str, Any]) -> dict[str, Any]:
        if "m" not in found:
            return dict(found)
        path, own = found["m"], {key: value for key, value in found.items() if key != "f"}
        own["m"] = quote(path) if path.startswith(f"{PAIRS}/") else address(path, media_root)
        return {**own, "f": shlex.quote(shown_path(Path(found["f"])))} if "f" in found else own

    return [
        {**listing, "rows": [{**row, "c": [clip(each) for each in row["c"]]} for row in listing["rows"]]}
        for listing in listings
    ]
