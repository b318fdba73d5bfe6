"""What verbs are made of: a command with examples, and a group that loads its verbs when they are called."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from genrun.runner.cli.output import say
from genrun.runner.errors import GenrunError

UNEXPECTED_EXIT_CODE = 1


@dataclass(frozen=True)
class VerbLine:
    """One line of the table of verbs.

    Attributes:
        target: "module:function", where the verb lives.
        help: its first line of help.
    """

    target: str
    help: str

    def load(self) -> click.Command:
        """Import the verb."""
        module, _, name = self.target.partition(":")
        return getattr(importlib.import_module(module), name)


class Verb(click.Command):
    """A command whose help ends in examples: `@click.command(cls=Verb, examples=("genrun plan job.yaml",))`."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples as they are typed, one a line."""
        write_examples(formatter, self.examples)
        super().format_epilog(ctx, formatter)


class VerbGroup(click.Group):
    """A group whose verbs are listed by section from a table and imported only when called."""

    def __init__(
        self,
        *args: Any,
        sections: Mapping[str, Mapping[str, VerbLine]],
        examples: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.sections = sections
        self.examples = tuple(examples)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of the table."""
        return [verb for verbs in self.sections.values() for verb in verbs]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb, or return None when there is no such verb."""
        for verbs in self.sections.values():
            if cmd_name in verbs:
                return verbs[cmd_name].load()
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or say which one was probably meant."""
        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            from genrun.registry import did_you_mean

            known = self.list_commands(ctx)
            ctx.fail(f"No verb {args[0]!r}.{did_you_mean(args[0], known)} There are: {', '.join(known)}.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs by section, from the table alone."""
        width = max(len(verb) for verb in self.list_commands(ctx))
        for title, verbs in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(verb.ljust(width), line.help) for verb, line in verbs.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples as they are typed, one a line."""
        write_examples(formatter, self.examples)
        super().format_epilog(ctx, formatter)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a verb; turn an error into a message on stderr and an exit code."""
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort, click.ClickException, BrokenPipeError):
            raise
        except GenrunError as error:
            say(str(error))
            ctx.exit(error.exit_code)
        except Exception as error:
            if ctx.params.get("traceback"):
                raise
            say(_unexpected(error))
            ctx.exit(UNEXPECTED_EXIT_CODE)


def write_examples(formatter: click.HelpFormatter, examples: Sequence[str]) -> None:
    """Write a section of example command lines, unwrapped so that they can be copied."""
    if examples:
        with formatter.section("Examples"):
            for example in examples:
                formatter.write(f"{'':>{formatter.current_indent}}{example}\n")


def _unexpected(error: Exception) -> str:
    """Save the traceback of `error` to a file, and return a short message that names it."""
    import shlex
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="genrun-", suffix=".log", delete=False) as log:
        log.write("".join(traceback.format_exception(error)))
    again = shlex.join(["genrun", "--traceback", *sys.argv[1:]])
    return f"{type(error).__name__}: {error}\n  An error in genrun itself. Traceback: {log.name}, or run: {again}"
