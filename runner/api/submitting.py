"""Submitting jobs, and making again what failed or is doubted: submit, preview, join, retry, decode, rerun."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from genrun.runner.api import RUNS, launching
from genrun.runner.api.arranging import arrange
from genrun.runner.api.calls import QUIET, Listener, checked
from genrun.runner.api.jobs import AnyJob, as_begun, with_runs
from genrun.runner.api.launching import Submission, is_at_work, launch
from genrun.runner.api.state import AnyRun, find_item, run_folder
from genrun.runner.errors import SubmissionRefusedError, UsageError

if TYPE_CHECKING:
    from genrun.runner.job.errors import Origin
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.launch.protocol import Launcher
    from genrun.runner.rerun import Reproduction as Repetition
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.records import Record
    from genrun.runner.submit.resume import SubmittedJob

NEW, DONE, FAILED, REUSED = "new", "done", "failed", "reused"


@checked
def submit(
    job: AnyJob,
    *,
    sets: Sequence[str] = (),
    run: str | os.PathLike[str] | None = None,
    new: bool = False,
    wait: bool = False,
    runs: str | os.PathLike[str] | None = None,
    listener: Listener = QUIET,
) -> Submission:
    """Run a job, or finish a run that was cut off.

    The newest run with the same items is resumed: done items are kept, failed ones tried again, lost files made again. A
    job with other items gets a new run folder, which takes over what earlier runs of the job have made of its items.
    Items that fail raise nothing: the submission tells them.

    Args:
        job: a job file, the name of a packaged one, YAML text (with a line break), or a mapping with a job's keys.
        sets: changes of the job, as texts `a.b=value`.
        run: the run to go on with, or to refuse if the job has changed.
        new: make all items again, in a new run.
        wait: return only when the work is done, also where a launcher puts it into a queue.
        runs: the folder of runs, in place of the job's `output.dir`.
        listener: hears what is done, and how far it is.

    Raises:
        JobFileError: with every problem of the job.
        MixError: `run` holds other items, or its files cannot be written as the job says.
        LaunchError: workers could not be started, or died.
        IncompleteError: items are left.
    """
    from genrun.runner.nightly.due import finish_removals_if_idle
    from genrun.runner.store.repair import remove_from_job
    from genrun.runner.submit.lock import of_job
    from genrun.runner.submit.resume import open_run

    made, origin = _job(job, sets, runs, listener, new=new)
    base, job_folder = Path(made.spec.output.dir), Path(made.spec.output.dir) / made.spec.name
    named = None if run is None else run_folder(run, base)
    made = made if new else as_begun(made, named, job, with_runs(sets, runs), listener)
    with _place_of_refusal(origin):
        launcher = launching.make_launcher(made.spec, made.document, made.items)
        _check_machine(made, base, named, launcher, new=new)
        with contextlib.ExitStack() as locks:
            locks.enter_context(of_job(job_folder, listener.say))
            remove_from_job(job_folder)
            finish_removals_if_idle(job_folder)
            opened = open_run(made, base, named, fresh=new, is_at_work=is_at_work, say=listener.say)
            for line in opened.lines(len(made.items)):
                listener.say(line)
            submission = Submission(opened.folder, opened.counts())
            with launching.notifying(submission, made.spec, listener):
                return launch(submission, made.spec, launcher, wait=wait, locks=locks, listener=listener)


@dataclass(frozen=True)
class Preview:
    """Outcome that a submission would have.

    Attributes:
        name: of the job.
        kind: of launcher.
        folder: the run that would be gone on with; None for a new one.
        items: of the job.
        states: item id -> "new", "done", "failed" (to be made again) or "reused" (from an earlier run).
        gpu_hours: what the missing items would take at the pace of those that are done; None before there are any.
        script: the batch script as it would be, but for the times in the names of the run and the launch; None where the
            launcher has none.
    """

    name: str
    kind: str
    folder: RunFolder | None
    items: Sequence[WorkItem]
    states: Mapping[str, str]
    gpu_hours: float | None
    script: str | None

    @property
    def to_run(self) -> int:
        """Number of items that would be made."""
        return sum(state in (NEW, FAILED) for state in self.states.values())


@checked
def preview(
    job: AnyJob,
    *,
    sets: Sequence[str] = (),
    run: str | os.PathLike[str] | None = None,
    new: bool = False,
    runs: str | os.PathLike[str] | None = None,
    listener: Listener = QUIET,
) -> Preview:
    """Tell what `submit` would do with the same arguments, and write nothing.

    Raises:
        JobFileError: with every problem of the job.
        MixError: `run` holds other items, or its files cannot be written as the job says.
    """
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.runs import new_path
    from genrun.runner.submit.follow import mesh_request_of, new_order
    from genrun.runner.submit.resume import check_same, find_run

    made, origin = _job(job, sets, runs, listener, new=new)
    base = Path(made.spec.output.dir)
    named = None if run is None else run_folder(run, base)
    made = made if new else as_begun(made, named, job, with_runs(sets, runs), listener)
    with _place_of_refusal(origin):
        launcher = launching.make_launcher(made.spec, made.document, made.items)
        if named is not None:
            check_same(made, named)
        folder = named or (None if new else find_run(made, base))
        states = _states(made, base, folder, new=new, listener=listener)
        found = Preview(made.spec.name, made.spec.launch.kind, folder, made.items, states, None, None)
        records = () if folder is None else folder.records().values()
        times = [record.elapsed_s for record in records if record.status == "done"]
        hours, left = None, len(made.items) - len(times)
        if times and left:
            ranks = mesh_request_of(made.spec, made.items).mesh().ranks_per_team
            hours = sum(times) / len(times) * left * ranks / 3600
        order = new_order(launcher, found.kind, made.spec)
        script = launcher.script(folder or RunFolder(new_path(base, found.name)), order, found.to_run)
        return replace(found, gpu_hours=hours, script=script)


@checked
def join(
    run: AnyRun,
    *,
    sets: Sequence[str] = (),
    wait: bool = False,
    runs: str | os.PathLike[str] = RUNS,
    listener: Listener = QUIET,
) -> Submission:
    """Add workers to a run that is at work, as its own job says.

    Args:
        run: the run.
        sets: changes of how workers are started: of the sections launch and parallel.
        wait: return only when the work is done, also where a launcher puts it into a queue.
        runs: the folder of runs, for names.
        listener: hears what is done, and how far it is.

    Raises:
        JobFileError: an option changes more than how workers are started.
        UsageError: this machine cannot run the job.
        LaunchError: workers could not be started, or died.
        IncompleteError: items are left.
    """
    from genrun.runner.job import restore

    folder = run_folder(run, runs)
    document = folder.job_document()
    spec = restore(document, sets=sets)
    launcher = launching.make_launcher(spec, document, folder.items())
    tally = folder.tally()
    if tally.done < tally.items:
        launcher.check_machine()
    return launch(Submission(folder), spec, launcher, wait=wait, join=True, listener=listener)


@checked
def retry(
    run: AnyRun = None,
    items: Sequence[str] = (),
    *,
    wait: bool = False,
    runs: str | os.PathLike[str] = RUNS,
    listener: Listener = QUIET,
) -> Submission:
    """Run the failed items of a run again, and those that are missing unless a queue is at work on them.

    Args:
        run: the run.
        items: ids of the only items to make, or their first digits.
        wait: return only when the work is done, also where a launcher puts it into a queue.
        runs: the folder of runs, for names.
        listener: hears what is done, and how far it is.

    Raises:
        UsageError: an item of `items` is not there, or done already, or this machine cannot run the job.
        LaunchError: workers could not be started, or died.
        IncompleteError: items are left.
    """
    from genrun.runner.job import restore
    from genrun.runner.store.repair import repair
    from genrun.runner.submit.lock import at_work, of_run
    from genrun.runner.submit.resume import rebuild
    from genrun.runner.submit.reuse import set_back

    folder, say = run_folder(run, runs), listener.say
    for note in rebuild(folder):
        say(note)
    planned = folder.items()
    chosen = [find_item(planned, text) for text in items]
    wanted = [item.id for item in chosen]
    document = folder.job_document()
    spec = restore(document)
    launcher = launching.make_launcher(spec, document, planned)
    tally = folder.tally()
    if tally.done < tally.items and not launcher.at_work(folder):
        launcher.check_machine()
    with of_run(folder, say):
        if not at_work(folder):
            for note in repair(folder, wanted):
                say(note)
        # Lost items are set back, so that they are made again; named ones are read in full.
        mended = set_back(folder, chosen or planned, document, thorough=bool(chosen))
        for item in chosen:
            record = folder.record(item.id)
            if record is not None and record.status == "done":
                raise UsageError(f"{item.id}: is done already.", remedy=f"To make it again: genrun rerun {item.id}.")
        for line in mended.lines():
            say(f"{folder.path}: {line}")
    tally = folder.tally()
    say(f"{tally.failed} failed and {tally.pending} missing items.")
    beside = False
    if launcher.at_work(folder):
        # What is missing is being made; what failed beside that is made by workers of its own.
        records = folder.records(check_files=True)
        wanted = wanted or [item_id for item_id, record in records.items() if record.status == "failed"]
        beside = bool(wanted)
    return launch(Submission(folder), spec, launcher, items=wanted or None, wait=wait, join=beside, listener=listener)


@checked
def decode(
    run: AnyRun = None,
    items: Sequence[str] = (),
    *,
    runs: str | os.PathLike[str] = RUNS,
    listener: Listener = QUIET,
) -> list[Record]:
    """Decode saved latents whose decoding failed, in this process; samples nothing.

    Args:
        run: the run.
        items: ids of the only items to decode, or their first digits.
        runs: the folder of runs, for names.
        listener: hears of each item, and of its file as a result.

    Returns:
        The new record of each item: done, or failed again.
    """
    from genrun.runner import rerun as latents
    from genrun.runner.worker.engine import Engine

    folder = run_folder(run, runs)
    chosen = {find_item(folder.items(), text).id for text in items}
    waiting = [pair for pair in latents.undecoded(folder) if not chosen or pair[0].id in chosen]
    if not waiting:
        listener.say("No saved latents wait to be decoded.")
        return []
    engine, outcomes = Engine(folder.job_document()), []
    for item, record in waiting:
        outcome = latents.decode(folder, engine, item, record)
        if outcome is None:
            continue
        outcomes.append(outcome)
        if outcome.status == "done":
            listener.say(f"{item.id}: decoded")
            listener.result(str(folder.path / str(outcome.media)))
        else:
            error = outcome.error or {}
            listener.say(f"{item.id}: failed again: {error.get('message')}\n  {error.get('remedy')}")
    return outcomes


@checked
def rerun(
    what: str | os.PathLike[str],
    *,
    run: AnyRun = None,
    out: str | os.PathLike[str] = "rerun",
    runs: str | os.PathLike[str] = RUNS,
    listener: Listener = QUIET,
) -> tuple[WorkItem, Repetition]:
    """Make one media file again, in this process, and compare it with the old one.

    Args:
        what: a media file that genrun wrote, or the first digits of an item's id.
        run: the run of the item; of a file that lies elsewhere, the one that keeps the pictures which it was made from.
        out: the folder for the new file and its latents.
        runs: the folder of runs, for names.
        listener: hears what is done.

    Returns:
        The item, and how the new file compares with the old one.
    """
    from genrun.runner.rerun import original_in, original_of, repeat

    if Path(what).is_file():
        original = original_of(Path(what), None if run is None else run_folder(run, runs))
    else:
        folder = run_folder(run, runs)
        original = original_in(folder, find_item(folder.items(), os.fspath(what)))
    listener.say(f"{original.item.id}: sampling again.")
    return original.item, repeat(original, Path(out))


def _job(
    job: AnyJob, sets: Sequence[str], runs: str | os.PathLike[str] | None, listener: Listener, *, new: bool
) -> tuple[SubmittedJob, Mapping[str, Origin]]:
    """Load and plan a job, and say its warnings and how its ranks were chosen."""
    from genrun.runner.job import nearest, plan
    from genrun.runner.job.certificates import FOLDER, sentence
    from genrun.runner.submit.resume import SubmittedJob

    arranged = arrange(job, with_runs(sets, runs), new=new)
    loaded, made = arranged.loaded, SubmittedJob.of(arranged.loaded)
    promises = [sentence(str(item.solver["kind"]), item.promise) for item in made.items if item.promise]
    if (Path(made.spec.output.dir) / FOLDER).is_dir():
        promises += nearest.alike(loaded, made.items) + nearest.unmatched(loaded, plan.models_of(loaded))
    ranks = [f"Ranks: {arranged.mesh}; {arranged.why}"] if arranged.why else []
    for line in (*loaded.warnings, *(f"{each}." for each in dict.fromkeys((*ranks, *promises)))):
        listener.say(line)
    return made, loaded.origin


def _check_machine(job: SubmittedJob, runs: Path, named: RunFolder | None, launcher: Launcher, *, new: bool) -> None:
    """Refuse a job of which nothing can be made here before there is a folder of it.

    Raises:
        UsageError: what is missing.
    """
    from genrun.runner.submit.resume import find_run

    try:
        launcher.check_machine()
    except UsageError:
        folder = named or (None if new else find_run(job, runs))
        # A run that is in a queue, or done, is looked up and told; it needs no weights, and perhaps no queue.
        is_wanted = folder is None or launcher.follows
        states = _states(job, runs, folder, new=new, listener=QUIET) if is_wanted else {}
        if any(state in (NEW, FAILED) for state in states.values()):
            raise


@contextlib.contextmanager
def _place_of_refusal(origin: Mapping[str, Origin]) -> Iterator[None]:
    """Turn what a queue refuses into a problem of the job, with its place in the file."""
    from genrun.runner.job.errors import JobProblem, raise_all

    try:
        yield
    except SubmissionRefusedError as error:
        places = [place for path, place in origin.items() if path.startswith(error.field) and place.file != "default"]
        place = next(iter(places), origin.get("launch.kind"))
        if place is None:
            raise
        raise_all([JobProblem(place, error.field, error.reason)])


def _states(job: SubmittedJob, runs: Path, run: RunFolder | None, *, new: bool, listener: Listener) -> dict[str, str]:
    """Return the state of every item, by id, in the run that would be gone on with, or in a new one."""
    from genrun.runner.submit.reuse import find_stale, reusable

    states = dict.fromkeys((item.id for item in job.items), NEW)
    if run is None:
        return states if new else states | dict.fromkeys(reusable(job, runs / job.spec.name), REUSED)
    mended = find_stale(run, job.items, job.document).mended(run)
    for line in mended.lines():
        listener.say(f"{run.path}: {line}")
    records = run.records()
    states |= {item_id: records[item_id].status for item_id in states if item_id in records}
    return states | dict.fromkeys((*mended.lost, *mended.outdated), FAILED)
