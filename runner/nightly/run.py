"""Run one call of `genrun nightly`: do what is left of the night's work, if anything is, and tell a command of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from genrun.runner import history
from genrun.runner.errors import GenrunError, IncompleteError, StoppedError
from genrun.runner.job.layers import hidden
from genrun.runner.job.schema import NightlySpec
from genrun.runner.nightly import due as retention
from genrun.runner.nightly.due import Due, NightRun, alone, due, night_before, nights_of, tonight
from genrun.runner.nightly.judge import Judgement, judge, summary
from genrun.runner.store.environment import current
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.nights import FINAL, Attempt, End, Night, amend, read_night, write_night
from genrun.runner.store.planfile import keep
from genrun.runner.store.repair import remove_from_job
from genrun.runner.store.runs import new_path, point_latest
from genrun.runner.submit import lock
from genrun.runner.submit.resume import SubmittedJob, is_run_of, take_up

EXIT_CODES = {"passed": 0, "failed": 1}
INCOMPLETE = 3


@dataclass(frozen=True)
class Tools:
    """Functions through which a night acts on the outside world.

    Attributes:
        make_items: makes the missing items of a run and returns when that is done.
        is_at_work: tells whether workers are at work in a run.
        report: writes the report of a run and returns its path.
        now: local time with its offset.
        say: tells the user.
        environ: environment of the notification command.
    """

    make_items: Callable[[RunFolder], None]
    is_at_work: Callable[[RunFolder], bool]
    report: Callable[[RunFolder], Path]
    now: Callable[[], datetime]
    say: Callable[[str], None]
    environ: Mapping[str, str]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a call.

    Attributes:
        folder: the night's run.
        night: the night.
        is_doubled: True when this call had nothing to do.
        report: the report's path, or None.
    """

    folder: RunFolder
    night: Night
    is_doubled: bool
    report: Path | None = None

    @property
    def exit_code(self) -> int:
        """Exit status: 0 passed, 1 failed, 3 incomplete."""
        return EXIT_CODES.get(self.night.state, INCOMPLETE)

    def to_dict(self) -> dict[str, Any]:
        """Return the night as JSON data, for scripts and for the notification command."""
        data = self.night.to_dict()
        run, report = str(self.folder.path), None if self.report is None else str(self.report)
        extra = {"late_s": self.night.late_s, "marks": self.night.marks, "doubled": self.is_doubled}
        return {
            "summary": self.night.summary,
            "exit_code": self.exit_code,
            **data,
            **extra,
            "run": run,
            "report": report,
        }


def run_night(job: SubmittedJob, base: Path, tools: Tools, *, again: bool = False) -> Outcome:
    """Do what is left of this night's work.

    An interrupted night is continued where it stopped; one that is done is left alone.

    Args:
        job: what is generated.
        base: the folder of runs.
        tools: the outside world.
        again: make another run of a night that is done.

    Raises:
        IncompleteError: another call is at this night's work.
        StoppedError: this process was told to stop.
        StoreError: the run folder cannot be written.
    """
    spec = job.spec.nightly or NightlySpec()
    job_folder = base / job.spec.name
    night = due(tools.now(), spec.at)
    with alone(job_folder) as is_alone:
        run = tonight(nights_of(job_folder), night, lambda folder: is_run_of(job, folder))
        if not is_alone:
            if run is not None:
                _record_doubled(run, base, tools)
            name = job_folder.name if run is None else run.folder.path
            said = f"{name}: another genrun nightly is at this night's work."
            raise IncompleteError(said, remedy="See: genrun history.")
        if run is not None and run.night.state in FINAL and not again:
            return _doubled(run, base, tools)
        folder = _open(job, base, None if again else run, tools, night)
        return _Call(job, spec, base, tools, folder, night).run()


def needs_items(job: SubmittedJob, base: Path, now: datetime, *, again: bool = False) -> bool:
    """Return whether this night's work is to make items; arguments as those of `run_night`."""
    night = due(now, (job.spec.nightly or NightlySpec()).at)
    run = None if again else tonight(nights_of(base / job.spec.name), night, lambda folder: is_run_of(job, folder))
    return run is None or run.folder.tally().done < len(job.items)


