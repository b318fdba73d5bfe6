"""Finding runs: by folder, by job name, or the one submitted last; and naming new ones."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from genrun.adapters.files import unusable
from genrun.registry import did_you_mean
from genrun.runner.errors import StoreError, UnreadableError, UsageError
from genrun.runner.store.files import read_error, remove_left_behind, sync, temporary_name, write_error
from genrun.runner.store.folder import RunFolder, is_run

SHOWN = 80
"""Characters of a name that is too long."""

SHOWN_RUNS = 4
"""Runs that a message names."""

_STAMPED = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d-[0-9a-f]{4}", re.ASCII)

LATEST = "latest"
PINNED = "pinned"
"""Links next to the runs of a job: to the one submitted last, and to the baseline of its nights."""


def resolve(run: str | None, base: Path) -> RunFolder:
    """Open a run.

    Args:
        run: a run folder, a job's name (its latest run), or None (the run submitted last).
        base: the folder of runs.

    Raises:
        UsageError: there is no such run.
        StoreError: the folder is not a run.
    """
    if run is None:
        return RunFolder.open(_last_submitted(base))
    folder = Path(run)
    reason = unusable(folder / "plan.jsonl") or unusable(base / run / "plan.jsonl")
    if reason:
        raise UsageError(f"{run[:SHOWN]!r}: cannot be looked at: {reason}.", remedy="genrun runs lists runs.")
    if _may_be_run(folder):
        return RunFolder.open(folder)
    for parent in (folder, base / run):
        if (latest := _latest(parent)) is not None:
            return RunFolder.open(latest)
    if _may_be_run(base / run):
        return RunFolder.open(base / run)
    if (found := begun(run, base)) is not None:
        return RunFolder.open(found)
    known = names(base)
    listed = f"Jobs with runs in {base}: {', '.join(known)}." if known else f"There are no runs in {base}."
    raise UsageError(f"{run!r}: no such run.{did_you_mean(run, known)}", remedy=f"{listed} Others: --runs FOLDER.")


def begun(text: str, base: Path) -> Path | None:
    """Return the only run that a text names in short, or None.

    Short for a run are the beginning or the last four digits of its name, with or without its job in front; for a job's
    latest run the beginning of the job's name.

    Raises:
        UsageError: several are named so.
    """
    job, slash, short = text.strip("/").rpartition("/")
    if not short or short.startswith("."):
        return None
    jobs = [name for name in names(base) if (name == job if slash else True)]
    found = [
        path
        for name in jobs
        for path in runs_of(base / name)
        if path.name.startswith(short) or path.name.rpartition("-")[2] == short
    ]
    latest = [] if slash else [path for name in jobs if name.startswith(short) and (path := _latest(base / name))]
    real = dict.fromkeys(Path(os.path.realpath(path)) for path in (*found, *latest))
    if len(real) > 1:
        labels = [f"{path.parent.name}/{path.name}" for path in real][:SHOWN_RUNS]
        raise UsageError(f"{text[:SHOWN]!r}: several runs are named so.", remedy=f"Such as {', '.join(labels)}.")
    return next(iter((*found, *latest)), None)


def names(base: Path) -> list[str]:
    """Return the names of the jobs that have runs under `base`, sorted."""
    return sorted(folder.name for folder in _folders(base) if next(runs_of(folder), None) is not None)


def runs_of(job_folder: Path) -> Iterator[Path]:
    """Yield the runs of one job, newest first."""
    stamped = sorted((folder for folder in _folders(job_folder) if not folder.is_symlink()), reverse=True)
    return (folder for folder in stamped if _may_be_run(folder))


def new_path(base: Path, name: str) -> Path:
    """Return a new run's folder: the time, local, and four random digits."""
    stamp = datetime.now().strftime("%Y-%m-%dT%H-%M-%S")
    return base.resolve() / name / f"{stamp}-{secrets.token_hex(2)}"


def is_stamped(name: str) -> bool:
    """Tell whether a run's folder is called as `new_path` called it."""
    return _STAMPED.fullmatch(name) is not None


def point_latest(folder: RunFolder) -> None:
    """Point the link `latest` of the run's job to it, atomically.

    Raises:
        StoreError: the link cannot be written.
    """
    _point(folder.path.parent / LATEST, folder)


def pin(folder: RunFolder) -> None:
    """Point the link `pinned` of the run's job to it, atomically: the baseline of its nights.

    Raises:
        StoreError: the link cannot be written.
    """
    _point(folder.path.parent / PINNED, folder)


def unpin(job_folder: Path) -> bool:
    """Remove the link of a job's baseline; return whether there was one."""
    link = job_folder / PINNED
    if not link.is_symlink():
        return False
    link.unlink()
    return True


def pinned(job_folder: Path) -> RunFolder | None:
    """Return the baseline of a job's nights, or None.

    Raises:
        StoreError: there is a link, but no run behind it.
    """
    link = job_folder / PINNED
    if not link.is_symlink():
        return None
    if not link.exists():
        message = f"{link}: not a run folder: the run it points to is gone."
        raise StoreError(message, remedy="Pin another: genrun pin RUN; or none: genrun pin --remove.")
    return RunFolder.open(link)


def _may_be_run(path: Path) -> bool:
    """Tell whether a folder is a run; True also for one that may not be read, which opening it reports."""
    try:
        return is_run(path)
    except UnreadableError:
        return True


def _point(link: Path, folder: RunFolder) -> None:
    temporary = temporary_name(link)
    try:
        if link.is_dir() and not link.is_symlink():
            # A copy of the runs may have made a folder of it. It is kept, under a name of its own.
            link.rename(link.with_name(f"{link.name}-{secrets.token_hex(2)}"))
        # Of a command that was killed as it pointed it elsewhere.
        remove_left_behind(link.parent, f".{link.name}.")
        temporary.symlink_to(folder.path.name, target_is_directory=True)
        temporary.replace(link)
        sync(link.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise write_error(link, error) from error


def _latest(job_folder: Path) -> Path | None:
    link = job_folder / LATEST
    if _may_be_run(link):
        return link
    return next(runs_of(job_folder), None)


def _last_submitted(base: Path) -> Path:
    from genrun.runner.job import certificates

    found = [(_moved_at(folder), latest) for folder in _folders(base) if (latest := _latest(folder)) is not None]
    if not found:
        raise UsageError(f"{base}: no runs there.", remedy="Start one: genrun submit JOB.yaml; or name --runs FOLDER.")
    newest = sorted(found, reverse=True)
    # Whoever has calibrated a job means the job's run; the calibration's where there is no other.
    return next((path for _, path in newest if not certificates.has_ended(base, path)), newest[0][1])


def _moved_at(job_folder: Path) -> int:
    link = job_folder / LATEST
    return link.lstat().st_mtime_ns if link.is_symlink() else 0


def _folders(base: Path) -> list[Path]:
    try:
        return [entry for entry in base.iterdir() if not entry.name.startswith(".") and entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise read_error(base, error) from error
