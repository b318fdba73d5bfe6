"""Tasks of arrays, as squeue, sacct and their own notes tell of them; and how tasks are let go or put behind others.

A task of an array requeues itself: its script, `job.sbatch.j2`, calls `scontrol requeue` within the limits set here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from genrun.slurm.commands import Commands, SlurmError, rows

LIVE = frozenset(
    {
        "PENDING",
        "CONFIGURING",
        "RUNNING",
        "SUSPENDED",
        "STOPPED",
        "SIGNALING",
        "STAGE_OUT",
        "COMPLETING",
        "REQUEUED",
        "REQUEUE_FED",
        "REQUEUE_HOLD",
        "RESIZING",
        "RESV_DEL_HOLD",
        "SPECIAL_EXIT",
    }
)
"""States of tasks that are not over."""

WAITING = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD"})
"""States of tasks that have not begun, or not again."""

UNTROUBLED = frozenset({"RUNNING", "COMPLETING", "COMPLETED"})
"""States of which there is no reason to tell."""

HELD = "launch failed requeued held"
"""Reason of a task that a node could not start. It waits until it is released: it is queued again, but not by itself."""

UNKNOWN = "UNKNOWN"
LOST = "LOST"
"""State of a task that began and then ended without a word: killed, or its node was lost."""

_WORDS = {
    "JobLaunchFailure": "Slurm could not start it, or could not write its log",
    "0:53": "Slurm could not start it, or could not write its log",
    "0:9": "killed by signal 9",
    "NonZeroExitCode": "its log says why",
    "PartitionTimeLimit": "PartitionTimeLimit: it will not start before launch.time is lowered",
    "PartitionNodeLimit": "PartitionNodeLimit: it will not start before launch.nodes is lowered",
    "BadConstraints": "BadConstraints: no node can ever run it",
    "JobHeldUser": "JobHeldUser: held by its user; scontrol release lets it go",
    HELD: "held by Slurm, which could not start it; the same submission again, or scontrol release, lets it go",
    "JobHeldAdmin": "JobHeldAdmin: held by an administrator",
    "DependencyNeverSatisfied": "DependencyNeverSatisfied: it will not start; cancel it",
}
"""Reasons and exit codes of Slurm that need a word."""

_SIGNAL = re.compile(r"RaisedSignal:(\d+)")
_EVENTS = re.compile(r"task-(\d+)\.events")


@dataclass(frozen=True)
class Task:
    """A task of an array.

    Attributes:
        name: the job's name, which no other submission has.
        job: the array's job id, "" where only the task's notes tell.
        task: its index.
        state: Slurm's word in capitals; LOST or UNKNOWN where Slurm has forgotten it.
        reason: why it waits, or how it ended; "" when there is nothing to say.
        nodes: where it runs, or ran last.
        restarts: how often it was started again.
    """

    name: str
    job: str
    task: int
    state: str
    reason: str = ""
    nodes: str = ""
    restarts: int = 0

    @property
    def id(self) -> str:
        """Name of the task in Slurm's commands."""
        return f"{self.job}_{self.task}"

    @property
    def is_live(self) -> bool:
        """True while it is not over."""
        return self.state in LIVE

    @property
    def is_held(self) -> bool:
        """True when it waits to be released after Slurm could not start it."""
        return self.state == "PENDING" and self.reason.replace("_", " ") == HELD

    @property
    def is_waiting(self) -> bool:
        """True when it has not begun, or not again."""
        return self.state in WAITING


@dataclass(frozen=True)
class Event:
    """A line of a task's notes.

    Attributes:
        time: seconds since 1970.
        id: what Slurm calls the task.
        restart: how often it had been started again.
        nodes: where.
        what: start, end, failed, requeue, stopped or gave-up.
        detail: exit code or reason.
    """

    time: int
    id: str
    restart: int
    nodes: str
    what: str
    detail: str


def events(logs: Path) -> dict[int, list[Event]]:
    """Read the notes that the tasks of one submission left in its folder of logs, by task; cut-off lines are skipped."""
    found: dict[int, list[Event]] = {}
    for path in logs.glob("task-*.events"):
        match = _EVENTS.fullmatch(path.name)
        if match:
            text = path.read_text(encoding="utf-8", errors="replace")
            found[int(match[1])] = [event for line in text.splitlines() if (event := _event(line)) is not None]
    return found


def remembered(name: str, count: int, notes: Mapping[int, Sequence[Event]], *, is_forgotten: bool) -> list[Task]:
    """Say what has become of the tasks of one submission by their own notes alone.

    Args:
        name: of the job.
        count: how many tasks there are.
        notes: of `events`.
        is_forgotten: whether Slurm was asked and knows nothing of them, so that they are over.
    """
    return [_remembered(name, task, notes.get(task, ()), is_forgotten=is_forgotten) for task in range(count)]


