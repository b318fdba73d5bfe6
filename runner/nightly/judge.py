"""What a night is held against: the baseline, and the night before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrun.runner.compare import Comparison, compare_runs
from genrun.runner.compare.compare import Options
from genrun.runner.compare.results import State
from genrun.runner.errors import GenrunError
from genrun.runner.history.night import NightGate, measures_of
from genrun.runner.nightly.summary import changes
from genrun.runner.score.choose import wanted_metrics
from genrun.runner.score.run import score_run
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.runs import pinned, resolve

PINNED, LAST = "pinned", "last"


@dataclass(frozen=True)
class Found:
    """What comparing a night found.

    Attributes:
        judged: against the baseline, with the gates; without a baseline when there is none; None when it failed.
        since: against the night before, without gates; None when there was none.
        notes: what could not be compared, and why.
    """

    judged: Comparison | None
    since: Comparison | None
    notes: tuple[str, ...]

    @property
    def state(self) -> State:
        """What the gates say."""
        return "incomplete" if self.judged is None else self.judged.state

    @property
    def baseline(self) -> str | None:
        """The run that the gates were held against."""
        return None if self.judged is None else self.judged.baseline

    @property
    def previous(self) -> str | None:
        """The run of the night before."""
        return None if self.since is None else self.since.baseline

    def fields(self) -> dict[str, Any]:
        """What a `Night` keeps of it."""
        judged, since = self.judged, self.since
        return {
            "baseline": self.baseline,
            "previous": self.previous,
            "changed": {} if since is None else changes(since),
            "identical": None if since is None else sum(cell.identical for cell in since.cells),
            "measures": () if judged is None else measures_of(judged),
            "gates": () if judged is None else tuple(NightGate(cell.label, gate) for cell, gate in judged.gates),
        }


def score(run: RunFolder, say: Callable[[str], None]) -> None:
    """Score a run with the metrics of its job; what was scored before is kept."""
    metrics = wanted_metrics(run)
    say(f"{run.path}: scoring {', '.join(metric.name for metric in metrics)}.")
    score_run(run, metrics)


def judge(run: RunFolder, baseline: str, base: Path, before: RunFolder | None, say: Callable[[str], None]) -> Found:
    """Compare a night.

    Args:
        run: the night's run, scored.
        baseline: "pinned", "last" (the night before), or a run.
        base: the folder of runs.
        before: the run of the night before, or None.
        say: told what is missing.
    """
    notes: list[str] = []
    against = _baseline(run, baseline, base, before, notes)
    judged = _compared(against, run, None, notes)
    since = None if before is None else _compared(before, run, Options(gates=()), [])
    for note in notes:
        say(note)
    return Found(judged, since, tuple(notes))


def _baseline(
    run: RunFolder, baseline: str, base: Path, before: RunFolder | None, notes: list[str]
) -> RunFolder | None:
    """The run that gates are held against; None, with a note when one was named, when there is none."""
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
