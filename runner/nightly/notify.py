"""Give a command the night as JSON on its stdin. genrun itself opens no connection."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from genrun.runner.job.layers import hidden

SHOWN = 300
"""Characters of the end of a command's stderr that are told."""


def notify(command: Sequence[str], payload: Mapping[str, Any], timeout_s: float, environ: Mapping[str, str]) -> str:
    """Run a command, without a shell, with JSON on its stdin; what it writes to stdout is dropped.

    Args:
        command: program and arguments. They may hold secrets: only the program's name is ever told.
        payload: the JSON.
        timeout_s: seconds after which it and all that it started are killed.
        environ: its environment.

    Returns:
        "" when it ended with 0, else a note on what went wrong.
    """
    name = os.path.basename(command[0])  # noqa: PTH119 (a command is no path)
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=dict(environ),
                start_new_session=True,
            )
        except (OSError, ValueError) as error:  # ValueError: a NUL, which no program can be given
            return f"notify: {name} cannot be run: {getattr(error, 'strerror', None) or error}"
        try:
            process.communicate((json.dumps(payload, allow_nan=False) + "\n").encode(), timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return f"notify: {name} was stopped after {timeout_s:g} s"
        finally:
            _kill(process)
        if process.returncode == 0:
            return ""
        errors.seek(0)
        # A program may well repeat what it was given: curl writes the address that it could not reach.
        said = hidden(" ".join(errors.read(16 * SHOWN).decode(errors="replace").split()), environ)[-SHOWN:]
        return f"notify: {name} ended with {process.returncode}{f': {said}' if said else ''}"


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a command that is still there, with all that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
