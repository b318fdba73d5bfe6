"""Having a command run every night: by Slurm's own crontab, cron, systemd, or a job that submits itself again.

Everything that is foreign (folders, job files) stands in one small shell script, quoted for a shell; crontabs and
units name that script alone.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from genrun.runner.errors import RunError, UsageError
from genrun.runner.store.files import atomic_write
from genrun.slurm.template import Option, ScriptError, directives, log_pattern, shell

TIMEOUT_S = 60
CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True)
class Night:
    """What is to run every night.

    Attributes:
        name: of the job, letters, digits, ".", "_" and "-".
        command: the command line.
        cwd: where it runs, absolute.
        at: "HH:MM", local time.
        folder: where the script goes, absolute.
        options: #SBATCH options of a job that runs it.
    """

    name: str
    command: Sequence[str]
    cwd: Path
    at: str
    folder: Path
    options: Mapping[str, Option] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """A name that only this command in this folder has."""
        digest = hashlib.sha256("\0".join([*self.command, str(self.cwd)]).encode(errors="surrogateescape"))
        return f"genrun-nightly-{self.name}-{digest.hexdigest()[:8]}"

    @property
    def script(self) -> Path:
        """The shell script."""
        return self.folder / f"{self.key}.sh"

    @property
    def log(self) -> Path:
        """What the command writes, night after night."""
        return self.folder / f"{self.key}.log"


@dataclass(frozen=True)
class Call:
    """A program that is called to install something.

    Attributes:
        command: its command line.
        stdin: what it reads, made from what `before` writes.
        before: a command line whose output is needed, or () for none; one that fails has none.
        merge: makes stdin from that output.
    """

    command: Sequence[str]
    stdin: str | None = None
    before: Sequence[str] = ()
    merge: Callable[[str], str] | None = None


@dataclass(frozen=True)
class Installation:
    """Files to write, then programs to call."""

    files: Mapping[Path, str]
    calls: Sequence[Call]

    def describe(self) -> str:
        """Say what would be written and called."""
        parts = [f"# {path}\n{text}" for path, text in self.files.items()]
        for call in self.calls:
            what = f" (what it has already is kept), with\n{call.stdin}" if call.stdin else "\n"
            parts.append(f"# {shell(call.command)}{what}")
        return "\n".join(parts)

    def install(self, environ: Mapping[str, str]) -> None:
        """Write the files and call the programs.

        Raises:
            StoreError: a file cannot be written.
            RunError: a program is missing or fails; the message has its own words.
        """
        for path, text in self.files.items():
            atomic_write(path, text.encode(errors="surrogateescape"))
        for call in self.calls:
            stdin = call.stdin
            if call.merge is not None:
                stdin = call.merge(_call(call.before, None, environ, may_fail=True))
            _call(call.command, stdin, environ)


def plan(kind: str, night: Night) -> Installation:
    """Return how a night is installed.

    Args:
        kind: "scron", "cron", "systemd" or "begin".
        night: what is to run.

    Raises:
        UsageError: the time is none, or a path cannot be written into such a file.
    """
    if not CLOCK.fullmatch(night.at):
        raise UsageError(f"--at {night.at}: wanted a time such as 02:00.")
    if re.search(r"[\x00-\x1f\x7f]", str(night.folder)):
        raise UsageError(
            f"{str(night.folder)!r}: a folder with control characters cannot stand in a crontab or a unit."
        )
    try:
        return _KINDS[kind](night)
    except ScriptError as error:
        raise UsageError(f"launch.options.{error.option}: {error}") from error


def kinds() -> list[str]:
    """Return the ways of installing, sorted."""
    return sorted(_KINDS)


def merged(present: str, key: str, block: str) -> str:
    """Return a crontab with the block of that key replaced, or added; everything else stays as it is."""
    begin, end = f"# >>> {key}", f"# <<< {key}"
    kept: list[str] = []
    is_inside = False
    for line in present.splitlines():
        is_inside = is_inside or line == begin
        if not is_inside:
            kept.append(line)
        is_inside = is_inside and line != end
    return "\n".join([*kept, begin, block.rstrip("\n"), end]) + "\n"


def _script(night: Night, before: str = "", header: Sequence[str] = ()) -> str:
    lines = ["#!/usr/bin/env bash", *header, "# Written by genrun nightly --install.", "set -euo pipefail"]
    return "\n".join([*lines, *([before] if before else []), f"cd -- {shell(str(night.cwd))}", _exec(night)]) + "\n"


def _exec(night: Night) -> str:
    return f"exec {shell(night.command)} >>{shell(str(night.log))} 2>&1"


def _cron(night: Night) -> Installation:
    return _crontab(night, "crontab", "")


def _scron(night: Night) -> Installation:
    options = {"job-name": night.key, "time": "1-00:00:00", "output": "/dev/null", **night.options}
    lines = [line.replace("#SBATCH", "#SCRON", 1) for line in directives(options)]
    return _crontab(night, "scrontab", "\n".join(lines) + "\n")


def _crontab(night: Night, program: str, header: str) -> Installation:
    hour, minute = night.at.split(":")
    # A percent sign ends a line of a crontab.
    line = f"{int(minute)} {int(hour)} * * * bash {shell(str(night.script))}".replace("%", r"\%")
    block = header + line
    call = Call(
        (program, "-"), merged("", night.key, block), (program, "-l"), lambda old: merged(old, night.key, block)
    )
    return Installation({night.script: _script(night)}, [call])


def _systemd(night: Night) -> Installation:
    units = night.folder.parent / "systemd" / "user"
    quoted = re.sub(r'(["\\])', r"\\\1", str(night.script)).replace("%", "%%").replace("$", "$$")
    service = f'[Unit]\nDescription=genrun nightly\n\n[Service]\nType=oneshot\nExecStart=/usr/bin/env bash "{quoted}"\n'
    timer = (
        f"[Unit]\nDescription=genrun nightly\n\n[Timer]\nOnCalendar=*-*-* {night.at}:00\nPersistent=true\n\n"
        "[Install]\nWantedBy=timers.target\n"
    )
    files = {
        night.script: _script(night),
        units / f"{night.key}.service": service,
        units / f"{night.key}.timer": timer,
    }
    user = ("systemctl", "--user")
    return Installation(files, [Call((*user, "daemon-reload")), Call((*user, "enable", "--now", f"{night.key}.timer"))])


def _begin(night: Night) -> Installation:
    options = {
        "job-name": night.key,
        "begin": night.at,
        "dependency": "singleton",
        "time": "1-00:00:00",
        "open-mode": "append",
        "output": log_pattern(night.log) or "/dev/null",
        **night.options,
    }
    # Tomorrow's night first, so that one that fails does not end them all.
    again = f"sbatch {shell(str(night.script))} || echo 'genrun: tomorrow is not in the queue' >&2"
    text = _script(night, again, directives(options))
    return Installation({night.script: text}, [Call(("sbatch", str(night.script)))])


def _call(command: Sequence[str], stdin: str | None, environ: Mapping[str, str], *, may_fail: bool = False) -> str:
    try:
        ran = subprocess.run(
            command,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            env=dict(environ),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        remedy = f"This machine may lack it. Other ways: --install {', '.join(kinds())}."
        raise RunError(f"{shell(command)}: {error}", remedy=remedy) from error
    if ran.returncode and not may_fail:
        raise RunError(f"{shell(command)}: {(ran.stderr or ran.stdout).strip()}")
    return "" if ran.returncode else ran.stdout


_KINDS: Mapping[str, Callable[[Night], Installation]] = {
    "begin": _begin,
    "cron": _cron,
    "scron": _scron,
    "systemd": _systemd,
}
