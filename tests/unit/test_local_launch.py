"""Workers of this machine start as ranks of their own launch, whatever launch this command is itself a rank of."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from genrun.runner.launch.local import InlineLauncher
from genrun.runner.launch.protocol import LaunchRequest

TELL = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"


def test_workers_inherit_no_rank(tmp_path: Path) -> None:
    others = {
        **{"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "MASTER_ADDR": "10.0.0.1", "PET_NNODES": "2"},
        **{"TORCHELASTIC_RUN_ID": "x", "SLURM_JOB_ID": "7", "HF_HOME": "/models"},
    }
    launcher = InlineLauncher(LaunchRequest(environ={**os.environ, **others}, uses_gpus=False))
    with (tmp_path / "log").open("wb") as log:
        child = launcher._start([sys.executable, "-c", TELL, str(tmp_path / "environ")], log.fileno())
        assert child.wait() == 0
    found = json.loads((tmp_path / "environ").read_text())
    assert {name for name in others if name in found} == {"SLURM_JOB_ID", "HF_HOME"}
