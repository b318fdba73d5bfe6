"""Following a run's jobs in a queue: seldom asked, all jobs at once, and what Slurm holds is let go once."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from genrun.runner.launch.protocol import State
from genrun.slurm.submissions import Standing, standing
from genrun.slurm import jobs as slurm
from genrun.slurm.commands import Commands, SlurmError
from genrun.slurm.tasks import Task, tally

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder


@dataclass
class Lookout:
    """The jobs of one run as one process sees them.

    Attributes:
        folder: the run.
        commands: Slurm's programs.
        poll_s: answers are kept so long, in seconds.
    """

    folder: RunFolder
    commands: Commands
    poll_s: float
    _asked: float = -math.inf
    _found: Standing | None = None
    _released: set[str] = field(default_factory=set)
    _stuck: frozenset[str] = frozenset()

    def look(self) -> Standing:
        """Ask the queue now, and let go the tasks that it holds because a node could not start them.

        A task that is held again after that is left alone: its own node may not be the only one that is broken.

        Raises:
            StoreError: the run cannot be read.
        """
        found = standing(self.folder, self.commands)
        self._found, self._asked = found, time.monotonic()
        held = {task.id: task for task in found.held()}
        self._stuck = frozenset(held.keys() & self._released)
        new = [task for name, task in held.items() if name not in self._released]
        self._released.update(task.id for task in new)
        if new:
            with contextlib.suppress(SlurmError):
                slurm.release(self.commands, new)
        return found

    def state(self, job: str) -> State:
        """Return what has become of a job, by the last answer unless that is old."""
        found = self._found
        if found is None or time.monotonic() - self._asked >= self.poll_s:
            found = self.look()
        if found.trouble:
            return State(running=True, trouble=found.trouble)
        tasks = _tasks_of(found, job)
        # Submitted after that answer: the next one will tell.
        if tasks is None or any(task.is_live and task.id not in self._stuck for task in tasks):
            return State(running=True)
        ended = [f"{len(group)} {state}: {why}" for (state, why), group in tally(tasks).items() if state != "COMPLETED"]
        return State(running=False, exit_code=1 if ended else 0, trouble="; ".join(ended))


def _tasks_of(found: Standing, job: str) -> Sequence[Task] | None:
    """The tasks of the job of that number, also when sbatch's answer was never heard; None when there is no such job."""
    for submission in found.submissions:
        for step, entry in submission.jobs.items():
            tasks = found.tasks_of(submission, step)
            if entry.id == job or any(task.job == job for task in tasks):
                return tasks
    return None
