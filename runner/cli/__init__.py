"""The command line: `main`, and the table that says where each verb lives.

A verb is one function in one module of this package; nothing of it is imported before it is called, so that
`genrun --help` stays fast. To add a verb: add its module, and a line to the table. The help in the table is the
first line of the verb's docstring (a test compares them).
"""

from __future__ import annotations

import click

from genrun.runner.cli.base import VerbGroup, VerbLine, take_talk
from genrun.version import __version__

HERE = "genrun.runner.cli"

VERBS: dict[str, dict[str, VerbLine]] = {
    "Write a job": {
        "validate": VerbLine(f"{HERE}.job:validate", "Check a job file and report every problem at once."),
        "show": VerbLine(f"{HERE}.job:show", "Print a job as it will run, with every default filled in."),
        "plan": VerbLine(f"{HERE}.plan:plan", "Count the items of a job, or list them."),
        "prompts": VerbLine(f"{HERE}.plan:prompts", "Show what a list of prompts becomes."),
        "init": VerbLine(f"{HERE}.job:init", "Write a job file for a model, with comments."),
        "schema": VerbLine(f"{HERE}.job:schema", "Print the JSON schema of job files, for editors."),
    },
    "Run it": {
        "calibrate": VerbLine(
            f"{HERE}.measuring:calibrate", "Certify the fastest setting of a job's solver that keeps its tolerance."
        ),
        "submit": VerbLine(f"{HERE}.submit:submit", "Run a job, or finish a run that was cut off."),
        "status": VerbLine(f"{HERE}.status:status", "Show how far a run is."),
        "logs": VerbLine(f"{HERE}.logs:logs", "Print what the workers of a run wrote."),
        "cancel": VerbLine(f"{HERE}.submit:cancel", "Stop the work on a run, on one of its tasks, or on one item."),
        "retry": VerbLine(f"{HERE}.again:retry", "Run the failed items of a run again."),
        "decode": VerbLine(f"{HERE}.again:decode", "Decode saved latents whose decoding failed."),
        "nightly": VerbLine(
            f"{HERE}.nights:nightly", "Run a job for tonight and judge it, or have that done every night."
        ),
        "verify": VerbLine(f"{HERE}.again:verify", "Check that every file of a run is there and unchanged."),
        "rerun": VerbLine(f"{HERE}.again:rerun", "Make one media file again, from what is written inside it."),
    },
    "Judge it": {
        "score": VerbLine(f"{HERE}.results:score", "Score the items of a run."),
        "compare": VerbLine(
            f"{HERE}.compare:compare", "Compare two runs, or the cells of one, and judge the gates of the job."
        ),
        "pin": VerbLine(f"{HERE}.nights:pin", "Make a run the baseline that its job's nights are held against."),
        "history": VerbLine(f"{HERE}.nights:history", "List the nights of a job, or of all jobs."),
        "report": VerbLine(f"{HERE}.results:report", "Write a static page: clips side by side, and numbers."),
        "export": VerbLine(f"{HERE}.results:export", "Copy results to a folder, under names that say what they are."),
        "bench": VerbLine(
            f"{HERE}.measuring:bench", "Measure solvers against the sequential sampler: rounds, error, time."
        ),
    },
    "Keep house": {
        "runs": VerbLine(f"{HERE}.housekeeping:runs", "List the runs: state, items, size, age."),
        "rm": VerbLine(f"{HERE}.housekeeping:rm", "Remove runs."),
        "gc": VerbLine(f"{HERE}.housekeeping:gc", "Remove all but the newest runs of each job."),
        "config": VerbLine(f"{HERE}.housekeeping:config", "Show your defaults, or write a file of them."),
        "completion": VerbLine(f"{HERE}.housekeeping:completion", "Print what completes genrun's words in a shell."),
    },
    "Look around": {
        "models": VerbLine(f"{HERE}.lists:models", "List the models, with their defaults."),
        "solvers": VerbLine(f"{HERE}.lists:solvers", "List the solvers, with their options."),
        "caches": VerbLine(f"{HERE}.lists:caches", "List the caches of transformer blocks, with their options."),
        "doctor": VerbLine(f"{HERE}.doctor:doctor", "Check this machine; each failing line names its fix."),
    },
}


@click.group(
    cls=VerbGroup,
    sections=VERBS,
    examples=(
        "genrun validate jobs/demo.yaml",
        "genrun plan jobs/demo.yaml --set 'seeds=[0, 1]'",
        "genrun submit jobs/demo.yaml",
        "genrun report",
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "-q", "--quiet", is_flag=True, callback=take_talk, expose_value=False, help="Say nothing but results and errors."
)
@click.option(
    "-v", "--verbose", is_flag=True, callback=take_talk, expose_value=False, help="Say more: a line for each item."
)
@click.option("--traceback", is_flag=True, help="Print the Python traceback of an unexpected error.")
@click.version_option(__version__, prog_name="genrun")
def main(traceback: bool) -> None:
    """Batches of text-to-video and text-to-image jobs, sampled in parallel over diffusion time.

    A job is a YAML file: a model, prompts, seeds and a solver. `genrun VERB --help` explains a verb. Exit codes: 0
    done, 1 items or gates failed, 2 wrong usage or job file, 3 not finished yet.
    """
