"""Writes docs/cli.md, the reference of the command line, from the verbs themselves.

python docs/tools/reference.py -o docs/cli.md      (or: make docs)
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click

from genrun.runner.cli import VERBS, main

HEAD = """# Command line

Written by `make docs` from what `genrun VERB --help` says; a test tells when it is stale.
"""
_MARKUP = re.compile(r"([|<>\[\]*_])")
_CODE = re.compile(r"(`[^`]*`)")


def reference() -> str:
    """Return the reference as Markdown: genrun itself, then every verb by section, in the order of `genrun --help`."""
    parts = [HEAD, *_verb("genrun", main)]
    for section, verbs in VERBS.items():
        parts += [f"## {section}\n", "\n".join(_entry(name, line.help) for name, line in verbs.items()) + "\n"]
        for name, line in verbs.items():
            parts += [f"### {name}\n", *_verb(f"genrun {name}", line.load())]
    return "\n".join(parts)


def _entry(name: str, words: str) -> str:
    return f"- [`{name}`](#{name}): {_escaped(words)}"


def _verb(name: str, command: click.Command) -> Iterator[str]:
    """Yield the usage, help, options and examples of a command."""
    context = click.Context(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    yield f"```\n{usage}\n```\n"
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        yield _escaped(" ".join(paragraph.split())) + "\n"
    options = [param for param in command.params if isinstance(param, click.Option)]
    records = [found for option in options if (found := option.get_help_record(context))]
    if records:
        rows = [f"| {_cell(f'`{names}`')} | {_cell(words)} |" for names, words in records]
        yield "\n".join(["| option | what it does |", "|---|---|", *rows]) + "\n"
    examples = getattr(command, "examples", ())
    if examples:
        yield "```bash\n{}\n```\n".format("\n".join(examples))


def _escaped(words: str) -> str:
    """Return text as Markdown that shows just that; code between backticks stays code."""
    return "".join(piece if n % 2 else _MARKUP.sub(r"\\\1", piece) for n, piece in enumerate(_CODE.split(words)))


def _cell(words: str) -> str:
    """Return escaped text on one line, for a table: there a bar ends the cell, in code, too."""
    return _CODE.sub(lambda code: code[0].replace("|", r"\|"), _escaped(" ".join(words.split())))


def _main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="The file to write.")
    parser.parse_args().output.write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    _main()
