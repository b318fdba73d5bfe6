"""sacct: asking the accounting, where there is one, for jobs that slurmctld has forgotten."""

from __future__ import annotations

import re
from collections.abc import Mapping

from genrun.slurm.commands import Commands, SlurmError, rows
from genrun.slurm.tasks import Task

FIELDS = ("JobID", "JobName%200", "State", "ExitCode", "NodeList")

_ID = re.compile(r"(\d+)(?:_(\d+))?")
_DISABLED = re.compile(r"accounting storage is disabled|slurmdbd.*(unable|refused)|connection refused", re.IGNORECASE)


class NoAccountingError(SlurmError):
    """A cluster that keeps no accounts, or whose database does not answer."""


def ask(commands: Commands, jobs: Mapping[str, str]) -> list[Task]:
    """Return the tasks that the accounts know of.

    Args:
        commands: Slurm's programs.
        jobs: job id -> name. A job of another name is somebody else's: ids are used again after a wipe.

    Raises:
        NoAccountingError: there are no accounts.
        SlurmError: sacct failed for another reason.
    """
    if not jobs:
        return []
    try:
        output = commands.run(
            "sacct",
            "--allocations",
            "--parsable2",
            "--noheader",
            f"--jobs={','.join(jobs)}",
            f"--format={','.join(FIELDS)}",
        )
    except SlurmError as error:
        if is_disabled(error):
            raise NoAccountingError(str(error)) from error
        raise
    found = (_task(*fields) for fields in rows(output) if len(fields) == len(FIELDS))
    return [task for task in found if task is not None and jobs.get(task.job) == task.name]


def is_disabled(error: SlurmError) -> bool:
    """Tell whether sacct failed because there are no accounts to look at."""
    return _DISABLED.search(str(error)) is not None


def _task(job_id: str, name: str, state: str, exit_code: str, nodes: str) -> Task | None:
    match = _ID.fullmatch(job_id)
    if match is None:
        return None
    # "CANCELLED by 1000"
    word = state.split(maxsplit=1)[0] if state else "UNKNOWN"
    reason = "" if word in ("COMPLETED", "CANCELLED", "RUNNING", "PENDING") else exit_code
    return Task(name, match[1], int(match[2] or 0), word, reason, "" if nodes == "None assigned" else nodes)