def _open(job: SubmittedJob, base: Path, run: NightRun | None, tools: Tools, due_night: Due) -> RunFolder:
    """Make tonight's run, or take it up. Nothing of other runs is used: a night measures anew."""
    with lock.of_job(base / job.spec.name, tools.say):
        remove_from_job(base / job.spec.name)
        if run is None:
            path = new_path(base, job.spec.name)
            new = _new_night(job, path.name, due_night)

            # Before anybody can see the run: one without its night would be taken for a run that was submitted by hand.
            def fill(building: RunFolder) -> None:
                keep(building, job.inputs)
                write_night(building.night_path, new)

            folder = RunFolder.create(path, job.document, job.items, fill)
        else:
            opened = take_up(job, run.folder, tools.is_at_work, tools.say)
            folder = opened.folder
            for line in opened.lines(len(job.items)):
                tools.say(line)
        point_latest(folder)
        return folder


def _new_night(job: SubmittedJob, run: str, due_night: Due) -> Night:
    return Night(job.spec.name, run, due_night.night, due_night.scheduled_at)


def _doubled(run: NightRun, base: Path, tools: Tools) -> Outcome:
    night = _record_doubled(run, base, tools)
    tools.say(f"This night is done already. To make it once more: genrun nightly JOB --again.\n  {run.folder.path}")
    report = run.folder.report_dir / "index.html"
    if not report.is_file():
        # The call that judged the night was killed before it was told.
        with contextlib.suppress(GenrunError):
            report = tools.report(run.folder)
    return Outcome(run.folder, night, True, report if report.is_file() else None)


def _record_doubled(run: NightRun, base: Path, tools: Tools) -> Night:
    moment = tools.now().isoformat(timespec="seconds")
    attempt = Attempt(moment, moment, "doubled", current())
    night = amend(run.folder, lambda night: replace(night, attempts=(*night.attempts, attempt)))
    history.record(base, night)
    return night