def amended(task: Task, notes: Sequence[Event]) -> Task:
    """Add to Slurm's word on a task what its notes say: why it gave up, and how often it was started again."""
    restarts = max([task.restarts, *(event.restart for event in notes)])
    last = notes[-1] if notes else None
    if last is not None and last.what == "gave-up" and not task.is_live:
        return replace(task, reason=last.detail, restarts=restarts)
    # Slurm goes on telling what a task waited for: that it was held, or that its turn had not come.
    return replace(task, reason="" if task.state in UNTROUBLED else task.reason, restarts=restarts)


def explain(task: Task) -> str:
    """Say in words why a task waits or how it ended; "" when its state says it all."""
    # Newer versions write "RaisedSignal:53(Real-time signal 19)" where older ones write "JobLaunchFailure".
    signalled = _SIGNAL.match(task.reason)
    reason = f"0:{signalled[1]}" if signalled else task.reason
    return _WORDS[HELD] if task.is_held else _WORDS.get(reason, task.reason)


def tally(tasks: Iterable[Task]) -> dict[tuple[str, str], list[Task]]:
    """Group tasks by state and reason, in the order in which they come up."""
    groups: dict[tuple[str, str], list[Task]] = {}
    for task in tasks:
        groups.setdefault((task.state, explain(task)), []).append(task)
    return groups


def _remembered(name: str, task: int, notes: Sequence[Event], *, is_forgotten: bool) -> Task:
    if not notes:
        return Task(name, "", task, UNKNOWN, "never began" if is_forgotten else "")
    last = notes[-1]
    state, reason = _last_word(last, is_forgotten=is_forgotten)
    return Task(name, last.id.partition("_")[0], task, state, reason, last.nodes, max(event.restart for event in notes))


def _last_word(last: Event, *, is_forgotten: bool) -> tuple[str, str]:
    if last.what == "end":
        return ("COMPLETED", "") if last.detail == "0" else ("FAILED", f"exit code {last.detail}")
    if last.what == "gave-up":
        return "FAILED", last.detail
    if last.what == "requeue":
        return (LOST, "put back into the queue, and gone from it") if is_forgotten else (UNKNOWN, "in the queue again")
    if last.what in ("stopped", "failed"):
        return ("CANCELLED", "stopped by Slurm") if last.what == "stopped" else ("FAILED", f"exit code {last.detail}")
    return (LOST, "ended without a word") if is_forgotten else (UNKNOWN, "was at work when last heard of")


def _event(line: str) -> Event | None:
    fields = line.split("|", 5)
    if len(fields) != 6 or not (fields[0].isdigit() and fields[2].isdigit()):
        return None
    return Event(int(fields[0]), fields[1], int(fields[2]), *fields[3:])


SQUEUE_FIELDS = ("Name", "ArrayJobID", "ArrayTaskID", "State", "Reason", "NodeList", "RestartCnt")
NAMES_A_CALL = 500
"""Names in one call; of more jobs all of the user's are asked for. 500 names are 20 to 40 KiB."""


def ask_queue(commands: Commands, user: str, names: Sequence[str]) -> list[Task]:
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
        f"--Format={','.join(f'{field}:|' for field in SQUEUE_FIELDS)}",
    )
    return [task for fields in rows(output) if (task := _queued(fields)) is not None and task.name in wanted]


def _queued(fields: Sequence[str]) -> Task | None:
    if len(fields) < len(SQUEUE_FIELDS):
        return None
    name, job, index, state, reason, nodes, restarts = (field.strip() for field in fields[: len(SQUEUE_FIELDS)])
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


SACCT_FIELDS = ("JobID", "JobName%200", "State", "ExitCode", "NodeList")

_ID = re.compile(r"(\d+)(?:_(\d+))?")
_DISABLED = re.compile(r"accounting storage is disabled|slurmdbd.*(unable|refused)|connection refused", re.IGNORECASE)


class NoAccountingError(SlurmError):
    """A cluster that keeps no accounts, or whose database does not answer."""


def ask_accounting(commands: Commands, jobs: Mapping[str, str]) -> list[Task]:
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
            f"--format={','.join(SACCT_FIELDS)}",
        )
    except SlurmError as error:
        if is_disabled(error):
            raise NoAccountingError(str(error)) from error
        raise
    found = (_accounted(*fields) for fields in rows(output) if len(fields) == len(SACCT_FIELDS))
    return [task for task in found if task is not None and jobs.get(task.job) == task.name]


def is_disabled(error: SlurmError) -> bool:
    """Tell whether sacct failed because there are no accounts to look at."""
    return _DISABLED.search(str(error)) is not None


def _accounted(job_id: str, name: str, state: str, exit_code: str, nodes: str) -> Task | None:
    match = _ID.fullmatch(job_id)
    if match is None:
        return None
    # "CANCELLED by 1000"
    word = state.split(maxsplit=1)[0] if state else "UNKNOWN"
    reason = "" if word in ("COMPLETED", "CANCELLED", "RUNNING", "PENDING") else exit_code
    return Task(name, match[1], int(match[2] or 0), word, reason, "" if nodes == "None assigned" else nodes)


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
