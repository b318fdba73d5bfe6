"""A run of thousands of items on disk, written in a second or two: records and scores as those of a real one, few clips."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genrun.runner.job.plan import WorkItem
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.records import Record, SamplerStats, Score, format_record
from tests.sample_run import ALL_SOLVERS, NUM_STEPS, FakeSolver, fronts, work_item

WORDS = [
    "a",
    "the",
    "small",
    "large",
    "golden",
    "retriever",
    "running",
    "through",
    "tall",
    "grass",
    "under",
    "stormy",
    "skies",
    "while",
    "the",
    "cinematic",
    "camera",
    "pans",
    "slowly",
    "across",
    "distant",
    "mountains",
    "with",
    "detailed",
    "lighting",
]
SCORES = {"latent_rmse": 0.1, "latent_worst_block": 0.2, "psnr": 45.0, "ssim": 1.0, "clip_score": 0.35, "checker": 1.0}
"""The metrics and their largest values."""

ERROR = {
    "kind": "OutOfMemoryError",
    "remedy": "Lower sampling.num_frames.",
    "rank": 0,
    "log": "logs/torchrun-1/rank-0.log",
}


def make_large_run(
    path: Path,
    *,
    items: int = 2000,
    words: int = 16,
    solvers: Sequence[FakeSolver] = ALL_SOLVERS,
    is_failed: bool = False,
    clips: Sequence[Path] = (),
) -> RunFolder:
    """Write a run folder.

    Args:
        path: the folder, which must not exist.
        items: how many.
        words: in each prompt.
        solvers: one item of each for every prompt.
        is_failed: whether every item failed, with a message of 2 kB of its own.
        clips: files that the items' media are links to, one for each solver.
    """
    draw = random.Random(0)
    prompts = [f"{number} {' '.join(draw.choices(WORDS, k=words))}" for number in range(items // len(solvers))]
    plan = [(work_item(prompt, 0, solver), solver) for prompt in prompts for solver in solvers]
    document = {"name": path.parent.name, "model": {"adapter": "demo-video"}, "prompts": prompts, "seeds": [0]}
    run = RunFolder.create(path, document, [item for item, _ in plan])
    for number, (item, solver) in enumerate(plan):
        record = _failed(item, number) if is_failed else _done(run, item, solver, draw)
        file = run.record_path(item.id)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(format_record(record))
        if clips:
            media = run.media_path(item, ".mp4")
            media.parent.mkdir(parents=True, exist_ok=True)
            os.link(clips[number % len(clips)], media)
    if not is_failed:
        for metric, most in SCORES.items():
            rows = [Score(item.id, metric, draw.uniform(0.7, 1) * most, metric[0] != "l") for item, _ in plan]
            run.scores_path(metric).parent.mkdir(exist_ok=True)
            run.scores_path(metric).write_text("".join(_line(row) for row in rows))
    return run


def _done(run: RunFolder, item: WorkItem, solver: FakeSolver, draw: random.Random) -> Record:
    stats = SamplerStats(NUM_STEPS, solver.rounds, solver.nfe + draw.randrange(5), fronts(solver))
    media = run.relative(run.media_path(item, ".mp4"))
    return Record(item.id, "done", 1, media, item.id, elapsed_s=draw.uniform(1, 2), sampler=stats)


def _failed(item: WorkItem, number: int) -> Record:
    return Record(item.id, "failed", 3, error={**ERROR, "message": f"item {number}: " + "tried to allocate. " * 105})


def _line(score: Score) -> str:
    entry: dict[str, Any] = {**vars(score), "inputs": [], "part": score.metric}
    return json.dumps(entry) + "\n"