@dataclass(frozen=True)
class _Call:
    """A call that has the night to itself: `run` is its order of work."""

    job: SubmittedJob
    spec: NightlySpec
    base: Path
    tools: Tools
    folder: RunFolder
    due: Due

    def run(self) -> Outcome:
        self._begin()
        try:
            notes = self._generate()
            found = self._judge()
            night = self._end(found, notes)
        except (KeyboardInterrupt, StoppedError):
            self._interrupt("stopped")
            raise
        except Exception as error:
            self._interrupt(f"{type(error).__name__}: {error}")
            raise
        report = self._report()
        self._remove_old_runs(found)
        self._notify(Outcome(self.folder, night, False, report))
        return Outcome(self.folder, read_night(self.folder.night_path) or night, False, report)

    def _begin(self) -> None:
        attempt = Attempt(self._moment(), "", "running", current())
        new = _new_night(self.job, self.folder.path.name, self.due)
        commit = self.folder.environment().get("git")

        def change(night: Night) -> Night:
            attempts = (*night.observed().attempts, attempt)
            return replace(night, attempts=attempts, state="running", items=len(self.job.items), commit=commit)

        self._amend(change, new)

    def _generate(self) -> list[str]:
        """Make the items; return what went wrong, apart from items that failed."""
        try:
            self.tools.make_items(self.folder)
        except StoppedError:
            raise
        except GenrunError as error:
            self.tools.say(str(error))
            return [error.message]
        return []

    def _judge(self) -> Judgement:
        nights = [run for run in nights_of(self.folder.path.parent) if run.folder.path != self.folder.path]
        before = night_before(nights, self.due)
        previous = None if before is None else before.folder
        return judge(self.folder, self.spec.baseline, self.base, previous, self.tools.say)

    def _end(self, found: Judgement, notes: Sequence[str]) -> Night:
        tally = self.folder.tally()
        state = found.state
        if tally.failed or state == "failed":
            state = "failed"
        elif tally.pending or notes or found.notes:
            state = "incomplete"
        attempts = self._attempts("finished")

        def change(night: Night) -> Night:
            night = replace(
                night,
                attempts=attempts(night),
                state=state,
                items=tally.items,
                done=tally.done,
                failed=tally.failed,
                notes=(*notes, *found.notes),
                **found.fields(),
            )
            return replace(night, summary=summary(night, found.judged))

        return self._amend(change)

    def _interrupt(self, note: str) -> None:
        attempts = self._attempts("interrupted", note)
        self._amend(lambda night: replace(night, attempts=attempts(night), state="interrupted"))

    def _report(self) -> Path | None:
        try:
            return self.tools.report(self.folder)
        except Exception as error:  # the verdict stands without its page
            self._note(f"report: {type(error).__name__}: {error}")
            return None

    def _remove_old_runs(self, found: Judgement) -> None:
        job_folder = self.folder.path.parent
        retention.finish_removals(job_folder)
        kept = [self.folder.path, *(Path(path) for path in (found.baseline, found.previous) if path is not None)]
        for run in retention.old_nights(job_folder, self.spec.keep, kept, self.tools.is_at_work):
            try:
                history.record(self.base, retention.remove(run))
                self.tools.say(f"Removed the run of {run.night.night}: {run.folder.path}")
            except (OSError, GenrunError) as error:
                self._note(f"{run.folder.path}: cannot be removed: {error}")

    def _notify(self, outcome: Outcome) -> None:
        wanted = self.spec.notify
        if wanted is not None and (wanted.when == "always" or outcome.exit_code):
            trouble = notify(wanted.command, outcome.to_dict(), wanted.timeout_s, self.tools.environ)
            if trouble:
                self._note(trouble)

    def _note(self, text: str) -> None:
        self.tools.say(text)
        self._amend(lambda night: replace(night, notes=(*night.notes, text)))

    def _amend(self, change: Callable[[Night], Night], new: Night | None = None) -> Night:
        night = amend(self.folder, change, new)
        history.record(self.base, night)
        return night

    def _attempts(self, end: End, note: str = "") -> Callable[[Night], tuple[Attempt, ...]]:
        """Return how this call's attempt is ended in a night."""
        moment, process = self._moment(), current()
        return lambda night: tuple(
            replace(attempt, end=end, ended_at=moment, note=note)
            if attempt.end == "running" and attempt.process == process
            else attempt
            for attempt in night.attempts
        )

    def _moment(self) -> str:
        return self.tools.now().isoformat(timespec="seconds")


SHOWN = 300
"""Characters of the end of a command's stderr that are told."""


def notify(command: Sequence[str], payload: Mapping[str, Any], timeout_s: float, environ: Mapping[str, str]) -> str:
    """Run a command, without a shell, with JSON on its stdin; what it writes to stdout is dropped.

    Args:
        command: program and arguments. They may hold secrets: only the program's name is ever told.
        payload: the JSON.
        timeout_s: seconds after which it and all that it started are killed.
        environ: its environment.

    Returns:
        "" when it ended with 0, else a note on what went wrong.
    """
    name = os.path.basename(command[0])  # noqa: PTH119 (a command is no path)
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=dict(environ),
                start_new_session=True,
            )
        except (OSError, ValueError) as error:  # ValueError: a NUL, which no program can be given
            return f"notify: {name} cannot be run: {getattr(error, 'strerror', None) or error}"
        try:
            process.communicate((json.dumps(payload, allow_nan=False) + "\n").encode(), timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return f"notify: {name} was stopped after {timeout_s:g} s"
        finally:
            _kill(process)
        if process.returncode == 0:
            return ""
        errors.seek(0)
        # A program may well repeat what it was given: curl writes the address that it could not reach.
        said = hidden(" ".join(errors.read(16 * SHOWN).decode(errors="replace").split()), environ)[-SHOWN:]
        return f"notify: {name} ended with {process.returncode}{f': {said}' if said else ''}"


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a command that is still there, with all that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
