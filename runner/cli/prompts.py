"""`genrun prompts`: what a list of prompts becomes, and what the text encoders of a model see of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from genrun.runner.cli.arguments import set_option
from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import json_option, one_line, put_json, put_table, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from genrun.runner.api.prompts import ListedPrompt


@click.command(
    cls=Verb,
    examples=(
        "genrun prompts jobs/demo.yaml",
        "genrun prompts prompts/mine.csv --model sd3.5",
        "genrun prompts job.yaml --json | jq -r '.prompts[].prompt'",
    ),
)
@click.argument("source", metavar="FILE|JOB", type=click.Path())
@click.option("--model", metavar="NAME", help="For a file: the adapter, folder or hub id whose tokenizers count.")
@click.option("-n", "limit", type=click.IntRange(min=1), help="Show the first prompts only.")
@set_option
@json_option
def prompts(source: str, model: str | None, limit: int | None, sets: Sequence[str], as_json: bool) -> None:
    """Show what a list of prompts becomes.

    FILE is a .txt, .csv or .jsonl file, JOB a job. Templates and wildcards are written out, files that rows name are looked
    at, and problems are told as `genrun validate` tells them. Where the model's tokenizers are on this machine, each
    prompt's tokens are counted for each of them, with what would be cut.
    """
    from genrun.runner.api.prompts import list_prompts

    found = list_prompts(source, model=model, sets=sets)
    shown = found.prompts[:limit]
    if as_json:
        put_json({"prompts": [each.to_dict() for each in shown], "uncounted": found.uncounted})
        return
    encoders = [each.encoder for each in shown[0].tokens] if shown else []
    rows = [_row(number, each) for number, each in enumerate(shown, start=1)]
    put_table(("", "prompt", "its own", "seeds", *encoders), rows, right=("", "seeds", *encoders))
    for number, each in enumerate(shown, start=1):
        for tokens in each.tokens:
            if tokens.lost:
                say(f"{number} ({each.place}): {tokens.encoder} does not see {one_line(tokens.lost)!r}")
    say(f"{len(found.prompts):,} prompts{f', {len(shown):,} shown' if len(shown) < len(found.prompts) else ''}")
    if found.uncounted:
        say(f"Tokens: {found.uncounted}")


def _row(number: int, prompt: ListedPrompt) -> tuple[str, ...]:
    own = {**prompt.row, **{name: ", ".join(files) for name, files in prompt.inputs.items()}}
    told = ", ".join(f"{name} {value}" for name, value in own.items())
    counts = (f"{each.count}/{each.window}" if each.window else str(each.count) for each in prompt.tokens)
    seeds = prompt.seeds
    return (
        str(number),
        one_line(prompt.text),
        one_line(told, 40),
        str(seeds[0] if len(seeds) == 1 else len(seeds)),
        *counts,
    )
