"""The file `night.json` of a run: when its night was due, which calls worked on it, and what it measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from genrun.runner.errors import StoreError
from genrun.runner.store.environment import ProcessName, is_gone
from genrun.runner.store.files import atomic_write, read_bytes, reading
from genrun.runner.store.folder import RunFolder
from genrun.runner.strict_json import read_json

VERSION = 1

# An hour: a queue or a machine that was off delays a night by less, and whoever reads it in the morning need not know.
GRACE_S = 3600.0
"""Seconds after its time from which a night counts as late."""

GateState = Literal["passed", "failed", "incomplete"]
NightState = Literal["running", "passed", "failed", "incomplete", "interrupted"]
End = Literal["running", "finished", "interrupted", "doubled"]

FINAL = ("passed", "failed")
"""States of nights whose work is complete."""


@dataclass(frozen=True)
class Attempt:
    """A call of `genrun nightly`.

    Attributes:
        started_at: ISO 8601, local time with its offset.
        ended_at: the same; "" while it runs, and for one that was cut off.
        end: "doubled" is a call that found the night done, or another at work on it.
        process: who it was.
        note: what went wrong, or "".
    """

    started_at: str
    ended_at: str
    end: End
    process: ProcessName
    note: str = ""


@dataclass(frozen=True)
class CellMean:
    """The mean of a metric over a cell's items, with its 95 % interval."""

    cell: str
    metric: str
    n: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class GateResult:
    """A gate on a cell, as it was judged.

    Attributes:
        metric: what it looks at.
        rule: "max", "min", "max_drop" or "max_rise".
        limit: as the job file has it, such as 0.06 or "0.5%".
        threshold: the limit as a number in the metric's units; None when a percentage has nothing to be of.
        value: the mean, the drop or the rise that is held against the threshold; None when nothing was measured.
        low: lower end of its interval.
        high: upper end.
        n: items or pairs measured.
        state: "failed" only when the interval lies wholly beyond the threshold; "incomplete" when too little was
            measured to say that it does not.
        reason: a sentence, for a gate that did not pass.
    """

    metric: str
    rule: str
    limit: float | str
    threshold: float | None
    value: float | None
    low: float | None
    high: float | None
    n: int
    state: GateState
    reason: str = ""


@dataclass(frozen=True)
class NightGate:
    """A gate as it was judged, and the cell it was held against."""

    cell: str
    gate: GateResult


@dataclass(frozen=True)
class Night:
    """A night and its run.

    Attributes:
        job: the job's name.
        run: name of the run folder.
        night: the date on which it was due, "2026-01-31".
        scheduled_at: when it was due, ISO 8601.
        attempts: every call that came to this run, the first first.
        state: "running" while a call works on it; "incomplete" when something could not be made or judged.
        items: planned.
        done: made.
        failed: items that failed.
        commit: git commit of the working directory, or None.
        baseline: run that the gates were held against, absolute, or None.
        previous: run of the night before, absolute, or None.
        changed: since the night before: "cell metric" -> "better" or "worse", where the interval excludes 0.
        identical: items with the same files as the night before, or None without one.
        measures: means of every cell and metric.
        gates: every gate.
        summary: one line for a mail.
        notes: what went wrong beside the items.
        is_removed: True when its run folder was removed to make room.
    """

    job: str
    run: str
    night: str
    scheduled_at: str
    attempts: tuple[Attempt, ...] = ()
    state: NightState = "running"
    items: int = 0
    done: int = 0
    failed: int = 0
    commit: str | None = None
    baseline: str | None = None
    previous: str | None = None
    changed: Mapping[str, str] = field(default_factory=dict)
    identical: int | None = None
    measures: tuple[CellMean, ...] = ()
    gates: tuple[NightGate, ...] = ()
    summary: str = ""
    notes: tuple[str, ...] = ()
    is_removed: bool = False

    @property
    def late_s(self) -> float:
        """Seconds from when it was due to its first call."""
        if not self.attempts:
            return 0.0
        started, due = (datetime.fromisoformat(text) for text in (self.attempts[0].started_at, self.scheduled_at))
        return (started - due).total_seconds()

    @property
    def is_late(self) -> bool:
        """True when it began more than an hour after its time."""
        return self.late_s > GRACE_S

    @property
    def doubled(self) -> int:
        """Number of calls that had nothing to do, as another did this night's work."""
        return sum(attempt.end == "doubled" for attempt in self.attempts)

    @property
    def interrupted(self) -> int:
        """Number of calls that were cut off."""
        return sum(attempt.end == "interrupted" for attempt in self.attempts)

    @property
    def marks(self) -> list[str]:
        """Everything out of the ordinary: "late 3:12", "doubled", "interrupted 2x"."""
        minutes = int(self.late_s // 60)
        found = [f"late {minutes // 60}:{minutes % 60:02}"] if self.is_late else []
        for name, count in (("doubled", self.doubled), ("interrupted", self.interrupted)):
            found += [name if count == 1 else f"{name} {count}x"] if count else []
        return found

    def observed(self) -> Night:
        """Return the night with calls whose process is gone marked as interrupted."""
        attempts = tuple(
            replace(attempt, end="interrupted") if attempt.end == "running" and is_gone(attempt.process) else attempt
            for attempt in self.attempts
        )
        is_dead = self.state == "running" and not any(attempt.end == "running" for attempt in attempts)
        return replace(self, attempts=attempts, state="interrupted" if is_dead else self.state)

    def to_dict(self) -> dict[str, Any]:
        """Return the night as plain data."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Night:
        """Make a night of what `to_dict` returned.

        Raises:
            ValueError, TypeError, KeyError: the data are none of this version's.
        """
        fields = dict(data)
        if (version := fields.pop("version")) != VERSION:
            raise ValueError(f"version {version}, where {VERSION} is known")
        attempts = [Attempt(**{**each, "process": ProcessName(**each["process"])}) for each in fields["attempts"]]
        gates = [NightGate(each["cell"], GateResult(**each["gate"])) for each in fields["gates"]]
        return cls(
            **{
                **fields,
                "attempts": tuple(attempts),
                "measures": tuple(CellMean(**each) for each in fields["measures"]),
                "gates": tuple(gates),
                "notes": tuple(fields["notes"]),
            }
        )


def read_night(path: Path) -> Night | None:
    """Read a night's file; None when there is none, or when it cannot be read."""
    try:
        return Night.from_dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def check_file(folder: RunFolder, path: Path) -> None:
    """Read a night's file as `genrun verify` does.

    Raises:
        StoreError: it is damaged, or may not be looked into.
    """
    del folder
    with reading(path):
        Night.from_dict(read_json(read_bytes(path)))


def write_night(path: Path, night: Night) -> None:
    """Write a night's file.

    Raises:
        StoreError: it cannot be written.
    """
    atomic_write(path, (json.dumps(night.to_dict(), indent=1, allow_nan=False) + "\n").encode())


def amend(folder: RunFolder, change: Callable[[Night], Night], new: Night | None = None) -> Night:
    """Change the night of a run while nobody else does, and return it.

    Args:
        folder: the run.
        change: the night as it is -> the night as it shall be.
        new: what to begin with when the run is no night yet.

    Raises:
        StoreError: the file cannot be written, or there is none and nothing to begin with.
    """
    with folder.lock():
        present = read_night(folder.night_path) or new
        if present is None:
            raise StoreError(f"{folder.night_path}: cannot be read.", remedy="Delete the file, or that night's run.")
        night = change(present)
        write_night(folder.night_path, night)
    return night
