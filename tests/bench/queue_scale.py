"""What a long prompt list costs on Slurm apart from Slurm: planning, writing the submission, and `status`.

    python -m tests.bench.queue_scale --items 10000

Slurm's programs are replaced by ones that answer at once. Each figure is the best of three, in seconds of wall time and of
this process's own time; the command is called in a process of its own, as users do. Not a test: times belong to the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from genrun.runner.store.folder import RunFolder
from genrun.runner.store.records import Record, SamplerStats, format_record

MAIN = "from genrun.runner.cli import main; main(prog_name='genrun')"
ANSWERS = {
    "sbatch": "echo 1",
    "scontrol": "echo 'MaxArraySize            = 1001'",
    "sacct": "echo 'Slurm accounting storage is disabled' >&2; exit 1",
    "squeue": "exit 0",
}
JOB = "name: long\nmodel: demo-video\nprompts: {file: prompts.txt}\nlaunch: {kind: slurm, array: auto, gpus: 8}\n"


def measure(folder: Path, *args: str) -> dict[str, float]:
    """Call genrun, and return what it took."""
    environ = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    ran = subprocess.run([sys.executable, "-c", MAIN, *args], cwd=folder, env=environ, capture_output=True, check=False)
    if ran.returncode:
        raise RuntimeError(ran.stderr.decode())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": round(time.monotonic() - started, 2), "own_s": round(own, 2)}


def best(figures: list[dict[str, float]]) -> dict[str, float]:
    """The smallest of each figure."""
    return {name: min(figure[name] for figure in figures) for name in figures[0]}


def prepare(folder: Path, items: int) -> None:
    """Write the job, its prompts, and the programs in Slurm's place."""
    (folder / "bin").mkdir()
    for name, answer in ANSWERS.items():
        path = folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{answer}\n")
        path.chmod(0o755)
    (folder / "job.yaml").write_text(JOB)
    (folder / "prompts.txt").write_text("".join(f"a small red circle, number {number}\n" for number in range(items)))


def finish(folder: RunFolder) -> None:
    """Give every item a record like those of 50 steps."""
    stats = SamplerStats(50, 13, 94, tuple(range(4, 54, 4)))
    for item in folder.items():
        path = folder.record_path(item.id)
        path.parent.mkdir(parents=True, exist_ok=True)
        record = Record(item.id, "done", 1, f"media/{item.id}.mp4", "0" * 64, sampler=stats, elapsed_s=1.0)
        path.write_bytes(format_record(record))


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=10_000)
    items = parser.parse_args().items
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, items)
        submits = [measure(folder, "submit", "job.yaml", "--set", f"seeds=[{number}]") for number in range(3)]
        finish(RunFolder.open(folder / "runs" / "long" / "latest"))
        statuses = [measure(folder, "status", "long") for _ in range(3)]
    print(json.dumps({"items": items, "submit": best(submits), "status": best(statuses)}))


if __name__ == "__main__":
    main()
