"""Templates of batch scripts: one readable text per submission, in which nothing foreign reaches a shell unquoted."""

from __future__ import annotations

import re
import shlex
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.adapters.files import MIB, read_bounded

if TYPE_CHECKING:
    from jinja2 import Environment, Template

Option = str | int | float | bool | None
"""A value of a #SBATCH option: text or number, True for a flag; None or False leave the option out."""

GENERATION = "job.sbatch.j2"
STEP = "step.sbatch.j2"
MAX_BYTES = MIB
VALUES = frozenset(
    {
        "agent",
        "cwd",
        "directives",
        "exclude",
        "give_up",
        "name",
        "nodes",
        "order",
        "python",
        "ranks_per_node",
        "redirect",
        "run",
        "setup",
        "threads",
        "tries",
        "version",
        "warning_s",
        "worker",
    }
)
"""Names that a template of the array's script can show."""

_OPTION_NAME = re.compile(r"[a-z][a-z0-9-]*")
_PLAIN = re.compile(r"[A-Za-z0-9_./:,=@%+\[\]-]*")
_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f]")
_TEMPLATES = Path(__file__).parent


class ScriptError(ValueError):
    """A script that cannot be written.

    Attributes:
        option: the #SBATCH option that is to blame, or "" for the template.
    """

    def __init__(self, option: str, message: str) -> None:
        super().__init__(message)
        self.option = option


@dataclass(frozen=True)
class Script:
    """Contents of a batch script.

    Attributes:
        name: the job's name, unique among all jobs, which is how the job is found again.
        options: #SBATCH options, in order; see `Option`.
        values: what the template shows, besides `directives`.
        template: a template of the user's in place of ours, or None.
    """

    name: str
    options: Mapping[str, Option]
    values: Mapping[str, Any] = field(default_factory=dict)
    template: Path | None = None

    def render(self, ours: str = GENERATION) -> str:
        """Return the text of the script.

        Args:
            ours: the template of this package that is used unless there is one of the user's.

        Raises:
            ScriptError: an option or the user's template is wrong.
        """
        lines = directives({"job-name": self.name, **self.options})
        source = _read(self.template or _TEMPLATES / ours)
        return _fill(source, str(self.template or ours), {**self.values, "name": self.name, "directives": lines})


def directives(options: Mapping[str, Option]) -> list[str]:
    """Return the #SBATCH lines of options.

    Raises:
        ScriptError: an option's name or value cannot stand in such a line.
    """
    lines = []
    for name, value in options.items():
        if not _OPTION_NAME.fullmatch(name):
            raise ScriptError(name, f"{name!r} is no option of sbatch: wanted its long name, such as mail-type.")
        if value is None or value is False:
            continue
        lines.append(f"#SBATCH --{name}" + ("" if value is True else f"={directive_value(name, str(value))}"))
    return lines


def directive_value(name: str, text: str) -> str:
    r"""Quote a value for a #SBATCH line, where sbatch itself knows quotes, `\` and `#`; no shell reads it.

    Raises:
        ScriptError: the value has line breaks or other control characters, which no quoting can write.
    """
    if _UNWRITABLE.search(text):
        raise ScriptError(name, f"{text!r} has control characters, which a #SBATCH line cannot hold.")
    if _PLAIN.fullmatch(text):
        return text
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def log_pattern(path: Path) -> str | None:
    r"""Write a path for `--output`, where `%` and `\` have meanings.

    Returns:
        The folder of `path` escaped and its name as it is, so that `%a` there stands for the task; None when Slurm
        cannot write to such a path.
    """
    folder = str(path.parent)
    if "\\" in folder or _UNWRITABLE.search(folder):
        return None
    return f"{folder.replace('%', '%%')}/{path.name}"


def unit(seconds: float) -> str:
    """Write seconds as Slurm's D-HH:MM:SS."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours // 24}-{hours % 24:02}:{minutes:02}:{rest:02}"


def shell(words: Sequence[str] | str) -> str:
    """Quote a word, or several as one command line, for a POSIX shell."""
    return shlex.quote(words) if isinstance(words, str) else shlex.join(words)


def mistake_in(template: Path) -> str:
    """Return what is wrong with a user's template, with its line, as far as that shows without a job; or ""."""
    from jinja2 import nodes

    try:
        source = _read(template)
        _compiled(source, str(template))
        names = list(_environment().parse(source).find_all(nodes.Name))
    except ScriptError as error:
        return str(error).rstrip(".")
    except RecursionError:
        return f"{template}: nested too deep"
    known = {*VALUES, *(name.name for name in names if name.ctx != "load"), *_environment().globals, "loop"}
    for name in names:
        if name.name not in known:
            return f"{template}:{name.lineno}: {name.name!r} is undefined; there are {', '.join(sorted(VALUES))}"
    return ""


def _read(path: Path) -> str:
    try:
        return read_bounded(path, MAX_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise ScriptError("", f"{path}: cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ScriptError("", f"{path}:{line}: byte 0x{error.object[error.start]:02x} is not UTF-8.") from error


@cache
def _environment() -> Environment:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["shell"] = shell
    return environment


def _compiled(source: str, name: str) -> Template:
    """Compile a template.

    Raises:
        ScriptError: its syntax is wrong; the message has the line.
    """
    from jinja2 import TemplateSyntaxError

    try:
        code = _environment().compile(source, filename=name)
    except TemplateSyntaxError as error:
        raise ScriptError("", f"{name}:{error.lineno}: {error.message}.") from error
    return _environment().template_class.from_code(_environment(), code, {**_environment().globals})


def _fill(source: str, name: str, values: Mapping[str, Any]) -> str:
    try:
        return _compiled(source, name).render(values)
    except ScriptError:
        raise
    except Exception as error:
        # Anything at all: what a template does is its author's, and jinja2 lets errors of Python through.
        where = f"{name}:{line}" if (line := _line_in(error, name)) else name
        raise ScriptError("", f"{where}: {type(error).__name__}: {error}.") from error


def _line_in(error: Exception, name: str) -> int:
    """Return the line of a template at which rendering it failed, or 0."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == name]
    return (frames[-1].lineno or 0) if frames else 0
