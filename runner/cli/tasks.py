"""Tasks in Slurm's queue, as verbs show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from genrun.runner.cli.output import put, put_table, say

if TYPE_CHECKING:
    from genrun.slurm.submissions import QueueState as Standing
    from genrun.slurm.submissions import Submission

COLUMNS = ("job", "step", "tasks", "state", "restarted", "why", "nodes")
SHOWN_NODES = 40


def show_tasks(found: Standing) -> None:
    """Show how many tasks are in which state and why, and where the logs of those lie that ended badly."""
    from genrun.slurm.tasks import explain, tally

    if found.trouble:
        say(f"Slurm gives no answer: {found.trouble}\n  What is known without it:")
    rows, bad = [], []
    for submission in found.submissions:
        for step, entry in submission.jobs.items():
            for (state, why), tasks in tally(found.tasks_of(submission, step)).items():
                restarted = sum(task.restarts > 0 for task in tasks)
                nodes = ",".join(sorted({task.nodes for task in tasks if task.nodes}))
                rows.append((entry.id or "?", step, len(tasks), state, restarted, why, nodes[:SHOWN_NODES]))
                if not tasks[0].is_live and state not in ("COMPLETED", "CANCELLED", "UNKNOWN"):
                    bad.append((found.log(submission, step, tasks[0]), f"{state}: {explain(tasks[0])}"))
    if rows:
        put("")
        put_table(COLUMNS, rows, right=("tasks", "restarted"))
    for log, why in bad:
        say(f"{why}\n  Log: {log}")


def tasks_json(found: Standing) -> dict[str, Any]:
    """Return the tasks for scripts; nothing for runs that were never in a queue."""
    if not found.submissions:
        return {}
    return {
        "tasks": [row for submission in found.submissions for row in _rows(found, submission)],
        "slurm": found.trouble,
    }


def _rows(found: Standing, submission: Submission) -> list[dict[str, Any]]:
    return [
        {
            "job": task.job or entry.id,
            "step": step,
            "task": task.task,
            "state": task.state,
            "reason": task.reason,
            "nodes": task.nodes,
            "restarts": task.restarts,
        }
        for step, entry in submission.jobs.items()
        for task in found.tasks_of(submission, step)
    ]
