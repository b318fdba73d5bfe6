"""`genrun rerun`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from genrun.runner.cli.arguments import runs_option
from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import Terminal, json_option, put, put_json, say

if TYPE_CHECKING:
    from genrun.runner.rerun.repeat import Reproduction


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
    type=click.Path(path_type=Path, file_okay=False),
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
