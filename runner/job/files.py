"""Files that a job names: relative to the file that names them, in a user's home, or packaged with genrun."""

from __future__ import annotations

from pathlib import Path

from genrun.adapters.files import is_file, is_there, unusable

JOBS = Path(__file__).parents[2] / "jobs"
"""The jobs and prompt lists that come with genrun, for those who installed it without its repository."""

HOME = "~"


def located(text: str, folder: Path) -> Path:
    """Return where a file is that a document in `folder` names: `~` is the user's home, as a shell has it."""
    return folder / expanded(text)


def expanded(text: str) -> Path:
    """Return a path with `~` or `~user` in front replaced by that user's home; as it is where there is no such user."""
    path = Path(text)
    try:
        return path.expanduser() if text.startswith(HOME) else path
    except RuntimeError:
        return path


def job_file(job: Path) -> Path:
    """Return the user's own job file, else the packaged one that `demo.yaml` or `jobs/demo.yaml` names."""
    # A name that no file can have is told where the file is read.
    if unusable(job) or is_there(job) or job.is_absolute():
        return job
    inside = job.relative_to("jobs") if job.parts[:1] == ("jobs",) else job
    packaged = JOBS / inside
    return packaged if ".." not in inside.parts and is_file(packaged) else job
