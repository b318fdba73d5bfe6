"""Where tools of other environments are on this machine: what the environment says, and what genrun has installed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VBENCH_PYTHON = "GENRUN_VBENCH_PYTHON"
VBENCH_CACHE = "VBENCH_CACHE_DIR"


def vbench_home(base: Path) -> Path:
    """The environment that `genrun doctor --install vbench` makes, beside the runs in `base`."""
    return base.resolve() / ".vbench"


def vbench_python(base: Path, environ: Mapping[str, str] = os.environ) -> Path | None:
    """The interpreter that has vbench: the one that GENRUN_VBENCH_PYTHON names, else the installed one, else None."""
    from genrun.adapters.scorers.vbench.install import installed_python

    named = environ.get(VBENCH_PYTHON)
    return Path(named).expanduser() if named else installed_python(vbench_home(base))


def vbench_weights(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder in which vbench looks for weights."""
    named = environ.get(VBENCH_CACHE)
    return Path(named).expanduser() if named else Path.home() / ".cache" / "vbench"


def metric_defaults(base: Path, environ: Mapping[str, str] = os.environ) -> dict[str, dict[str, Any]]:
    """Options of metrics that follow from this machine, under those of the job.

    Args:
        base: the folder of runs.
        environ: the environment.
    """
    python = vbench_python(base, environ)
    return {} if python is None else {"vbench": {"python": str(python)}}
