"""Classes of verbs, a command with examples and a group that loads its verbs when they are called; shared arguments."""

from __future__ import annotations

import errno
import importlib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from genrun.runner.api import RUNS
from genrun.runner.cli.output import STDOUT, Talk, complain, set_talk
from genrun.runner.errors import GenrunError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


UNEXPECTED_EXIT_CODE = 1
PIPE_EXIT_CODE = 141
"""What shells give for a command that SIGPIPE ended."""

MAX_NAME = 200

OF_THE_MACHINE = {
    errno.ENAMETOOLONG: 2,
    errno.ELOOP: 2,
    errno.ENOTDIR: 2,
    errno.EISDIR: 2,
    errno.EACCES: 1,
    errno.EPERM: 1,
    errno.EROFS: 1,
    errno.ENOSPC: 1,
    errno.EDQUOT: 1,
    errno.EIO: 1,
    errno.ESTALE: 1,
    errno.EMFILE: 1,
    errno.ENFILE: 1,
    errno.ENOMEM: 1,
}
"""Error of the operating system that can happen at any time and needs no traceback -> exit code."""


@dataclass(frozen=True)
class VerbLine:
    """Line of the table of verbs.

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


def take_talk(context: click.Context, option: click.Parameter, is_set: bool) -> None:
    """Take `-q` and `-v`, before a verb or after it."""
    if is_set:
        set_talk(Talk[str(option.name).upper()])


class Verb(click.Command):
    """A command whose help ends in examples: `@click.command(cls=Verb, examples=("genrun plan job.yaml",))`."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)
        # Those of `genrun` itself, which its help lists: who has typed a verb adds them at the end.
        for flags in (("-q", "--quiet"), ("-v", "--verbose")):
            self.params.append(click.Option(flags, is_flag=True, callback=take_talk, expose_value=False, hidden=True))

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
        self.is_unread = False

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line, with nothing in place of streams that were closed (`>&-`, some daemons)."""
        for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
            if getattr(sys, name) is None:
                # Kept open: the next file would else get the number of a stream that children write to.
                setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
        self.is_unread = False
        try:
            return super().main(*args, **kwargs)
        except SystemExit as end:
            # Whoever read the output went away (`| head -1`): that is no failed item, which click's 1 would say.
            if self.is_unread:
                end.code = PIPE_EXIT_CODE
            raise

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of the table."""
        return [verb for verbs in self.sections.values() for verb in verbs]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb, or return None when there is no such verb."""
        for verbs in self.sections.values():
            if cmd_name in verbs:
                return verbs[cmd_name].load()
        return None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse what no shell can pass, and callers in Python can; forget what the last command was told to say."""
        set_talk(None)
        for arg in args:
            try:
                is_wrong = b"\0" in os.fsencode(arg)
            except UnicodeEncodeError:
                is_wrong = True
            if is_wrong:
                ctx.fail(f"{arg[:MAX_NAME]!r} has a character that no command line can hold.")
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or say which one was probably meant."""
        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            from genrun.registry import did_you_mean

            known = self.list_commands(ctx)
            ctx.fail(f"No verb {args[0]!r}.{did_you_mean(args[0], known)} There are: {', '.join(known)}.")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Propose verbs from the table alone, and options."""
        from click.shell_completion import CompletionItem

        lines = {verb: line for verbs in self.sections.values() for verb, line in verbs.items()}
        found = [CompletionItem(verb, help=line.help) for verb, line in lines.items() if verb.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

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
        except (click.exceptions.Exit, click.Abort, click.ClickException):
            raise
        except BrokenPipeError:
            self.is_unread = True
            raise
        except GenrunError as error:
            complain(str(error))
            ctx.exit(error.exit_code)
        except OSError as error:
            if ctx.params.get("traceback") or error.errno not in OF_THE_MACHINE:
                self._fail(ctx, error)
            complain(_refused(error) or _of_the_machine(error))
            ctx.exit(OF_THE_MACHINE[error.errno])
        except Exception as error:
            self._fail(ctx, error)

    def _fail(self, ctx: click.Context, error: Exception) -> NoReturn:
        """End the command with an error that nobody expected."""
        if ctx.params.get("traceback"):
            raise error
        complain(_unexpected(error))
        ctx.exit(UNEXPECTED_EXIT_CODE)


def write_examples(formatter: click.HelpFormatter, examples: Sequence[str]) -> None:
    """Write a section of example command lines, unwrapped so that they can be copied."""
    if examples:
        with formatter.section("Examples"):
            for example in examples:
                formatter.write(f"{'':>{formatter.current_indent}}{example}\n")


def _refused(error: OSError) -> str:
    """Say which file the system does not give, and why; "" for an error that is not the file system's."""
    from genrun.runner.store.files import BARRED, read_error

    if error.errno not in BARRED or not isinstance(error.filename, str):
        return ""
    return str(read_error(Path(error.filename), error))


def _of_the_machine(error: OSError) -> str:
    """Say what the machine refused, and of what."""
    name = str(error.filename or "")
    named = name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}..."
    return f"{named}: {error.strerror}." if named else f"{error.strerror}."


