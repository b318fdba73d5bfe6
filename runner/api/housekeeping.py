"""Keeping house: the runs of a folder with their states, sizes and ages; and removing runs that nobody needs."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from genrun.runner.api import RUNS, launching
from genrun.runner.api.calls import QUIET, Listener, checked
from genrun.runner.api.state import JobName
from genrun.runner.errors import GenrunError, UsageError

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.results import Tally

RUNNING, DONE, FAILED, INCOMPLETE, DAMAGED = "running", "done", "failed", "incomplete", "damaged"
GIB = 2**30


@dataclass(frozen=True)
class ListedRun:
    """A run of a folder of runs.

    Attributes:
        folder: its files.
        job: the job's name.
        state: "running", "done", "failed" (some items), "incomplete", or "damaged" where its plan cannot be read.
        tally: its items by state; None for a damaged run.
        size_bytes: of its files; those that it shares with other runs count in each.
        age_s: seconds since its last file of results was written.
        is_latest: True for the run of its job that was submitted last.
        is_pinned: True for the baseline of its job's nights.
    """

    folder: RunFolder
    job: str
    state: str
    tally: Tally | None
    size_bytes: int
    age_s: float
    is_latest: bool
    is_pinned: bool

    @property
    def name(self) -> str:
        """Job and run, as commands take it."""
        return f"{self.job}/{self.folder.path.name}"


@checked
def runs(job: JobName = None, *, base: str | os.PathLike[str] = RUNS) -> list[ListedRun]:
    """List the runs of a folder, the newest of each job first.

    Args:
        job: only this job's.
        base: the folder of runs.

    Raises:
        UsageError: the job has no runs.
    """
    from genrun.registry import did_you_mean
    from genrun.runner.store.runs import names

    folder = Path(base)
    known = names(folder)
    if job is not None and job not in known:
        listed = f"Jobs with runs in {folder}: {', '.join(known)}." if known else f"There are no runs in {folder}."
        raise UsageError(f"{job[:80]!r}: no runs of such a job.{did_you_mean(job, known)}", remedy=listed)
    return [_listed(path) for name in known if job in (None, name) for path in _runs_of(folder / name)]


@dataclass(frozen=True)
class Removal:
    """The runs that were removed, or would be.

    Attributes:
        removed: absolute folders.
        kept: run -> why it is kept although it was asked for.
        freed_bytes: size of the files that only the removed runs had.
    """

    removed: tuple[Path, ...]
    kept: dict[Path, str]
    freed_bytes: int


@checked
def remove(
    names: Sequence[str | os.PathLike[str]],
    *,
    dry_run: bool = False,
    base: str | os.PathLike[str] = RUNS,
    listener: Listener = QUIET,
) -> Removal:
    """Remove runs, each with all that is in its folder.

    Args:
        names: folders of runs, or short names of them; a job's name alone does not say which of its runs.
        dry_run: remove nothing, and tell what would be removed.
        base: the folder of runs; nothing outside it is ever removed.
        listener: hears of each run that is removed.

    Raises:
        UsageError: a run is at work or pinned, or there is no such run; then nothing is removed.
    """
    folder = Path(base).resolve()
    if not dry_run:
        _end_removals(folder, listener)
    chosen = list(dict.fromkeys(_named(os.fspath(name), folder) for name in names))
    for path in chosen:
        why = _needed(path)
        if why:
            raise UsageError(f"{path}: {why}. Nothing was removed.", remedy=_REMEDIES[why])
    return _remove(chosen, {}, dry_run, listener)


@checked
def collect_garbage(
    keep: int,
    *,
    job: JobName = None,
    dry_run: bool = False,
    base: str | os.PathLike[str] = RUNS,
    listener: Listener = QUIET,
) -> Removal:
    """Remove all but the newest runs of each job; never one that is at work, damaged, pinned, or was submitted last.

    A damaged run takes no other's place among the newest: whether anything in it is of use, nobody but its owner knows.
    Where none of those that are kept is done, the newest that is stays beside them.

    Args:
        keep: runs of each job that are kept.
        job: only this job's.
        dry_run: remove nothing, and tell what would be removed.
        base: the folder of runs; nothing outside it is ever removed.
        listener: hears of each run that is removed.

    Raises:
        UsageError: the job has no runs, or `keep` is no number of them.
    """
    from genrun.runner.store.runs import LATEST

    if keep < 0:
        raise UsageError(f"keep is {keep!r:.60}: wanted a whole number of at least 0. Nothing was removed.")
    folder = Path(base).resolve()
    if not dry_run:
        _end_removals(folder, listener)
    old: list[Path] = []
    kept: dict[Path, str] = {}
    found = runs(job, base=folder)
    damaged = {run.folder.path for run in found if run.state == DAMAGED}
    done = {run.folder.path for run in found if run.state == DONE}
    for name in dict.fromkeys(run.folder.path.parent.name for run in found):
        if (folder / name).is_symlink():
            kept[folder / name] = "its folder is a link"
            continue
        latest = _target(folder / name / LATEST)
        others = [path for path in _runs_of(folder / name) if path != latest]
        kept |= {
            path: "is damaged: genrun verify tells how, genrun rm removes it" for path in others if path in damaged
        }
        whole = [path for path in others if path not in damaged]
        room = max(0, keep - (latest.is_dir() and latest not in damaged))
        # Whoever keeps a run wants its results: that of a job begun anew has none yet.
        last_done = next((path for path in _runs_of(folder / name) if path in done), None)
        is_kept = not keep or not done.isdisjoint([latest, *whole[:room]])
        for path in whole[room:]:
            why = _needed(path) or (_LAST_DONE if path == last_done and not is_kept else "")
            if why:
                kept[path] = why
            else:
                old.append(path)
    return _remove(old, kept, dry_run, listener)


_LAST_DONE = "is the newest that is done"
_AT_WORK, _PINNED, _UNKNOWN = "is at work", "is pinned", "may be at work: its queue gives no answer"
_REMEDIES = {
    _AT_WORK: "Stop it first: genrun cancel RUN.",
    _PINNED: "Its job's nights are held against it. Pin another: genrun pin RUN; or none: genrun pin --remove.",
    _UNKNOWN: "Try again when the queue answers.",
}


def _named(text: str, base: Path) -> Path:
    """Return the run of that name, which lies in a job's folder in `base` and is no link.

    Raises:
        UsageError: there is none, or it is not clear which.
    """
    from genrun.runner.store.runs import LATEST, PINNED, begun, names

    if text.strip("/") in names(base):
        raise UsageError(
            f"{text}: which of its runs?", remedy=f"genrun runs {text} lists them; genrun gc keeps the newest."
        )
    named = Path(text) if Path(text).is_dir() else base / text
    # A link beside the runs stands for one of them; any other is somebody's own.
    if named.is_symlink() and named.name in (LATEST, PINNED):
        named = _target(named)
    path = named.parent.resolve() / named.name if named.is_dir() else begun(text, base)
    if path is None:
        raise UsageError(
            f"{text[:80]!r}: no such run in {base}.", remedy="genrun runs lists runs. Others: --runs FOLDER."
        )
    if path.is_symlink() or path.parent.parent != base or path not in _runs_of(path.parent):
        raise UsageError(f"{path}: is no run of {base}. Nothing was removed.", remedy="Name its folder: --runs FOLDER.")
    return path


def _target(link: Path) -> Path:
    """Return where a link leads, also one that leads to itself."""
    return Path(os.path.realpath(link))


def _runs_of(job_folder: Path) -> list[Path]:
    from genrun.runner.store.runs import runs_of

    return [path.absolute() for path in runs_of(job_folder)]


def _needed(path: Path) -> str:
    """Say why a run must stay, or ""."""
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.lease import holdings, looks_alive
    from genrun.runner.store.runs import PINNED

    if _target(path.parent / PINNED) == path:
        return _PINNED
    try:
        # Also of this process, whose other threads may be at work.
        held = any(looks_alive(holding, time.time_ns()) for holding in holdings(RunFolder(path)).values())
        return _AT_WORK if held or launching.is_at_work(RunFolder(path)) else ""
    except GenrunError:
        return _UNKNOWN


def _end_removals(base: Path, listener: Listener) -> None:
    """End the removals in a folder of runs that a kill cut off: what is left of runs, and links to the latest."""
    from genrun.runner.nightly.due import REMOVING, finish_removals_if_idle
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.repair import remove_from_job
    from genrun.runner.store.runs import LATEST, point_latest, runs_of
    from genrun.runner.submit.lock import of_job

    folders = [path for path in base.iterdir() if path.is_dir() and not path.is_symlink()] if base.is_dir() else []
    for job_folder in folders:
        is_cut = any(job_folder.glob(f".*{REMOVING}"))
        if not is_cut and ((job_folder / LATEST).is_dir() or next(runs_of(job_folder), None) is None):
            continue
        # Another user's job is left as it is.
        with contextlib.suppress(GenrunError), of_job(job_folder, listener.say):
            finish_removals_if_idle(job_folder)
            remove_from_job(job_folder)
            newest = next(runs_of(job_folder), None)
            if newest is not None and not (job_folder / LATEST).is_dir():
                point_latest(RunFolder.open(newest))


def _remove(paths: Sequence[Path], kept: dict[Path, str], dry_run: bool, listener: Listener) -> Removal:
    """Remove runs, the latest of whose job is then the newest that is left."""
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.runs import LATEST, point_latest, runs_of
    from genrun.runner.submit.lock import of_job

    removed: list[Path] = []
    freed = 0
    for job_folder in dict.fromkeys(path.parent for path in paths):
        # Whoever submits the job looks its runs up under this lock.
        with contextlib.nullcontext() if dry_run else of_job(job_folder, listener.say):
            latest = _target(job_folder / LATEST)
            # Another command may have removed some of them while this one waited for the lock.
            here = [path for path in paths if path.parent == job_folder and path.is_dir()]
            freed += _size_of(here)
            for path in here:
                if not dry_run and (why := _needed(path)):
                    kept[path] = why
                    continue
                listener.result(str(path))
                removed.append(path)
                if not dry_run:
                    _remove_folder(path)
            if not dry_run and not latest.is_dir():
                (job_folder / LATEST).unlink(missing_ok=True)
                if (newest := next(runs_of(job_folder), None)) is not None:
                    point_latest(RunFolder.open(newest))
    return Removal(tuple(removed), kept, freed)


def _remove_folder(path: Path) -> None:
    """Remove a run; what its night measured stays. Out of sight first: half a run must never look like a run."""
    from genrun.runner import history
    from genrun.runner.nightly.due import REMOVING, NightRun
    from genrun.runner.nightly.due import remove as remove_night
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.nights import read_night

    folder = RunFolder(path)
    night = read_night(folder.night_path)
    if night is not None:
        history.record(path.parents[1], remove_night(NightRun(folder, night)))
        return
    removing = path.with_name(f".{path.name}{REMOVING}")
    path.rename(removing)
    shutil.rmtree(removing)


def _listed(path: Path) -> ListedRun:
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.runs import LATEST, PINNED

    folder = RunFolder(path.resolve())
    links = {name: _target(path.parent / name) == folder.path for name in (LATEST, PINNED)}
    size, changed = _measure(folder.path)
    try:
        tally = folder.tally()
        state = DONE if tally.done == tally.items else FAILED if tally.failed else INCOMPLETE
        # Who is at work shows in leases and queues; a run that is done is left by all.
        if state != DONE and launching.is_at_work(folder):
            state = RUNNING
    except GenrunError:
        tally, state = None, DAMAGED
    return ListedRun(folder, path.parent.name, state, tally, size, max(0.0, time.time() - changed), *links.values())


def _measure(path: Path) -> tuple[int, float]:
    """Return the size of the files in a run, and when the last of its results was written; links are not followed."""
    size, changed = 0, path.lstat().st_mtime
    for entry in _files(path):
        with contextlib.suppress(OSError):
            found = entry.stat(follow_symlinks=False)
            size += found.st_size
            changed = max(changed, found.st_mtime)
    return size, changed


def _size_of(paths: Sequence[Path]) -> int:
    """Return the size of the files that no folder beside these has: reused results are links to one file."""
    seen: dict[tuple[int, int], list[int]] = {}
    for path in paths:
        for entry in _files(path):
            with contextlib.suppress(OSError):
                found = entry.stat(follow_symlinks=False)
                seen.setdefault((found.st_dev, found.st_ino), [found.st_nlink, found.st_size, 0])[2] += 1
    return sum(size for links, size, count in seen.values() if count >= links)


def _files(path: Path) -> Iterator[os.DirEntry[str]]:
    folders: list[str] = [str(path)]
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    yield entry
