"""Requeueing: when a task starts again, and how tasks are let go or put behind others.

A task of an array requeues itself: its script, `job.sbatch.j2`, calls `scontrol requeue` within the limits set here.
"""

from __future__ import annotations

from collections.abc import Sequence

from genrun.slurm.commands import Commands
from genrun.slurm.tasks import Task

WARNING_S = 60
"""Time in which a warned task drops its items and is queued again; Slurm itself may warn up to 60 s earlier than asked."""

TRIES = 4
"""Failures of a task's workers after which it is not started again: two on one node, and two elsewhere."""

GIVE_UP = 2
"""Failures of a rank's first items after which the rank takes its node for broken: one may be the item's own fault."""


def release(commands: Commands, tasks: Sequence[Task]) -> None:
    """Let tasks go that are held.

    Raises:
        SlurmError: Slurm does not.
    """
    commands.run("scontrol", "release", *(task.id for task in tasks))


def wait_behind(commands: Commands, job: str, others: Sequence[str]) -> None:
    """Put the running job `job` back into the queue until all `others` are over; its processes are ended.

    Raises:
        SlurmError: it could not be put back.
    """
    commands.run("scontrol", "requeue", "incomplete", job)
    commands.run("scontrol", "update", f"JobId={job}", f"Dependency=afterany:{':'.join(others)}")
