"""squeue: asking slurmctld for tasks, one call for all jobs of one user, found by their names and never by their numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from genrun.slurm.commands import Commands, rows
from genrun.slurm.tasks import Task

FIELDS = ("Name", "ArrayJobID", "ArrayTaskID", "State", "Reason", "NodeList", "RestartCnt")
NAMES_A_CALL = 500
"""Names in one call; of more jobs all of the user's are asked for. 500 names are 20 to 40 KiB."""


def ask(commands: Commands, user: str, names: Sequence[str]) -> list[Task]:
    """Return the tasks that slurmctld knows of, those included that ended in the last minutes (its MinJobAge).

    Args:
        commands: Slurm's programs.
        user: whose jobs these are: slurmctld then looks at that user's alone.
        names: of the jobs. Job ids start again at 1 when a controller's state is wiped; these names do not.

    Raises:
        SlurmError: there is no answer.
    """
    if not names:
        return []
    wanted = set(names)
    # squeue itself takes names of any number, but an argument of a program has at most 128 KiB.
    by_name = [f"--name={','.join(names)}"] if len(names) <= NAMES_A_CALL else []
    output = commands.run(
        "squeue",
        "--noheader",
        "--array",
        "--states=all",
        f"--user={user}",
        *by_name,
        f"--Format={','.join(f'{field}:|' for field in FIELDS)}",
    )
    return [task for fields in rows(output) if (task := _task(fields)) is not None and task.name in wanted]


def _task(fields: Sequence[str]) -> Task | None:
    if len(fields) < len(FIELDS):
        return None
    name, job, index, state, reason, nodes, restarts = (field.strip() for field in fields[: len(FIELDS)])
    if not re.fullmatch(r"\d+|N/A", index):
        return None
    return Task(
        name,
        job,
        0 if index == "N/A" else int(index),
        state,
        "" if reason in ("None", "(null)") else reason,
        "" if nodes in ("(null)", "None assigned") else nodes,
        int(restarts) if restarts.isdigit() else 0,
    )
