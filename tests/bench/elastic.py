"""How much sooner nine items end on four ranks when groups may join: python -m tests.bench.elastic [seconds per evaluation]

The model sleeps, so that a machine with fewer cores than ranks measures the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from genrun.runner.store.folder import RunFolder
from genrun.runner.worker.engine import Engine
from genrun.runner.worker.main import main as work

ITEMS, RANKS, STEPS, WORKERS = 9, 4, 8, 8
LATENCY = "GENRUN_BENCH_LATENCY"
ROOT = Path(__file__).parents[2]


class SleepyEngine(Engine):
    """An engine whose model sleeps before each evaluation."""

    def prepare(self, item: Any) -> None:
        """Load the pipeline, and have its model sleep."""
        before = self._pipe
        super().prepare(item)
        if self._pipe is not before:
            latency_s = float(os.environ[LATENCY])
            self._pipe.transformer.register_forward_pre_hook(lambda *_: time.sleep(latency_s))


def submit(folder: Path, elastic: bool, latency_s: float) -> tuple[float, int, set[str | None]]:
    """Make the items; returns the makespan in seconds, the most ranks that made an item, and the pictures' hashes."""
    job = {
        "model": "demo-video",
        "prompts": [f"a red circle moving left {number}" for number in range(ITEMS)],
        "sampling": {"steps": STEPS, "num_frames": 5, "height": 32, "width": 32},
        "solver": {"kind": "paradigms", "workers": WORKERS, "tolerance": 0.0},
        "parallel": {"elastic": elastic},
        "launch": {"kind": "torchrun", "processes": RANKS},
        "output": {"dir": f"runs-{elastic}"},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    environ = {**os.environ, "PYTHONPATH": str(ROOT), LATENCY: str(latency_s)}
    command = [sys.executable, "-m", "tests.bench.elastic", "submit", "job.yaml", "--json"]
    ran = subprocess.run(command, cwd=folder, env=environ, stdout=subprocess.PIPE, text=True, check=True)
    records = list(RunFolder.open(Path(json.loads(ran.stdout)["run"])).records().values())
    ends = [datetime.fromisoformat(record.finished_at).timestamp() for record in records]
    begins = [end - record.elapsed_s for end, record in zip(ends, records, strict=True)]
    together = max(record.mesh["time"] for record in records)
    return max(ends) - min(begins), together, {record.sha256 for record in records}


def command_line() -> None:
    """The command line of genrun, whose workers are this file."""
    from genrun.runner.api import launching
    from genrun.runner.cli import main
    from tests.fakes import cli

    cli.WORKER = Path(__file__)
    launching.make_launcher = cli.make_launcher
    main(prog_name="genrun")


def main(latency_s: float) -> None:
    """Compare."""
    with tempfile.TemporaryDirectory() as text:
        apart, _, plain = submit(Path(text), elastic=False, latency_s=latency_s)
        joined, together, shared = submit(Path(text), elastic=True, latency_s=latency_s)
    print(f"data parallel {apart:.0f} s, elastic {joined:.0f} s; up to {together} ranks made an item")
    print(f"the same bytes: {plain == shared}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["submit"]:
        command_line()
    elif "--job" in sys.argv:
        sys.exit(work(make_producer=SleepyEngine))
    else:
        main(float(sys.argv[1]) if len(sys.argv) > 1 else 0.3)
