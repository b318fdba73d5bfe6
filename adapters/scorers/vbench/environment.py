"""vbench's environment: how it is installed, and where it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

VBENCH = "0.1.5"
PYTHONS = ("3.11", "3.10")
"""Versions for which tokenizers 0.13, which vbench's transformers needs, has wheels."""

COSTS = (
    "about 0.7 GB to download and 2.2 GB on disk with a torch for CPUs (3.5 and 8 GB with one for CUDA), 2 to 7 minutes"
)
READY = "genrun-ready"


class InstallError(Exception):
    """The environment could not be made; the message says why and what to do."""


@dataclass(frozen=True)
class InstallPlan:
    """The commands that make an environment.

    Attributes:
        home: its folder.
        commands: argument lists, run one after the other.
    """

    home: Path
    commands: tuple[tuple[str, ...], ...]

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.home / "bin" / "python"


def plan(home: Path, python: str | None = None) -> InstallPlan:
    """Plan an environment.

    Args:
        home: its folder.
        python: an interpreter of version 3.10 or 3.11; looked for when None.

    Raises:
        InstallError: there is no such interpreter.
    """
    base = python or _find_python()
    # The torch that runs here fits this machine's driver. pkg_resources, which openai-clip imports, ended with 81.
    wanted = (f"vbench=={VBENCH}", f"torch=={version('torch').partition('+')[0]}", "setuptools<81")
    pip = (str(home / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", *wanted)
    return InstallPlan(home, ((base, "-m", "venv", str(home)), pip))


def make(wanted: InstallPlan) -> None:
    """Make the environment; one that was cut off is completed.

    Raises:
        InstallError: a command failed.
    """
    for command in wanted.commands:
        try:
            ran = subprocess.run(command, check=False, stdout=sys.stderr)
        except OSError as error:
            raise InstallError(f"{command[0]} cannot be run: {error.strerror}") from error
        if ran.returncode:
            again = (
                "The same command again goes on where this stopped; genrun doctor --install vbench -n prints it all."
            )
            raise InstallError(f"{' '.join(command)}: ended with exit code {ran.returncode}. {again}")
    (wanted.home / READY).write_text(f"vbench {VBENCH}\n", encoding="utf-8")


def installed_python(home: Path) -> Path | None:
    """Return the interpreter of a finished environment, or None."""
    return home / "bin" / "python" if (home / READY).is_file() else None


def _find_python() -> str:
    if f"{sys.version_info.major}.{sys.version_info.minor}" in PYTHONS:
        return sys.executable
    for name in PYTHONS:
        found = shutil.which(f"python{name}")
        if found:
            return found
    raise InstallError(
        f"vbench {VBENCH} needs Python {' or '.join(PYTHONS)} (its transformers has no wheels for newer ones), and there is "
        "none on the PATH. Install one, and name it: genrun doctor --install vbench --python /path/to/python3.11"
    )


VBENCH_PYTHON = "GENRUN_VBENCH_PYTHON"
VBENCH_CACHE = "VBENCH_CACHE_DIR"


def vbench_home(base: Path) -> Path:
    """Return the environment that `genrun doctor --install vbench` makes, beside the runs in `base`."""
    return base.resolve() / ".vbench"


def vbench_python(base: Path, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the interpreter that has vbench: that of GENRUN_VBENCH_PYTHON, else the installed one, else None."""
    named = environ.get(VBENCH_PYTHON)
    return Path(named).expanduser() if named else installed_python(vbench_home(base))


def vbench_weights(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder in which vbench looks for weights."""
    named = environ.get(VBENCH_CACHE)
    return Path(named).expanduser() if named else Path.home() / ".cache" / "vbench"


def metric_defaults(base: Path, environ: Mapping[str, str] = os.environ) -> dict[str, dict[str, Any]]:
    """Return the options of metrics that follow from this machine, which those of the job override.

    Args:
        base: the folder of runs.
        environ: the environment.
    """
    python = vbench_python(base, environ)
    return {} if python is None else {"vbench": {"python": str(python)}}
