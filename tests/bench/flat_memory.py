"""Whether a long run's memory stays flat: many prompts through `genrun submit` on a tiny model, each item's memory plotted.

    python -m tests.bench.flat_memory --items 1000 --out /tmp/flat

Prints the memory of the worker after so many items, and its slope over the second half of the run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import yaml

from genrun.runner.store.folder import RunFolder
from genrun.runner.worker.rank import GIB
from tests.tiny.checkpoints import save

MAIN = "from genrun.runner.cli import main; main(prog_name='genrun')"
MIB = 2**20


def submit(folder: Path, family: str, items: int) -> RunFolder:
    """Run the job, or go on with it."""
    job = {
        "name": "flat",
        "model": {"checkpoint": str(save(family, folder)), "dtype": "float32"},
        "prompts": [f"a red circle number {number}" for number in range(items)],
        "sampling": {"steps": 4, "height": 32, "width": 32, "guidance_scale": 4.0},
        "solver": {"kind": "collocation", "workers": 2},
        "output": {"dir": str(folder / "runs")},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    subprocess.run([sys.executable, "-c", MAIN, "submit", str(folder / "job.yaml")], check=True)
    return RunFolder.open(folder / "runs" / "flat" / "latest")


def slope(values: list[float]) -> float:
    """Least-squares slope by position."""
    middle = (len(values) - 1) / 2
    mean = sum(values) / len(values)
    above = sum((at - middle) * (value - mean) for at, value in enumerate(values))
    return above / sum((at - middle) ** 2 for at in range(len(values)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--family", default="sd3")
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    folder = submit(chosen.out, chosen.family, chosen.items)
    files = sorted(folder.record_files(), key=lambda path: path.stat().st_mtime_ns)
    records = [record for path in files if (record := folder.record(path.stem)) is not None]
    sizes = [record.memory_bytes[0] / MIB for record in records]
    for count in sorted({1, 10, 100, len(sizes) // 2, len(sizes)}):
        print(f"after {count:5} items {sizes[count - 1]:8.1f} MiB")
    half = sizes[len(sizes) // 2 :]
    print(f"second half: {1024 * slope(half):.2f} KiB an item, from {min(half):.1f} to {max(half):.1f} MiB")
    print(f"peak {max(sizes) * MIB / GIB:.2f} GiB, {sum(record.status == 'done' for record in records)} done")


if __name__ == "__main__":
    main()
