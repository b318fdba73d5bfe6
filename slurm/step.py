"""A job that follows the items: `python -m genrun.slurm.step RUN --job ORDER --step score`.

Slurm starts it when the items' job is over, or believes so: an unknown job counts as over, and so does one whose tasks
failed. So it looks at the run itself. While others are at work on it, it goes back into the queue behind them; when
nobody is and items are missing, it fails and says so.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genrun.registry import Registry
from genrun.runner.errors import GenrunError, IncompleteError, LaunchError
from genrun.runner.launch.protocol import NOTIFY
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.order import Order, incomplete, open_items
from genrun.runner.store.scores import metrics_of
from genrun.slurm.commands import Commands, SlurmError
from genrun.slurm.submissions import ITEMS, load, queue_state
from genrun.slurm.tasks import wait_behind

if TYPE_CHECKING:
    from genrun.slurm.submissions import SlurmQueueState

STEPS = Registry(
    what="step",
    group="genrun.steps",
    package="genrun.runner",
    own={"report": "steps:report", "score": "steps:score", NOTIFY: "steps:notify"},
)
"""Steps that follow the items, each `step(folder)`."""

QUEUED_AGAIN = 75
"""Exit code of a step that Slurm has put back into the queue; nobody looks at it."""


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run one step, and return its exit code.

    Args:
        argv: command line without the program's name.
        environ: where Slurm says which job this is: SLURM_JOB_ID.
    """
    parser = argparse.ArgumentParser(prog="python -m genrun.slurm.step", description=__doc__)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--job", required=True, help="the launch that this follows")
    parser.add_argument("--step", required=True, choices=sorted(STEPS.names()), help="what to do")
    args = parser.parse_args(argv)
    try:
        folder = RunFolder.open(args.run)
        try:
            if not is_ready(folder, Order.load(folder, args.job), args.step, Commands(environ), environ):
                return QUEUED_AGAIN
        except IncompleteError:
            # That nobody is at work on what is missing is just what has to be told.
            if args.step != NOTIFY:
                raise
        STEPS.get(args.step)(folder)
    except GenrunError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def is_ready(folder: RunFolder, order: Order, step: str, commands: Commands, environ: Mapping[str, str]) -> bool:
    """Tell whether the step can begin; False when it was put back into the queue.

    Raises:
        IncompleteError: it cannot, and nobody is at work on what is missing.
        LaunchError: Slurm does not say who is.
    """
    missing = _missing(folder, order, step)
    if not missing:
        return True
    found = queue_state(folder, commands)
    if found.trouble:
        raise LaunchError(f"{folder.path}: {missing}, and Slurm does not say who is at work on it: {found.trouble}")
    others = _before(found, step)
    if not others:
        raise incomplete(folder, f"{missing}, and no job is at work on it")
    print(f"{missing}: waiting behind {', '.join(others)}", flush=True)
    # Slurm ends this job's processes once it is in the queue again; the second of the two commands has to be spared.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        wait_behind(commands, environ["SLURM_JOB_ID"], others)
    except SlurmError as error:
        raise LaunchError(f"{folder.path}: {missing}, and this job cannot wait for it: {error}") from error
    return False


def _missing(folder: RunFolder, order: Order, step: str) -> str:
    """Say what the step lacks, or ""."""
    left = len(open_items(folder, order))
    if left:
        return f"{left} items are not finished"
    steps = [submission.jobs for submission in load(folder) if submission.order == order.job]
    if step == "report" and any("score" in jobs for jobs in steps):
        named = metrics_of(folder.job_document())
        metrics = [name for name in named if not folder.scores_path(name).exists()]
        return f"there are no scores of {', '.join(metrics)}" if metrics else ""
    return ""


def _before(found: SlurmQueueState, step: str) -> list[str]:
    """List the live jobs that do what this step lacks."""
    steps = {"score": (ITEMS,), "report": (ITEMS, "score")}.get(step, (ITEMS, "score", "report"))
    return sorted({found.tasks_of(submission, each)[0].job for submission, each in found.live(*steps)})


if __name__ == "__main__":
    sys.exit(main())
