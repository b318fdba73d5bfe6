"""`genrun runs`, `rm` and `gc`: the runs of a folder, and removing them; `config` and `completion`: a user's defaults."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrun.runner.cli.base import Verb, complete_runs, runs_option
from genrun.runner.cli.output import Terminal, json_option, put, put_json, put_table, say
from genrun.runner.errors import UsageError

if TYPE_CHECKING:
    from genrun.runner.api.housekeeping import ListedRun, Removal


dry_run_option = click.option("-n", "--dry-run", is_flag=True, help="Show what would be removed; remove nothing.")
"""Decorator that gives a verb the flag `-n`, as the argument `dry_run`."""

UNITS = ("B", "KB", "MB", "GB", "TB", "PB")
AGES = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"))


@click.command(cls=Verb, examples=("genrun runs", "genrun runs demo", "genrun runs --json | jq -r '.[].run'"))
@click.argument("job", required=False, shell_complete=complete_runs)
@runs_option
@json_option
def runs(job: str | None, base: Path, as_json: bool) -> None:
    """List the runs: state, items, size, age.

    The newest run of each job comes first. Commands take a run by any beginning of its name, or by the last four digits.
    Files that several runs of a job share count in each of them.
    """
    from genrun.runner.api import housekeeping

    found = housekeeping.runs(job, base=base)
    if as_json:
        put_json([_row(run) for run in found])
        return
    if not found:
        say(f"There are no runs in {base}. Start one: genrun submit JOB.yaml.")
        return
    rows = [(run.name, run.state, *_counts(run), size(run.size_bytes), age(run.age_s), _marks(run)) for run in found]
    columns = ("run", "state", "done", "items", "size", "age", "")
    put_table(columns, rows, right=columns[2:6])


@click.command(
    cls=Verb, examples=("genrun rm 3f9c", "genrun rm demo/2026-01-31T02-00-00-3f9c -n", "genrun rm runs/demo/2026-01*")
)
@click.argument("names", metavar="RUN...", nargs=-1, required=True, shell_complete=complete_runs)
@dry_run_option
@runs_option
@json_option
def rm(names: Sequence[str], dry_run: bool, base: Path, as_json: bool) -> None:
    """Remove runs.

    RUN is a run folder or a short name of it; a job's name alone is refused. A run that is at work or pinned is never
    removed, nor anything outside the folder of runs. What a night measured stays in the job's history. Prints each folder.
    """
    from genrun.runner.api import housekeeping

    listener = Terminal(results=not as_json)
    _put(housekeeping.remove(names, dry_run=dry_run, base=base, listener=listener), dry_run, as_json)


@click.command(cls=Verb, examples=("genrun gc --keep 5 -n", "genrun gc demo --keep 1"))
@click.argument("job", required=False, shell_complete=complete_runs)
@click.option("--keep", type=click.IntRange(0), required=True, help="How many runs of each job stay, the newest ones.")
@dry_run_option
@runs_option
@json_option
def gc(job: str | None, keep: int, dry_run: bool, base: Path, as_json: bool) -> None:
    """Remove all but the newest runs of each job.

    Runs that are at work, pinned, or were submitted last stay whatever their age, and so does the newest that is done where
    none of the kept ones is. What a night measured stays in the job's history. Prints the folder of each removed run.
    """
    from genrun.runner.api import housekeeping

    listener = Terminal(results=not as_json)
    _put(housekeeping.collect_garbage(keep, job=job, dry_run=dry_run, base=base, listener=listener), dry_run, as_json)


def size(size_bytes: float) -> str:
    """Write a size: 1.2 GB."""
    power = 0
    while size_bytes >= 1000 and power < len(UNITS) - 1:
        size_bytes, power = size_bytes / 1000, power + 1
    return f"{size_bytes:.1f} {UNITS[power]}" if power and size_bytes < 10 else f"{size_bytes:.0f} {UNITS[power]}"


def age(seconds: float) -> str:
    """Write an age: 3 d, 5 h, 12 min."""
    length, unit = next((each for each in AGES if seconds >= each[0]), AGES[-1])
    return f"{seconds / length:.0f} {unit}"


def _row(run: ListedRun) -> dict[str, Any]:
    tally = run.tally
    return {
        "run": str(run.folder.path),
        "job": run.job,
        "state": run.state,
        "items": None if tally is None else tally.items,
        "done": None if tally is None else tally.done,
        "failed": None if tally is None else tally.failed,
        "pending": None if tally is None else tally.pending,
        "size_bytes": run.size_bytes,
        "age_s": round(run.age_s, 1),
        "latest": run.is_latest,
        "pinned": run.is_pinned,
    }


def _counts(run: ListedRun) -> tuple[str, str]:
    return ("?", "?") if run.tally is None else (f"{run.tally.done:,}", f"{run.tally.items:,}")


def _marks(run: ListedRun) -> str:
    marks = {"latest": run.is_latest, "pinned": run.is_pinned}
    return ", ".join(name for name, is_so in marks.items() if is_so)


def _put(found: Removal, dry_run: bool, as_json: bool) -> None:
    if as_json:
        put_json(
            {
                "removed": [str(path) for path in found.removed],
                "kept": {str(path): why for path, why in found.kept.items()},
                "freed_bytes": found.freed_bytes,
                "dry_run": dry_run,
            }
        )
    for path, why in found.kept.items():
        say(f"{path}: kept: {why}.")
    runs = f"{len(found.removed)} {'run' if len(found.removed) == 1 else 'runs'}"
    say(f"{runs}, {size(found.freed_bytes)}{' would be removed. Nothing was.' if dry_run else ' removed.'}")


SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_GENRUN_COMPLETE"


@click.command(cls=Verb, examples=("genrun config", "genrun config --write", "genrun config --json"))
@click.option("--write", is_flag=True, help="Write a commented file, unless there is one.")
@json_option
def config(write: bool, as_json: bool) -> None:
    """Show your defaults, or write a file of them.

    The file, ~/.config/genrun/config.yaml or what GENRUN_CONFIG names, holds the folder of runs, how much commands say, and
    values of `launch`, `parallel` and `output` for jobs that do not give them: nothing that changes pictures. GENRUN_RUNS
    overrules its folder of runs; job files and the command line overrule everything. With --write, prints the file's path.
    """
    from genrun.runner.api.config import COMMENTED, config_path, read_config
    from genrun.runner.job.tree import bare
    from genrun.runner.job.yaml import scalar
    from genrun.runner.store.files import atomic_write

    if write:
        path = config_path()
        if path.exists() or path.is_symlink():
            raise UsageError(f"{path}: is there already.", remedy="genrun config shows what it says.")
        atomic_write(path, COMMENTED.encode())
        put(str(path))
        return
    found = read_config()
    rows = [(name, getattr(found, name), str(found.origins.get(name, "default"))) for name in ("runs", "talk")]
    if found.job is not None:
        for section, keys in found.job.data.items():
            rows += [(f"{section}.{key}", bare(value), str(value.origin)) for key, value in keys.data.items()]
    if as_json:
        put_json(
            {"path": str(found.path), "values": {name: {"value": value, "from": place} for name, value, place in rows}}
        )
        return
    put_table(("default", "value", "from"), [(name, scalar(value), place) for name, value, place in rows])
    say(f"{found.path}{'' if found.path.is_file() else ': not there; genrun config --write makes one'}")


@click.command(
    cls=Verb,
    examples=(
        "genrun completion bash > ~/.local/share/bash-completion/completions/genrun",
        'eval "$(genrun completion zsh)"',
        "genrun completion fish > ~/.config/fish/completions/genrun.fish",
    ),
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print what completes genrun's words in a shell.

    Verbs and options are completed, and the names of job files, runs, solvers, caches and models.
    """
    from click.shell_completion import get_completion_class

    from genrun.runner.cli import main

    kind = get_completion_class(shell)
    assert kind is not None
    made = kind(main, {}, "genrun", VARIABLE)
    # Not source(): it starts bash to look at its version, which is not the shell that reads this.
    put((made.source_template % made.source_vars()).strip())
