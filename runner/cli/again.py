"""`genrun retry`, `genrun decode`, `genrun rerun` and `genrun verify`: make items again, and check that a run is whole."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from genrun.runner.cli.base import OutputFolder, Verb, item_option, run_argument, runs_option, wait_option
from genrun.runner.cli.output import Terminal, json_option, put, put_json, run_json, say
from genrun.runner.cli.submit import put_submission

if TYPE_CHECKING:
    from genrun.runner.rerun import Reproduction


@click.command(cls=Verb, examples=("genrun retry", "genrun retry demo", "genrun retry demo --item 3f9c --item 07ab"))
@run_argument
@item_option
@wait_option
@json_option
def retry(run: str | None, base: Path, items: tuple[str, ...], wait: bool, as_json: bool) -> None:
    """Run the failed items of a run again.

    Items whose files were lost or changed count as failed. Missing items are made, too, unless jobs in a queue are at
    work on them. The job is the one stored in the run, and each item gets all its attempts afresh.
    """
    from genrun.runner.api import submitting

    terminal = Terminal()
    put_submission(lambda: submitting.retry(run, items, wait=wait, runs=base, listener=terminal), terminal, as_json)


@click.command(cls=Verb, examples=("genrun decode", "genrun decode demo", "genrun decode demo --item 3f9c"))
@run_argument
@item_option
@json_option
def decode(run: str | None, base: Path, items: tuple[str, ...], as_json: bool) -> None:
    """Decode saved latents whose decoding failed.

    Works in this process and samples nothing. Exit codes: 0 all were decoded, 1 some failed again.
    """
    from genrun.runner.api import submitting
    from genrun.runner.api.state import run_folder

    folder = run_folder(run, base)
    records = submitting.decode(folder, items, listener=Terminal(results=not as_json))
    if as_json:
        put_json(run_json(folder, folder.tally()))
    raise click.exceptions.Exit(1 if any(record.status == "failed" for record in records) else 0)


@click.command(
    cls=Verb,
    examples=(
        "genrun rerun runs/demo/latest/media/3f/3f9c0a1b2c3d4e5f6071.mp4",
        "genrun rerun 3f9c --run demo --out /tmp/again",
    ),
)
@click.argument("what", metavar="FILE|ITEM")
@click.option("--run", help="The run of ITEM (the newest by default), or of a FILE with inputs that lies elsewhere.")
@click.option(
    "--out",
    type=OutputFolder(),
    default="rerun",
    show_default=True,
    help="The folder for the new file and its latents.",
)
@runs_option
@json_option
def rerun(what: str, run: str | None, out: Path, base: Path, as_json: bool) -> None:
    """Make one media file again, from what is written inside it.

    Compares the new file with the old: exit code 0 when their bytes are identical, 1 when not. Works in this process.
    """
    from genrun.runner.api import submitting

    item, comparison = submitting.rerun(what, run=run, out=out, runs=base, listener=Terminal())
    if as_json:
        put_json(
            {
                "item": item.id,
                "media": str(comparison.media),
                "sha256": comparison.sha256,
                "expected": comparison.expected,
                "identical": comparison.is_identical,
                "frames_max": comparison.frames_max,
                "latents_rms": comparison.latents_rms,
            }
        )
    else:
        put(str(comparison.media))
    say(_verdict(comparison))
    raise click.exceptions.Exit(0 if comparison.is_identical else 1)


def _verdict(comparison: Reproduction) -> str:
    if comparison.expected is None:
        return "There is no old file to compare with."
    if comparison.is_identical:
        return f"Identical: SHA-256 {comparison.sha256}."
    parts = ["Not identical"]
    if comparison.frames_max is not None:
        parts.append(f"pixels differ by at most {comparison.frames_max} of 255")
    if comparison.latents_rms is not None:
        parts.append(f"latents by {comparison.latents_rms:.3g} (RMS)")
    return f"{'; '.join(parts)}."


@click.command(cls=Verb, examples=("genrun verify", "genrun verify demo", "genrun verify runs/demo/latest --json"))
@run_argument
@json_option
def verify(run: str | None, base: Path, as_json: bool) -> None:
    """Check that every file of a run is there and unchanged.

    Exit codes: 0 every planned item is done and every file has the SHA-256 of its record, 1 otherwise.
    """
    from genrun.runner.api import results
    from genrun.runner.api.state import run_folder

    folder = run_folder(run, base)
    flaws = results.verify(folder)
    if as_json:
        put_json({"run": str(folder.path), "ok": not flaws, "flaws": [asdict(flaw) for flaw in flaws]})
    else:
        for flaw in flaws:
            put(str(flaw))
        found = (
            f"{len(flaws)} flaw{'s' * (len(flaws) > 1)}" if flaws else "whole: every item is done, every file unchanged"
        )
        say(f"{folder.path}: {found}.")
    raise click.exceptions.Exit(1 if flaws else 0)
