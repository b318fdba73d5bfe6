"""Nightly commands in Slurm: in its own crontab, or by a job that submits itself again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from genrun.runner.errors import UsageError
from genrun.runner.schedule import Call, Installation, ScheduledCommand, in_crontab, script_of
from genrun.slurm.template import ScriptError, directives, log_pattern


def scron(night: ScheduledCommand) -> Installation:
    """Return the installation of a command in Slurm's crontab.

    Raises:
        UsageError: an option cannot be written.
    """
    options = {"job-name": night.key, "time": "1-00:00:00", "output": "/dev/null", **night.options}
    lines = [line.replace("#SBATCH", "#SCRON", 1) for line in _directives(options)]
    return in_crontab(night, "scrontab", "\n".join(lines) + "\n")


def begin(night: ScheduledCommand) -> Installation:
    """Return the installation of a command as a job that begins at its time, and that submits the next night's first.

    Raises:
        UsageError: an option cannot be written.
    """
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
    again = f"sbatch {shlex.quote(str(night.script))} || echo 'genrun: tomorrow is not in the queue' >&2"
    text = script_of(night, again, _directives(options))
    return Installation({night.script: text}, [Call(("sbatch", str(night.script)))])


def _directives(options: Mapping[str, Any]) -> list[str]:
    try:
        return directives(options)
    except ScriptError as error:
        raise UsageError(f"launch.options.{error.option}: {error}") from error
