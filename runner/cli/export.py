"""`genrun export`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from genrun.runner.cli.arguments import run_argument
from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import json_option, progress_bar, put, put_json, say
from genrun.runner.errors import UsageError

FORMATS = ("as-is", "gif", "webp", "webm", "frames", "none")
NAME = "{index:04}_{name}_{seed}_{cell}"


@click.command(
    cls=Verb,
    examples=(
        "genrun export demo --to ~/for-the-paper",
        "genrun export demo --to out --name '{solver}/{index:03}_{prompt}_{seed}' --sheet --csv",
        "genrun export demo --to gifs --format gif",
        "genrun export demo --to out --format none --csv",
    ),
)
@run_argument
@click.option("--to", type=click.Path(path_type=Path, file_okay=False), required=True, help="The folder for the files.")
@click.option(
    "--name",
    metavar="TEMPLATE",
    default=NAME,
    show_default=True,
    help="File names: {index} {name} {prompt} {seed} {id} {solver} {model} {cell}, and each axis of the matrix.",
)
@click.option(
    "--format",
    "formats",
    metavar="LIST",
    default="as-is",
    show_default=True,
    help=f"What media become, separated by commas: {', '.join(FORMATS)}.",
)
@click.option("--sheet", is_flag=True, help="Draw contact sheets: a row for each prompt, a column for each cell.")
@click.option("--csv", is_flag=True, help="Write results.csv: prompts, costs and every score, a row for each item.")
@json_option
def export(
    run: str | None, base: Path, to: Path, name: str, formats: str, sheet: bool, csv: bool, as_json: bool
) -> None:
    """Copy results to a folder, under names that say what they are.

    RUN is a run folder, a job's name (its latest run), or nothing (the run submitted last). The run stays as it is. The
    same command again brings the folder up to date; files that no export wrote are never replaced. Prints the folder.
    """
    from genrun.runner.api import results

    chosen = tuple(dict.fromkeys(each.strip() for each in formats.split(",")))
    if "none" in chosen and len(chosen) > 1:
        raise UsageError("--format none: goes with no other.")
    chosen = () if chosen == ("none",) else chosen
    with progress_bar("exporting") as listener:
        made = results.export(run, to, name=name, formats=chosen, sheet=sheet, csv=csv, runs=base, listener=listener)
    files = sum(len(each) for each in made.files.values()) + len(made.others)
    for why, count in Counter(made.left_out.values()).most_common():
        say(f"{count} left out: {why}.")
    if as_json:
        put_json(
            {
                "to": str(made.folder.absolute()),
                "files": made.files,
                "others": made.others,
                "left_out": made.left_out,
            }
        )
    else:
        say(f"{len(made.files)} items, {files} files.")
        put(str(made.folder.absolute()))
