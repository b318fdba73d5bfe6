"""`genrun submit` and `genrun cancel`: start the work on a run, and stop it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from genrun.runner.api import RUNS
from genrun.runner.cli.base import (
    Verb,
    complete_jobs,
    complete_runs,
    item_option,
    job_of,
    job_runs_option,
    run_argument,
    wait_option,
)
from genrun.runner.cli.output import (
    Terminal,
    complain,
    json_option,
    name_of,
    notes_json,
    one_line,
    put,
    put_json,
    put_table,
    run_json,
    say,
    say_gains,
    unscored,
)
from genrun.runner.errors import UsageError

if TYPE_CHECKING:
    from genrun.runner.api.launching import Submission
    from genrun.runner.api.submitting import Preview


SHOWN_REASONS = 3
MESSAGE_WIDTH = 400


@click.command(
    cls=Verb,
    examples=(
        "genrun submit jobs/demo.yaml",
        "genrun submit jobs/demo.yaml -n",
        "genrun submit jobs/demo.yaml --set launch.kind=torchrun --set parallel.data=2",
        "genrun submit jobs/array.yaml --set launch.array=16 --wait",
        "genrun submit --join array --set launch.partition=spare",
        "genrun submit jobs/demo.yaml --json | tail -1",
    ),
)
@click.argument("job", type=click.Path(path_type=Path, allow_dash=True), required=False, shell_complete=complete_jobs)
@click.option("-n", "--dry-run", is_flag=True, help="Show what would run; write nothing.")
@click.option("--set", "sets", multiple=True, metavar="A.B=VALUE", help="Change a value of the job.")
@click.option("--run", shell_complete=complete_runs, help="Go on with this run, or refuse if the job has changed.")
@click.option("--new", "fresh", is_flag=True, help="Make all items again, in a new run.")
@click.option(
    "--join",
    metavar="RUN",
    shell_complete=complete_runs,
    help="Add workers to a run that is at work, as its own job says; without JOB.",
)
@wait_option
@job_runs_option
@json_option
def submit(
    job: Path | None,
    dry_run: bool,
    sets: tuple[str, ...],
    run: str | None,
    fresh: bool,
    join: str | None,
    wait: bool,
    base: Path | None,
    as_json: bool,
) -> None:
    """Run a job, or finish a run that was cut off.

    The newest run with the same items is resumed: done items are kept, failed ones tried again, lost files made again.
    A job with other items gets a new run folder, which takes over what earlier runs of the job have made of its items;
    with --new it takes nothing. Files are written again from saved latents where `output` has changed. Prints the run's
    folder. Exit codes: 0 all done, 1 items failed, 3 not finished.
    """
    from genrun.runner.api import submitting

    if (job is None) == (join is None):
        raise UsageError("wanted a job file, or --join RUN.", remedy="For example: genrun submit jobs/demo.yaml.")
    if fresh and (run is not None or join is not None):
        raise UsageError(f"--new makes a run, and --{'join' if join else 'run'} names one: choose one of them.")
    terminal = Terminal()
    if job is None:
        runs = base or RUNS
        put_submission(
            lambda: submitting.join(join, sets=sets, wait=wait, runs=runs, listener=terminal), terminal, as_json
        )
    elif dry_run:
        _put_preview(
            submitting.preview(job_of(job), sets=sets, run=run, new=fresh, runs=base, listener=terminal), as_json
        )
    else:
        given = job_of(job)
        put_submission(
            lambda: submitting.submit(given, sets=sets, run=run, new=fresh, wait=wait, runs=base, listener=terminal),
            terminal,
            as_json,
        )


def put_submission(submit: Callable[[], Submission], terminal: Terminal, as_json: bool) -> None:
    """Submit, print the run's folder or JSON, say what failed, and end the verb with exit code 1 if anything did.

    The run is printed even when the work on it ends with an error, if it came to a run at all.
    """
    from genrun.runner.notes import group_notes

    started = time.monotonic()
    try:
        submission = submit()
    finally:
        if (opened := terminal.submission) is not None:
            folder = opened.folder
            if as_json:
                numbers = {**run_json(folder, folder.tally(), opened.jobs), **opened.taken}
                put_json({**numbers, **notes_json(folder.records().values())})
            else:
                put(str(folder.path))
    if submission.is_queued:
        return
    for notes in group_notes(submission.folder.records().values()):
        say(str(notes))
    if failed := submission.tally.failed:
        reasons = submission.failures()
        for each in reasons[:SHOWN_REASONS]:
            complain(f"{each.items} failed: {each.kind}: {one_line(each.message, MESSAGE_WIDTH)}\n  {each.remedy}")
        if len(reasons) > SHOWN_REASONS:
            complain(f"... and {len(reasons) - SHOWN_REASONS} more kinds of failure.")
        complain(f"{failed} items failed. More: genrun status. Again: genrun retry.")
        raise click.exceptions.Exit(1)
    _say_end(submission, time.monotonic() - started)


def _say_end(submission: Submission, elapsed_s: float) -> None:
    """Say what came of a submission whose items are all done, and what comes next."""
    from genrun.runner.progress import clock

    folder, done = submission.folder, submission.tally.done
    if not submission.to_make:
        say(f"{done:,} done, nothing to do.")
    else:
        say(f"Done in {clock(elapsed_s)}: {submission.to_make:,} of {done:,} items made.")
        say_gains(folder)
    steps = [f"genrun score {name_of(folder)}"] if unscored(folder) else []
    say(f"Next: {'; '.join([*steps, f'genrun report {name_of(folder)}'])}")


def _put_preview(found: Preview, as_json: bool) -> None:
    """Show what would run: new, done, failed and reused items, by the job's axes; and the batch script."""
    states = list(found.states.values())
    columns = ["new", "done", "failed", *(["reused"] if "reused" in states else [])]
    if as_json:
        put_json(
            {
                "run": str(found.folder.path) if found.folder else None,
                "items": len(states),
                "done": states.count("done"),
                "failed": states.count("failed"),
                "pending": states.count("new"),
                "reused": states.count("reused"),
                "jobs": [],
                "rows": [
                    {"id": item.id, "state": found.states[item.id], "axes": dict(item.axes)} for item in found.items
                ],
                **({} if found.script is None else {"script": found.script}),
            }
        )
        return
    say(f"Would go on with {found.folder.path}." if found.folder else f"Would make a new run of {found.name!r}.")
    if "reused" in states:
        say(f"{states.count('reused')} reused, {found.to_run} new.")
    groups: dict[tuple[str, ...], list[str]] = {}
    for item in found.items:
        groups.setdefault(tuple(item.axes.values()), []).append(found.states[item.id])
    axes = list(found.items[0].axes) if found.items else []
    rows = [[*labels, *(group.count(state) for state in columns)] for labels, group in groups.items()]
    put_table([*axes, *columns], rows, right=columns)
    if found.script is not None:
        put(f"\n{found.script.removesuffix(chr(10))}")
    hours = found.gpu_hours
    price = "" if hours is None else f", about {hours:.1f} GPU-hours at the pace of those that are done"
    say(f"{found.to_run} of {len(states)} items would run ({found.kind}){price}. Nothing was written.")


@click.command(
    cls=Verb,
    examples=("genrun cancel", "genrun cancel array --task 3 --task 1234_5", "genrun cancel array --item 3f9c"),
)
@run_argument
@click.option("--task", "tasks", multiple=True, metavar="N", help="Only this task of the array: 3, or 1234_3.")
@item_option
def cancel(run: str | None, base: Path, tasks: tuple[str, ...], items: tuple[str, ...]) -> None:
    """Stop the work on a run, on one of its tasks, or on one item.

    Without an option, everything of the run that waits or works. Finished items are kept, those in work are dropped;
    the same submission again goes on with them. An item that is cancelled counts as failed; genrun retry makes it.
    """
    from genrun.runner.api import state

    state.cancel(run, tasks=tasks, items=items, runs=base, listener=Terminal())