def _unexpected(error: Exception) -> str:
    """Save the traceback of `error` to a file, and return a short message that names it."""
    import shlex
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="genrun-", suffix=".log", delete=False) as log:
        log.write("".join(traceback.format_exception(error)))
    again = shlex.join(["genrun", "--traceback", *sys.argv[1:]])
    return f"{type(error).__name__}: {error}\n  An error in genrun itself. Traceback: {log.name}, or run: {again}"


class OutputFile(click.Path):
    """Type of an option that names a file of text to write: a Path, or `STDOUT` for `-`; a PDF is not printed."""

    def __init__(self, *, is_text: bool = True) -> None:
        super().__init__(path_type=Path, dir_okay=False, allow_dash=is_text)
        self.is_text = is_text

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse names that no file has."""
        if value == "":
            self.fail(f"wanted the name of a file{', or - to print it' if self.is_text else ''}; got ''.", param, ctx)
        if value == str(STDOUT) and not self.is_text:
            self.fail("a PDF is not printed: name a file.", param, ctx)
        return super().convert(value, param, ctx)


class OutputFolder(click.Path):
    """Type of an option that names a folder: a Path."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, file_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse names that nobody means a folder by: of an unset variable of the shell, and of stdout."""
        if value in ("", str(STDOUT)):
            self.fail(f"wanted the name of a folder; got {value!r}.", param, ctx)
        return super().convert(value, param, ctx)


STDIN = Path("-")
PLAIN = re.compile(r"[\w@%+=:,./-]+")
"""Names that no shell reads as anything else."""

MAX_STDIN = 2**20
"""Bytes that are read of a job on stdin, as of a job file."""


def job_of(job: Path) -> Path | str:
    """Return a job as `load_job` takes it: a file's path, or for `-` the text on stdin.

    Raises:
        JobFileError: stdin is no text, or too much of it.
    """
    if job != STDIN:
        return job
    from genrun.runner.api.jobs import NamedText
    from genrun.runner.job.errors import Origin, refuse
    from genrun.runner.job.yaml import decode

    data = sys.stdin.buffer.read(MAX_STDIN + 1)
    if len(data) > MAX_STDIN:
        refuse(Origin(NamedText.source), f"more than the {MAX_STDIN:,} bytes a job may have. Put prompts into a file.")
    # A text is told from the name of a file by its line breaks.
    text = decode(data, NamedText.source)
    return NamedText(text if "\n" in text else f"{text}\n")


def complete_jobs(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Propose job files: those of this folder, and by name those that come with genrun."""
    from click.shell_completion import CompletionItem

    from genrun.runner.job.files import JOBS

    packaged = [f"jobs/{path.name}" for path in sorted(JOBS.glob("*.yaml"))]
    found = [CompletionItem(name) for name in packaged if begun and name.startswith(begun) and not Path(name).exists()]
    return [*found, CompletionItem(begun, type="file")]


def complete_runs(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Propose the names of jobs that have runs, and after `NAME/` those of its runs."""
    from click.shell_completion import CompletionItem

    from genrun.runner.store.runs import names, runs_of

    base = Path(context.params.get("base") or RUNS)
    try:
        known = names(base)
        if "/" in begun:
            known = [
                f"{name}/{path.name}" for name in known if begun.startswith(f"{name}/") for path in runs_of(base / name)
            ]
    except (GenrunError, OSError):
        return []
    # What is completed goes into the command line as it is, where a shell would run `$(...)` or split at a space.
    return [CompletionItem(name) for name in known if name.startswith(begun) and PLAIN.fullmatch(name)]


def complete_plugins(kind: str) -> Callable[..., list[CompletionItem]]:
    """Return what proposes the names of "solvers", "caches" or "adapters" (models)."""

    def complete(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        from genrun.runner.job.options import Registries

        # After the last comma, where the argument is a list.
        before, comma, word = begun.rpartition(",")
        known = getattr(Registries.installed(), kind).names()
        return [CompletionItem(f"{before}{comma}{name}") for name in known if name.startswith(word)]

    return complete


job_argument = click.argument("job", type=click.Path(path_type=Path, allow_dash=True), shell_complete=complete_jobs)
"""Decorator that gives a verb the argument JOB; `job_of` reads it, which may be `-`."""

set_option = click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="A.B=VALUE",
    help="Change a value of the job, such as --set solver.workers=4. VALUE is YAML; may be repeated.",
)
"""Decorator that gives a verb the option `--set`, as the argument `sets`."""

runs_option = click.option(
    "--runs",
    "base",
    type=OutputFolder(),
    default=RUNS,
    show_default=True,
    help="The folder of runs; GENRUN_RUNS and `genrun config` change the default.",
)
"""Decorator that gives a verb the option `--runs`, as the argument `base`."""

job_runs_option = click.option(
    "--runs",
    "base",
    type=OutputFolder(),
    help="The folder of runs, in place of the job's output.dir.",
)
"""Decorator that gives a verb of a job the option `--runs`, as the argument `base`; None where it is not given."""

item_option = click.option("--item", "items", multiple=True, metavar="ID", help="Only this item (the first digits do).")
"""Decorator that gives a verb the option `--item`, as the argument `items`."""

wait_option = click.option(
    "--wait", is_flag=True, help="Return when the work is done, also where a launcher queues it."
)
"""Decorator that gives a verb the flag `--wait`."""


def run_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb the argument RUN and the option `--runs`."""
    return click.argument("run", required=False, shell_complete=complete_runs)(runs_option(command))
