"""Calling Slurm's own programs: a clean environment, a time limit, and errors that keep Slurm's own words."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_S = 60.0
"""Longer than any of Slurm's own patience: with slurmctld down squeue gives up after 18 s, sbatch after 9 s."""

_OURS = re.compile(r"(SLURM|SBATCH|SRUN|SQUEUE|SACCT|SCANCEL|SCONTROL|SINFO|SALLOC)_")
_KEPT = frozenset({"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_CLUSTERS"})
_UNREACHABLE = re.compile(
    r"unable to contact slurm controller|socket timed out|connection refused|zero bytes were transmitted"
    r"|communication connection failure|protocol authentication error|slurmdbd: sending|host is down",
    re.IGNORECASE,
)
_NOISE = re.compile(r"^(\w+: )?(error: |fatal: )?")


class SlurmError(Exception):
    """A command of Slurm that failed, with Slurm's own message."""


class NoSlurmError(SlurmError):
    """A machine without Slurm's commands."""


class UnreachableError(SlurmError):
    """A controller that did not answer: what was asked may have been done or not."""


@dataclass(frozen=True)
class Commands:
    """Slurm's programs as one user of one machine calls them.

    Attributes:
        environ: environment, of which Slurm's own settings are left out, so that a call from within a job or with
            SQUEUE_FORMAT set means the same.
        timeout_s: when a program that gives no answer is ended, in seconds.
    """

    environ: Mapping[str, str]
    timeout_s: float = TIMEOUT_S

    def find(self, program: str) -> str | None:
        """Return where a program is, or None."""
        return shutil.which(program, path=self.environ.get("PATH"))

    def run(self, program: str, *args: str, cwd: Path | None = None) -> str:
        """Run a program, and return its output.

        Raises:
            NoSlurmError: the program is not there.
            UnreachableError: the controller gave no answer.
            SlurmError: it failed for another reason.
        """
        path = self.find(program)
        if path is None:
            raise NoSlurmError(
                f"{program}: not found. Run this where Slurm's commands are: a login node of the cluster."
            )
        try:
            # A session of its own, so that whatever a wrapper has started ends with it.
            process = subprocess.Popen(
                [path, *args],
                cwd=cwd,
                env=clean(self.environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            raise SlurmError(f"{program}: cannot be run: {error}.") from error
        with process:
            try:
                stdout, stderr = process.communicate(timeout=self.timeout_s)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                raise UnreachableError(f"{program}: gave no answer for {self.timeout_s:.0f} s.") from None
        if process.returncode:
            raise _failure(program, stderr or stdout, process.returncode)
        return stdout


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the settings of Slurm and of the job that this process may be part of."""
    return {name: value for name, value in environ.items() if name in _KEPT or not _OURS.match(name)}


def rows(text: str) -> Sequence[list[str]]:
    """Split output into lines, and lines at "|"."""
    return [line.split("|") for line in text.splitlines() if line.strip()]


def _failure(program: str, text: str, exit_code: int) -> SlurmError:
    lines = [_NOISE.sub("", line).strip() for line in text.splitlines()]
    message = "; ".join(line for line in lines if line) or f"ended with exit code {exit_code}"
    kind = UnreachableError if _UNREACHABLE.search(text) else SlurmError
    return kind(f"{program}: {message.rstrip('.')}.")
