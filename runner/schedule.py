"""Scheduling of a command every night: by cron, systemd, or a launcher's queue, found by name.

Everything that is foreign (folders, job files) stands in one small shell script, quoted for a shell; crontabs and
units name that script alone.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genrun.registry import Registry
from genrun.runner.errors import RunError, UsageError
from genrun.runner.store.files import atomic_write

TIMEOUT_S = 60
"""Patience with a program that installs something, in seconds: longer than sbatch waits for slurmctld."""

CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")

KINDS = Registry(
    what="schedule",
    group="genrun.schedules",
    package="genrun",
    own={
        "begin": "slurm.scrontab:begin",
        "cron": "runner.schedule:cron",
        "scron": "slurm.scrontab:scron",
        "systemd": "runner.schedule:systemd",
    },
)
"""Ways of having a command run every night, each a function of `ScheduledCommand` that returns an `Installation`."""


@dataclass(frozen=True)
class ScheduledCommand:
    """A command that is to run every night.

    Attributes:
        name: of the job, letters, digits, ".", "_" and "-".
        command: the command line.
        cwd: where it runs, absolute.
        at: "HH:MM", local time.
        folder: where the script goes, absolute.
        options: of a job that runs it, where a queue does.
    """

    name: str
    command: Sequence[str]
    cwd: Path
    at: str
    folder: Path
    options: Mapping[str, Any] = field(default_factory=dict)

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
        """The log of the command, night after night."""
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
        """Describe the files and calls."""
        parts = [f"# {path}\n{text}" for path, text in self.files.items()]
        for call in self.calls:
            what = f" (what it has already is kept), with\n{call.stdin}" if call.stdin else "\n"
            parts.append(f"# {shlex.join(call.command)}{what}")
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


def plan(kind: str, night: ScheduledCommand) -> Installation:
    """Return how a night is installed.

    Args:
        kind: a name of `KINDS`.
        night: what is to run.

    Raises:
        UsageError: the time is none, or a path or option cannot be written into such a file.
    """
    if not CLOCK.fullmatch(night.at):
        raise UsageError(f"--at {night.at}: wanted a time such as 02:00.")
    if re.search(r"[\x00-\x1f\x7f]", str(night.folder)):
        raise UsageError(
            f"{str(night.folder)!r}: a folder with control characters cannot stand in a crontab or a unit."
        )
    return KINDS.get(kind)(night)


def kinds() -> list[str]:
    """Return the ways of installing, sorted."""
    return sorted(KINDS.names())


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


def script_of(night: ScheduledCommand, before: str = "", header: Sequence[str] = ()) -> str:
    """Return the shell script that runs a command, with lines of a header and one that runs before it."""
    lines = ["#!/usr/bin/env bash", *header, "# Written by genrun nightly --install.", "set -euo pipefail"]
    run = f"exec {shlex.join(night.command)} >>{shlex.quote(str(night.log))} 2>&1"
    return "\n".join([*lines, *([before] if before else []), f"cd -- {shlex.quote(str(night.cwd))}", run]) + "\n"


def cron(night: ScheduledCommand) -> Installation:
    """Return the installation of a command in the user's crontab."""
    return in_crontab(night, "crontab", "")


def in_crontab(night: ScheduledCommand, program: str, header: str) -> Installation:
    """Return the installation of a command in a crontab that `program` writes, with lines of `header` before it."""
    hour, minute = night.at.split(":")
    # A percent sign ends a line of a crontab.
    line = f"{int(minute)} {int(hour)} * * * bash {shlex.quote(str(night.script))}".replace("%", r"\%")
    block = header + line
    call = Call(
        (program, "-"), merged("", night.key, block), (program, "-l"), lambda old: merged(old, night.key, block)
    )
    return Installation({night.script: script_of(night)}, [call])


def systemd(night: ScheduledCommand) -> Installation:
    """Return the installation of a command as a timer of the user's systemd."""
    units = night.folder.parent / "systemd" / "user"
    quoted = re.sub(r'(["\\])', r"\\\1", str(night.script)).replace("%", "%%").replace("$", "$$")
    service = f'[Unit]\nDescription=genrun nightly\n\n[Service]\nType=oneshot\nExecStart=/usr/bin/env bash "{quoted}"\n'
    timer = (
        f"[Unit]\nDescription=genrun nightly\n\n[Timer]\nOnCalendar=*-*-* {night.at}:00\nPersistent=true\n\n"
        "[Install]\nWantedBy=timers.target\n"
    )
    files = {
        night.script: script_of(night),
        units / f"{night.key}.service": service,
        units / f"{night.key}.timer": timer,
    }
    user = ("systemctl", "--user")
    return Installation(files, [Call((*user, "daemon-reload")), Call((*user, "enable", "--now", f"{night.key}.timer"))])


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
        raise RunError(f"{shlex.join(command)}: {error}", remedy=remedy) from error
    if ran.returncode and not may_fail:
        raise RunError(f"{shlex.join(command)}: {(ran.stderr or ran.stdout).strip()}")
    return "" if ran.returncode else ran.stdout
