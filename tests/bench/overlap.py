"""How much sooner a job ends when an item is decoded and written while the next one is sampled.

    python -m tests.bench.overlap --items 8

makes the same items of a demo model in one process, one after the other and overlapped, in turn, and compares the files.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from genrun.runner.job.plan import WorkItem
from genrun.runner.parallel.team import Solo
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.order import Order
from genrun.runner.worker.engine import Engine
from genrun.runner.worker.sample import Maker
from genrun.runner.worker.worker import Rank
from tests.fakes.items import document, make_item

PROMPTS = (
    "a red circle moving left on black",
    "a blue square moving right on white",
    "a green triangle moving up on black",
)


def items_of(args: argparse.Namespace) -> list[WorkItem]:
    """The job's items: prompts in turn, a seed each."""
    fields: dict[str, Any] = {
        "model": {"adapter": args.model, "checkpoint": None, "dtype": "float32"},
        "sampling": {"steps": args.steps, "guidance_scale": 5.0},
        "solver": {"kind": args.solver},
    }
    return [make_item(number, prompt=PROMPTS[number % len(PROMPTS)], **fields) for number in range(args.items)]


class Warm:
    """An engine that is loaded once, with what it takes for an item's end added up."""

    def __init__(self, threads: int) -> None:
        self.engine = Engine({"launch": {"threads": threads}})

    def one_after_the_other(self, folder: RunFolder) -> float:
        """Make a run's items; returns the seconds that decoding, writing and publishing took."""
        maker, ends = Maker(folder, self.engine, Solo(), "job.0", "log"), 0.0
        self.engine.begin(folder, folder.items())
        for item in folder.items():
            ending = maker.sample(item, 1, lambda *_: None)
            started = time.monotonic()
            assert ending is not None
            ending.finish()
            ends += time.monotonic() - started
        return ends

    def overlapped(self, folder: RunFolder) -> float:
        """Make a run's items as a worker does."""
        Rank(folder, Order("job")).run(lambda *_: self.engine)
        return 0.0


def timed(
    make: Callable[[RunFolder], float], root: Path, items: list[WorkItem]
) -> tuple[float, float, list[str | None]]:
    """Wall time of a fresh run, that of its items' ends, and its files' hashes."""
    folder = RunFolder.create(root, document(), items)
    started = time.monotonic()
    with contextlib.redirect_stdout(io.StringIO()):
        ends = make(folder)
    spent = time.monotonic() - started
    return spent, ends, [folder.records()[item.id].sha256 for item in items]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo-video", choices=["demo-video", "demo-image"])
    parser.add_argument("--solver", default="collocation")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--items", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    warm, items = Warm(args.threads), items_of(args)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        timed(warm.one_after_the_other, root / "warm", items[:1])
        rows = []
        for number in range(args.repeats):
            apart, ends, files = timed(warm.one_after_the_other, root / f"apart-{number}", items)
            beside, _, same = timed(warm.overlapped, root / f"beside-{number}", items)
            assert files == same and None not in files, "the bytes differ"
            rows.append((apart, ends, beside))
            print(f"one by one {apart:.2f} s, of it ends {ends:.2f} s; overlapped {beside:.2f} s; {beside / apart:.3f}")
    apart, ends, beside = (median(row[place] for row in rows) for place in range(3))
    print(f"median: {apart:.2f} s, of it ends {ends:.2f} s ({ends / apart:.0%}); overlapped {beside:.2f} s")
    print(f"median ratio {median(row[2] / row[0] for row in rows):.3f}, the best that could be {1 - ends / apart:.3f}")


if __name__ == "__main__":
    main()
