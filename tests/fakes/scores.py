"""Runs with scores that nobody measured."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from genrun.runner.job.plan import WorkItem
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.records import SET, Record, SamplerStats, Score

Value = Callable[[WorkItem, int], float | None]
"""An item and its number in the plan -> its score, or None for one that could not be measured."""

HIGHER = {"psnr": True, "ssim": True, "checker": True, "latent_rmse": False}


def scored_run(
    path: Path,
    scores: dict[str, Value],
    *,
    solvers: Sequence[str] = ("sequential", "ropa"),
    prompts: Sequence[str] = ("a cat", "a dog", "a bird"),
    seeds: Sequence[int] = (0, 1, 2, 3),
    axes: bool = True,
    **changes: Any,
) -> RunFolder:
    """Write a finished run: every prompt and seed under every solver, each with its scores."""
    items = [
        WorkItem(
            id=_digest(prompt, seed, solver, changes.get("model")),
            pair=_digest(prompt, seed),
            prompt=prompt,
            negative_prompt=None,
            seed=seed,
            model={"adapter": "auto", "checkpoint": "test/fake"},
            sampling={"steps": 4},
            solver={"kind": solver},
            axes={"solver": solver} if axes else {},
        )
        for prompt in prompts
        for seed in seeds
        for solver in solvers
    ]
    document = {"name": path.parent.name, "model": {"checkpoint": "test/fake"}, "score": list(scores), **changes}
    run = RunFolder.create(path, document, items)
    for item in items:
        stats = SamplerStats(4, 2, 6, (2, 4))
        media = f"media/{item.id[:2]}/{item.id}.png"
        run.write_record(Record(item.id, "done", 1, media, item.id * 3, sampler=stats, elapsed_s=0.5))
    for metric, value in scores.items():
        give(run, metric, value)
    return run


def give(run: RunFolder, metric: str, value: Value) -> None:
    """Score a run by a formula; of a metric whose name has a dot, as that part of it."""
    rows, records = [], run.records()
    for number, item in enumerate(run.items()):
        found = value(item, number)
        reason = None if found is not None else "cannot be read"
        higher = HIGHER.get(metric.partition(".")[0], True)
        rows.append(
            {**asdict(Score(item.id, metric, found, higher, reason)), "inputs": [_measured(records.get(item.id))]}
        )
    path = run.scores_path(metric)
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _measured(record: Record | None) -> str:
    return "" if record is None else record.sha256 or ""


def give_set(run: RunFolder, metric: str, values: Mapping[str, float | str], *, higher: bool = False) -> None:
    """Score cells of a run as wholes: label -> the number, or why there is none."""
    path = run.scores_path(metric.partition(".")[0])
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        for label, value in values.items():
            number, reason = (None, value) if isinstance(value, str) else (value, None)
            row = {**asdict(Score(f"{SET}{label}", metric, number, higher, reason)), "inputs": [], "part": metric}
            file.write(json.dumps(row) + "\n")


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:20]
