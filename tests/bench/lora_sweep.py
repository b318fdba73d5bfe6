"""How long a sweep of LoRAs takes beside one LoRA with as many items: the base is loaded once, and LoRAs change on it.

    python -m tests.bench.lora_sweep

makes 20 prompts of a demo model with each of 5 LoRAs, and with one LoRA and 5 seeds, in turn, from the first claim to the
last record of a worker; what is loaded and encoded counts.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from genrun.adapters import registry
from genrun.adapters.pipeline import loading
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


def timed(root: Path, document: dict[str, Any]) -> tuple[float, int]:
    """Seconds of a worker from a fresh process's state to the last record, and how often it loaded a pipeline."""
    import yaml

    path = root.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(document))
    loaded = load(path)
    folder = RunFolder.create(root, dict(loaded.document), plan(loaded))
    loads, real = 0, loading.load

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal loads
        loads += 1
        return real(*args, **kwargs)

    started = time.monotonic()
    with contextlib.redirect_stdout(io.StringIO()), patch.object(loading, "load", counted):
        Rank(folder, Order("job")).run(Engine)
    spent = time.monotonic() - started
    assert all(record.status == "done" for record in folder.records().values())
    return spent, loads


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo-image", choices=["demo-image", "demo-video"])
    parser.add_argument("--loras", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    ratios = []
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
            one, _ = timed(root / f"one-{number}", job(args.model, loras[:1], args.loras, args.steps))
            sweep, loads = timed(root / f"sweep-{number}", job(args.model, loras, 1, args.steps))
            assert loads == 1, f"the base was loaded {loads} times"
            ratios.append(sweep / one)
            print(
                f"one LoRA {one:.2f} s, {args.loras} LoRAs {sweep:.2f} s: {sweep / one:.3f}, base loaded {loads} time"
            )
    print(f"median ratio {median(ratios):.3f}, to be at most 1.15")


if __name__ == "__main__":
    main()
