"""Making room: the runs of old nights are removed, what they measured stays."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from genrun.runner.history.index import LEFT
from genrun.runner.history.night import Night, write_night
from genrun.runner.nightly.due import Past, alone, nights_of
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.runs import LATEST, PINNED

GOING = ".removing"


def old_nights(
    job_folder: Path, keep: int, kept: Collection[Path], is_at_work: Callable[[RunFolder], bool]
) -> list[Past]:
    """The nights beyond the newest `keep`, oldest last, whose runs nobody needs.

    Args:
        job_folder: the folder of a job's runs.
        keep: dates that are kept.
        kept: run folders that are never removed, beside the pinned and the latest one.
        is_at_work: whether somebody works in a run.
    """
    nights = nights_of(job_folder)
    dates = sorted({past.night.night for past in nights}, reverse=True)[:keep]
    needed = {path.resolve() for path in kept} | {(job_folder / name).resolve() for name in (PINNED, LATEST)}
    return [
        past
        for past in nights
        if past.night.night not in dates
        and past.folder.path not in needed
        and past.night.state != "running"
        and not is_at_work(past.folder)
    ]


def remove(past: Past) -> Night:
    """Remove the run of a night; its night stays in `NAME/.nights/`. A removal that is cut off is ended by the next.

    Raises:
        StoreError: the job's folder cannot be written.
        OSError: the run cannot be removed.
    """
    job_folder, name = past.folder.path.parent, past.folder.path.name
    night = replace(past.night, is_removed=True)
    write_night(job_folder / LEFT / f"{name}.json", night)
    # First out of sight, in one step: half a run must never look like a run.
    going = job_folder / f".{name}{GOING}"
    past.folder.path.rename(going)
    shutil.rmtree(going)
    return night


def sweep(job_folder: Path) -> None:
    """Remove what a removal that was cut off left behind. Call while no other night of the job is at work."""
    for leftover in job_folder.glob(f".*{GOING}"):
        with contextlib.suppress(OSError):
            shutil.rmtree(leftover)


def sweep_alone(job_folder: Path) -> None:
    """Do the same for another command than a night, unless a night of the job is at work."""
    if any(job_folder.glob(f".*{GOING}")):
        with alone(job_folder) as is_alone:
            if is_alone:
                sweep(job_folder)
