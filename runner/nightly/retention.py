"""Remove the runs of old nights; what they measured stays."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from genrun.runner.history import LEFT
from genrun.runner.nightly.due import NightRun, alone, nights_of
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.nights import Night, write_night
from genrun.runner.store.runs import LATEST, PINNED

REMOVING = ".removing"
"""Suffix of a run folder that is being removed."""


def old_nights(
    job_folder: Path, keep: int, kept: Collection[Path], is_at_work: Callable[[RunFolder], bool]
) -> list[NightRun]:
    """Return the nights beyond the newest `keep`, oldest last, whose runs nobody needs.

    Args:
        job_folder: the folder of a job's runs.
        keep: dates that are kept.
        kept: run folders that are never removed, beside the pinned and the latest one.
        is_at_work: tells whether somebody works in a run.
    """
    nights = nights_of(job_folder)
    dates = sorted({run.night.night for run in nights}, reverse=True)[:keep]
    needed = {path.resolve() for path in kept} | {(job_folder / name).resolve() for name in (PINNED, LATEST)}
    return [
        run
        for run in nights
        if run.night.night not in dates
        and run.folder.path not in needed
        and run.night.state != "running"
        and not is_at_work(run.folder)
    ]


def remove(run: NightRun) -> Night:
    """Remove the run of a night; its night stays in `NAME/.nights/`. A removal that is cut off is ended by the next.

    Raises:
        StoreError: the job's folder cannot be written.
        OSError: the run cannot be removed.
    """
    job_folder, name = run.folder.path.parent, run.folder.path.name
    night = replace(run.night, is_removed=True)
    write_night(job_folder / LEFT / f"{name}.json", night)
    # First out of sight, in one step: half a run must never look like a run.
    removing = job_folder / f".{name}{REMOVING}"
    run.folder.path.rename(removing)
    shutil.rmtree(removing)
    return night


def finish_removals(job_folder: Path) -> None:
    """Remove the rest of runs whose removal was cut off. Call while no other night of the job is at work."""
    for leftover in job_folder.glob(f".*{REMOVING}"):
        with contextlib.suppress(OSError):
            shutil.rmtree(leftover)


def finish_removals_if_idle(job_folder: Path) -> None:
    """Do the same for other commands than nights, unless a night of the job is at work."""
    if any(job_folder.glob(f".*{REMOVING}")):
        with alone(job_folder) as is_alone:
            if is_alone:
                finish_removals(job_folder)
