"""Score a night, compare it with its baseline and with the night before, and sum it up in one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrun.runner.compare import Comparison, compare_runs
from genrun.runner.compare.compare import Options
from genrun.runner.compare.formats import is_shown, sentence
from genrun.runner.errors import GenrunError
from genrun.runner.job.schema import COSTS
from genrun.runner.score.metrics import wanted_metrics
from genrun.runner.score.scoring import score_run
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.nights import CellMean, GateState, Night, NightGate
from genrun.runner.store.runs import pinned, resolve

PINNED, LAST = "pinned", "last"

STATES = {"passed": "passed", "failed": "FAILED", "incomplete": "incomplete", "interrupted": "interrupted"}

# The summary is the subject of a mail.
SHOWN = 3
"""Gates and changes that the summary names, of each kind."""


@dataclass(frozen=True)
class Judgement:
    """The comparisons of a night.

    Attributes:
        judged: against the baseline, with the gates; without a baseline when there is none; None when it failed.
        since: against the night before, without gates; None when there was none.
        notes: what could not be compared, and why.
    """

    judged: Comparison | None
    since: Comparison | None
    notes: tuple[str, ...]

    @property
    def state(self) -> GateState:
        """State of the gates."""
        return "incomplete" if self.judged is None else self.judged.state

    @property
    def baseline(self) -> str | None:
        """Run that the gates were held against."""
        return None if self.judged is None else self.judged.baseline

    @property
    def previous(self) -> str | None:
        """Run of the night before."""
        return None if self.since is None else self.since.baseline

    def fields(self) -> dict[str, Any]:
        """Return the fields of a `Night` that keep it."""
        judged, since = self.judged, self.since
        return {
            "baseline": self.baseline,
            "previous": self.previous,
            "changed": {} if since is None else _changes(since),
            "identical": None if since is None else sum(cell.identical for cell in since.cells),
            "measures": () if judged is None else _means(judged),
            "gates": () if judged is None else tuple(NightGate(cell.label, gate) for cell, gate in judged.gates),
        }


def judge(run: RunFolder, baseline: str, base: Path, before: RunFolder | None, say: Callable[[str], None]) -> Judgement:
    """Score a night's run and compare it.

    Args:
        run: the night's run; what was scored before is kept.
        baseline: "pinned", "last" (the night before), or a run.
        base: the folder of runs.
        before: the run of the night before, or None.
        say: told what is scored, and what is missing.
    """
    metrics = wanted_metrics(run)
    say(f"{run.path}: scoring {', '.join(metric.name for metric in metrics)}.")
    score_run(run, metrics)
    notes: list[str] = []
    judged = _compared(_baseline(run, baseline, base, before, notes), run, None, notes)
    since = None if before is None else _compared(before, run, Options(gates=()), [])
    for note in notes:
        say(note)
    return Judgement(judged, since, tuple(notes))


def _baseline(
    run: RunFolder, baseline: str, base: Path, before: RunFolder | None, notes: list[str]
) -> RunFolder | None:
    """Find the run that gates are held against; None, with a note when one was named, when there is none."""
    if baseline == LAST:
        return before
    try:
        found = pinned(run.path.parent) if baseline == PINNED else resolve(baseline, base)
    except GenrunError as error:
        notes.append(f"baseline: {error.message}")
        return None
    if found is None or found.path == run.path:
        return None
    try:
        # A metric that is newer than the baseline has to be measured there, too.
        score_run(found, wanted_metrics(run))
    except GenrunError as error:
        notes.append(f"baseline: {error.message}")
    return found


def _compared(
    baseline: RunFolder | None, run: RunFolder, options: Options | None, notes: list[str]
) -> Comparison | None:
    try:
        return compare_runs(baseline, run, options)
    except GenrunError as error:
        notes.append(f"compare: {error.message}")
        return None


def _means(found: Comparison) -> tuple[CellMean, ...]:
    """Return the candidate's means of metrics, costs and drift; of parts of metrics where a gate looks at them."""
    return tuple(
        CellMean(cell.label, each.metric, each.own.n, each.own.value, each.own.low, each.own.high)
        for cell in found.cells
        for each in cell.differences
        if is_shown(cell, each)
    )


def _changes(found: Comparison) -> dict[str, str]:
    """Return what differs from the baseline beyond chance: "cell metric" -> "better" or "worse"."""
    return {
        f"{cell.label} {each.metric}": each.verdict
        for cell in found.cells
        for each in cell.differences
        if each.verdict in ("better", "worse") and each.metric != "elapsed_s" and "." not in each.metric
    }


def summary(night: Night, judged: Comparison | None) -> str:
    """Sum a night up in one line: state, items, gates, changes since last night, and what was out of the ordinary."""
    items = f"{night.done} of {night.items} items" + (f", {night.failed} failed" if night.failed else "")
    parts = [
        f"{night.job} {night.night}: {STATES.get(night.state, night.state)}",
        items,
        *([_gates(judged)] if judged is not None and judged.gates else []),
        *([] if night.previous is None else [_since_last_night(night)]),
        *night.marks,
    ]
    line = "; ".join(filter(None, parts)) + "."
    # Labels and reasons may hold line breaks and control characters.
    return " ".join("".join(char if char.isprintable() else " " for char in line).split())


def _gates(found: Comparison) -> str:
    """Name the gates that did not pass."""
    gates = found.gates
    failed = [sentence(cell, gate) for cell, gate in gates if gate.state == "failed"]
    unsettled = [sentence(cell, gate) for cell, gate in gates if gate.state == "incomplete"]
    if not failed and not unsettled:
        return f"all {len(gates)} gates passed"
    if not failed and found.baseline is None:
        name = Path(found.candidate).parent.name
        return f"{len(unsettled)} of {len(gates)} gates are open without a baseline (genrun pin {name})"
    return "; ".join(
        f"{len(sentences)} of {len(gates)} gates {state}: {_first_few(sentences)}"
        for state, sentences in (("failed", failed), ("open", unsettled))
        if sentences
    )


def _since_last_night(night: Night) -> str:
    if night.identical is not None and night.identical == night.done == night.items:
        return "since last night nothing changed: all files are identical"
    # Costs last: they differ in most nights, and matter least.
    names = sorted(night.changed, key=lambda name: name.split()[-1] in COSTS)
    found = [f"{name} {night.changed[name]}" for name in names]
    return f"since last night: {_first_few(found)}" if found else "since last night no clear change"


def _first_few(sentences: Sequence[str]) -> str:
    more = f" and {len(sentences) - SHOWN} more" if len(sentences) > SHOWN else ""
    return ", ".join(sentences[:SHOWN]) + more
