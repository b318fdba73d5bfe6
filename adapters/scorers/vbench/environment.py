"""Location of vbench on this machine: its own Python environment, and its weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genrun.adapters.scorers.vbench.install import installed_python

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
