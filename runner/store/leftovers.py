"""What killed processes leave: temporary files, notes of progress, files that others have taken the place of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from genrun.runner.store.files import is_left_behind, left_behind_in, remove, remove_left_behind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from genrun.runner.store.folder import RunFolder

NIGHTS, HISTORY = ".nights", ".history.sqlite3."


def remove_from_run(folder: RunFolder) -> None:
    """Remove what was left in a run. Call when nobody holds a lease of it."""
    # A worker of this machine that began just now keeps its files; one of another machine holds a lease before it has any.
    temporary = [path for path in folder.temporary_files() if is_left_behind(path, 0.0)]
    for path in [*temporary, *folder.leases.glob(".*.progress"), *_superseded(folder)]:
        remove(path)


def remove_below(folder: Path) -> None:
    """Remove what was left below a folder that needs no lease: that of the report, or of the scores."""
    for path in list(left_behind_in(folder)):
        remove(path)


def remove_from_job(job_folder: Path) -> None:
    """Remove what was left beside the runs of a job: runs that were never finished building, links, nights.

    Call while holding the job's lock.
    """
    for folder in (job_folder, job_folder / NIGHTS):
        remove_left_behind(folder)
    # The folder of all runs may be anybody's.
    remove_left_behind(job_folder.parent, HISTORY)


def _superseded(folder: RunFolder) -> Iterator[Path]:
    """Media of items that are done and have another file in their place: of a worker killed between the two."""
    found: dict[Path, list[Path]] = {}
    for path in folder.result_files():
        found.setdefault(path.with_suffix(""), []).append(path)
    for stem, paths in found.items():
        record = folder.record(stem.name) if len(paths) > 1 else None
        if record is not None and record.status == "done" and record.media is not None:
            named = folder.path / record.media
            yield from (path for path in paths if path != named and named in paths)
