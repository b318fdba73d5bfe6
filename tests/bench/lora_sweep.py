"""How long a sweep of LoRAs takes beside one LoRA with as many items: the base is loaded once, and LoRAs change on it.

    python -m tests.bench.lora_sweep

makes 20 prompts of a demo model with each of 5 LoRAs, and with one LoRA and 5 seeds, in turn and each first every other
time, from the first claim to the last record of a worker; what is loaded and encoded counts. Processor time stands beside
the wall's: on a busy machine it is what tells.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest.mock import patch

from genrun.adapters import registry
from genrun.adapters.pipeline import loading, parts
from genrun.runner.job import load
from genrun.runner.job.plan import plan
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.order import Order
from genrun.runner.worker.engine import Engine
from genrun.runner.worker.main import Rank
from tests.tiny.additions import save_lora

COLOURS, SHAPES = ("red", "green", "blue", "yellow", "white"), ("circle", "square", "triangle", "cross")
PROMPTS = [f"a {colour} {shape} on black" for colour in COLOURS for shape in SHAPES]


def job(model: str, loras: list[Path], seeds: int, steps: int) -> dict[str, Any]:
    """The job: a cell for each LoRA."""
    return {
        "model": model,
        "prompts": PROMPTS,
        "seeds": list(range(seeds)),
        "sampling": {"steps": steps},
        "matrix": {"model.loras": [[{"path": str(path), "weight": 0.5}] for path in loras]},
    }


class Taken(NamedTuple):
    """What a worker took from a fresh process's state to the last record: seconds, and loads of a pipeline."""

    wall_s: float
    processor_s: float
    changing_s: float
    loads: int


def timed(root: Path, document: dict[str, Any]) -> Taken:
    """Run a worker over a job."""
    import yaml

    path = root.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(document))
    loaded = load(path)
    folder = RunFolder.create(root, dict(loaded.document), plan(loaded))
    loads, changing, real, put = 0, 0.0, loading.load, parts.put_loras

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal loads
        loads += 1
        return real(*args, **kwargs)

    def measured(*args: Any) -> None:
        nonlocal changing
        before = time.process_time()
        put(*args)
        changing += time.process_time() - before

    wall, processor = time.monotonic(), time.process_time()
    with (
        contextlib.redirect_stdout(io.StringIO()),
        patch.object(loading, "load", counted),
        patch.object(parts, "put_loras", measured),
        patch.object(loading, "put_loras", measured),
    ):
        Rank(folder, Order("job")).run(Engine)
    wall, processor = time.monotonic() - wall, time.process_time() - processor
    assert all(record.status == "done" for record in folder.records().values())
    return Taken(wall, processor, changing, loads)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo-image", choices=["demo-image", "demo-video"])
    parser.add_argument("--loras", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    ratios: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        pipe = loading.load(registry.get(args.model), None, dtype="float32", device="cpu")
        part = "transformer" if getattr(pipe, "transformer", None) is not None else "unet"
        loras = [
            save_lora(root / f"lora{seed}.safetensors", {part: getattr(pipe, part)}, rank=4, seed=seed, size=0.1)
            for seed in range(args.loras)
        ]
        timed(root / "warm", job(args.model, loras[:1], 1, args.steps))
        for number in range(args.repeats):
            jobs = {
                "one": job(args.model, loras[:1], args.loras, args.steps),
                "sweep": job(args.model, loras, 1, args.steps),
            }
            names = list(jobs)[:: -1 if number % 2 else 1]
            taken = {name: timed(root / f"{name}-{number}", jobs[name]) for name in names}
            one, sweep = taken["one"], taken["sweep"]
            assert sweep.loads == 1, f"the base was loaded {sweep.loads} times"
            ratios.append((sweep.wall_s / one.wall_s, sweep.processor_s / one.processor_s))
            print(
                f"one LoRA {one.wall_s:.2f} s, {args.loras} LoRAs {sweep.wall_s:.2f} s: {ratios[-1][0]:.3f}; processor "
                f"{one.processor_s:.2f} and {sweep.processor_s:.2f} s: {ratios[-1][1]:.3f}, of which changing LoRAs "
                f"{one.changing_s:.2f} and {sweep.changing_s:.2f} s"
            )
    wall, processor = (median(each) for each in zip(*ratios, strict=True))
    print(f"median ratio {wall:.3f}, to be at most 1.15; of processor time {processor:.3f}")


if __name__ == "__main__":
    main()
