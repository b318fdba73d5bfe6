"""What `compare`, `status`, `runs` and the end of a submission take of a large run, in processor time.

    python -m tests.bench.compare_scale --items 50000 --status-items 10000

The run has five solvers, six metrics and no media. Not a test: times belong to the machine.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner

from genrun.runner.cli import main as genrun
from tests.large_run import make_large_run


def spent(work: Callable[[], object]) -> dict[str, float]:
    """Do it once, and return the time that it took."""
    start, cpu = time.monotonic(), time.process_time()
    work()
    return {"wall_s": round(time.monotonic() - start, 2), "own_s": round(time.process_time() - cpu, 2)}


def verb(*arguments: str) -> Callable[[], object]:
    """Return what calls a verb, and checks that it came to its end."""

    def call() -> None:
        result = CliRunner().invoke(genrun, list(arguments))
        assert result.exit_code == 0, result.output

    return call


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--status-items", type=int, default=10_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        large = make_large_run(base / "large" / "2026-01-31T02-00-00-3f9c", items=args.items)
        usual = make_large_run(base / "usual" / "2026-01-31T02-00-00-3f9d", items=args.status_items)
        small = make_large_run(base / "small" / "2026-01-31T02-00-00-3f9e", items=10)
        # Imports.
        verb("status", str(small.path))()
        verb("compare", str(small.path), "--by", "solver")()
        found = {
            "status": spent(verb("status", str(usual.path))),
            "runs": spent(verb("runs", "usual", "--runs", str(base))),
            "compare": spent(verb("compare", str(large.path), "--by", "solver")),
        }
    print(json.dumps({"items": args.items, "status_items": args.status_items, **found}))


if __name__ == "__main__":
    main()
