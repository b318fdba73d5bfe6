"""Examination of a machine's Slurm: what there is of it, and what it lacks for genrun."""

from __future__ import annotations

import re
from collections.abc import Iterator

from genrun.runner.launch.protocol import Check
from genrun.slurm.commands import Commands, NoSlurmError, SlurmError, rows
from genrun.slurm.sbatch import max_array
from genrun.slurm.tasks import is_disabled

OLDEST = (20, 11)
"""The first version whose squeue takes separators of the caller's own."""


def examine(commands: Commands) -> list[Check]:
    """Look at the commands, the controller, the accounts and the partitions; nothing is submitted."""
    try:
        version = commands.run("sbatch", "--version").strip()
    except NoSlurmError:
        return [Check("slurm", False, "not found", "only `launch: slurm` needs it: run genrun on a login node")]
    except SlurmError as error:
        return [Check("slurm", False, str(error), "see whether SLURM_CONF names the cluster's configuration")]
    return [_version(version), *_controller(commands)]


def _version(text: str) -> Check:
    match = re.search(r"(\d+)\.(\d+)", text)
    is_new = match is not None and (int(match[1]), int(match[2])) >= OLDEST
    return Check("slurm", is_new, text, f"Slurm {OLDEST[0]}.{OLDEST[1]:02} or newer")


def _controller(commands: Commands) -> Iterator[Check]:
    try:
        size = max_array(commands)
    except SlurmError as error:
        yield Check("slurmctld", False, str(error), "ask your administrator; running tasks go on without it")
        return
    yield Check("slurmctld", True, f"answers; arrays of up to {size:,} tasks")
    yield _accounts(commands)
    yield _partitions(commands)


def _accounts(commands: Commands) -> Check:
    try:
        commands.run("sacct", "--allocations", "--noheader", "--jobs=1")
    except SlurmError as error:
        if is_disabled(error):
            return Check("sacct", True, "no accounting: a task that slurmctld has forgotten is told by its own notes")
        return Check("sacct", False, str(error), "ask your administrator; tasks are told by their own notes until then")
    return Check("sacct", True, "accounting answers")


def _partitions(commands: Commands) -> Check:
    try:
        found = rows(commands.run("sinfo", "--noheader", "--format=%R|%G|%D|%l"))
    except SlurmError as error:
        return Check("partitions", False, str(error))
    with_gpus = [f"{name} ({nodes} x {gres}, up to {limit})" for name, gres, nodes, limit in found if "gpu" in gres]
    if not with_gpus:
        return Check("partitions", False, "none has GPUs", "set launch.options: {gres: ...} if they go by another name")
    return Check("partitions", True, "; ".join(dict.fromkeys(with_gpus)))
