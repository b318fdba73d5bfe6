"""A calibration measured now: one item of each solver, sampled on one rank."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.runner.parallel.calibration import FILE, Observation, keys_of

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.worker.sample import Producer


def calibrate(items: Sequence[WorkItem], producer: Producer, base: Path, say: Callable[[str], None]) -> None:
    """Sample the first item of each model and solver, without decoding, and keep what it cost under `base`.

    Raises:
        OSError: the folder cannot be written.
    """
    first = {keys_of(item): item for item in reversed(items)}
    base.mkdir(parents=True, exist_ok=True)
    for (model, solver), item in first.items():
        say(f"Measuring {item.solver['kind']}: {item.id}.")
        producer.prepare(item)
        started = time.perf_counter()
        stats = producer.sample(item, _ignore).stats
        evaluation_s = (time.perf_counter() - started) / stats.nfe
        line = json.dumps(asdict(Observation(model, solver, stats.rounds, stats.nfe, evaluation_s)))
        with (base / FILE).open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def make_engine(document: Mapping[str, Any]) -> Producer:
    """What samples here: imports torch."""
    from genrun.runner.worker.engine import Engine

    return Engine(document)


def _ignore(front: int, num_steps: int) -> None:
    """Nobody looks on."""
