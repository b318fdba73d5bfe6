"""The jobs and prompt lists that come with genrun, for those who installed it without its repository."""

from __future__ import annotations

from pathlib import Path

from genrun.adapters.files import is_file, is_there, unusable

JOBS = Path(__file__).parents[2] / "jobs"


def locate(job: Path) -> Path:
    """A job file: the user's own, else the packaged one that `demo.yaml` or `jobs/demo.yaml` names."""
    # A name that no file can have is told where the file is read.
    if unusable(job) or is_there(job) or job.is_absolute():
        return job
    inside = job.relative_to("jobs") if job.parts[:1] == ("jobs",) else job
    packaged = JOBS / inside
    return packaged if ".." not in inside.parts and is_file(packaged) else job
