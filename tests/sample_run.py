"""A finished run on disk, made without a model: drawn clips, latents and records with plausible costs.

The sequential sampler's clip is a scene of the demo world; a parallel solver's is the same scene with an error added, so
that every score is known in advance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from genrun.adapters.demo.world import draw, parse_caption
from genrun.adapters.media import write_image, write_video
from genrun.runner.job.plan import WorkItem
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.records import Record, SamplerStats

NUM_STEPS = 20
LATENT_SHAPE = (1, 3, 16, 8, 8)
CAPTIONS = (
    "a small red circle moving left on gray",
    "a large white square moving down on navy",
    "a large yellow triangle moving right on brown",
    "a small green square moving up on black",
)
_WRITTEN: dict[tuple[Any, ...], bytes] = {}
"""Files that were made before: encoding takes longer than all else here."""


@dataclass(frozen=True)
class FakeSolver:
    """A solver's label, its cost, and the error it leaves: latent noise in standard deviations, and pixel noise."""

    label: str
    kind: str
    rounds: int
    nfe: int
    error: float = 0.0


SEQUENTIAL = FakeSolver("sequential", "sequential", NUM_STEPS, NUM_STEPS)
ROPA = FakeSolver("ropa K=8", "ropa", 7, 52, 0.02)
PICARD = FakeSolver("picard K=8", "picard", 11, 84, 0.004)
ALL_SOLVERS = (
    SEQUENTIAL,
    PICARD,
    ROPA,
    FakeSolver("exact K=8", "fixed_point", 12, 92),
    FakeSolver("chords K=4", "chords", 8, 30, 0.06),
)


def make_run(
    path: Path,
    *,
    solvers: Sequence[FakeSolver] = (SEQUENTIAL, ROPA),
    prompts: Sequence[str] = CAPTIONS[:2],
    seeds: Sequence[int] = (0,),
    failed: Mapping[int, dict[str, Any]] | None = None,
    pending: Sequence[int] = (),
    image: bool = False,
    files: bool = True,
    latents: bool = True,
    axes: bool = True,
    adapter: str = "demo-video",
    gates: Mapping[str, Any] | None = None,
) -> RunFolder:
    """Write a run folder.

    Args:
        path: the folder, which must not exist.
        solvers: one item of each for every prompt and seed, in this order.
        prompts: captions of the demo world are drawn; other texts get a caption's clip.
        seeds: one clip each.
        failed: index in the plan -> error of its record.
        pending: indices in the plan that have no record.
        image: PNG files instead of clips.
        files: whether media files are written (records name them in any case).
        latents: whether latents are saved.
        axes: whether the solver is an axis of the matrix.
        adapter: the model's name.
        gates: of the job.
    """
    plan = [
        (work_item(prompt, seed, solver, image=image, axes=axes, adapter=adapter), solver)
        for prompt in prompts
        for seed in seeds
        for solver in solvers
    ]
    document: dict[str, Any] = {
        "name": path.parent.name,
        "model": {"adapter": adapter},
        "prompts": list(prompts),
        "seeds": list(seeds),
        "sampling": {"steps": NUM_STEPS},
        "matrix": {"solver": [{"kind": solver.kind} for solver in solvers]},
    }
    if gates is not None:
        document["gates"] = gates
    run = RunFolder.create(path, document, [item for item, _ in plan])
    for index, (item, solver) in enumerate(plan):
        if index in pending:
            continue
        if failed and index in failed:
            run.write_record(Record(item.id, "failed", attempt=2, error=failed[index]))
        else:
            finish(run, item, solver, files=files, latents=latents)
    return run


def work_item(
    prompt: str,
    seed: int,
    solver: FakeSolver,
    *,
    image: bool = False,
    axes: bool = True,
    adapter: str = "demo-video",
) -> WorkItem:
    """Plan one item."""
    pair = _hash(prompt, seed, adapter)
    sampling: dict[str, Any] = {"steps": NUM_STEPS, "height": 64, "width": 64}
    return WorkItem(
        id=_hash(pair, solver.label),
        pair=pair,
        prompt=prompt,
        negative_prompt=None,
        seed=seed,
        model={"adapter": adapter},
        sampling=sampling if image else {**sampling, "num_frames": 9},
        solver={"kind": solver.kind, "workers": 8},
        axes={"solver": solver.label} if axes else {},
    )


def finish(run: RunFolder, item: WorkItem, solver: FakeSolver, *, files: bool = True, latents: bool = True) -> Record:
    """Write the files and the record of an item."""
    is_image = "num_frames" not in item.sampling
    media = run.media_path(item, ".png" if is_image else ".mp4")
    state = run.latents_path(item.id)
    if files:
        media.parent.mkdir(parents=True, exist_ok=True)
        key = (item.prompt, item.seed, solver, is_image)
        if key not in _WRITTEN:
            frames = clip(item, solver)
            if is_image:
                write_image(media, frames[0], {"prompt": item.prompt})
            else:
                write_video(media, frames, fps=8, metadata={"prompt": item.prompt})
            _WRITTEN[key] = media.read_bytes()
        else:
            media.write_bytes(_WRITTEN[key])
    if latents:
        state.parent.mkdir(parents=True, exist_ok=True)
        save_file({"latents": final_latents(item, solver)}, state)
    record = Record(
        item.id,
        "done",
        media=run.relative(media),
        sha256=hashlib.sha256(media.read_bytes()).hexdigest() if files else None,
        latents=run.relative(state) if latents else None,
        elapsed_s=1.5,
        sampler=SamplerStats(NUM_STEPS, solver.rounds, solver.nfe, fronts(solver)),
    )
    run.write_record(record)
    return record


def clip(item: WorkItem, solver: FakeSolver) -> np.ndarray:
    """Draw an item's frames, uint8 of shape (9, 64, 64, 3)."""
    caption = item.prompt if item.prompt in CAPTIONS else CAPTIONS[item.seed % len(CAPTIONS)]
    frames = draw(parse_caption(caption), np.random.default_rng(item.seed))
    noise = np.random.default_rng([item.seed, solver.rounds]).normal(size=frames.shape)
    return np.clip(255 * (frames + solver.error * noise), 0, 255).round().astype(np.uint8)


def final_latents(item: WorkItem, solver: FakeSolver) -> torch.Tensor:
    """Draw an item's final latents: those of its pair, and the solver's error."""
    clean = torch.randn(LATENT_SHAPE, generator=torch.Generator().manual_seed(int(item.pair[:8], 16)))
    noise = torch.randn(LATENT_SHAPE, generator=torch.Generator().manual_seed(int(item.id[:8], 16)))
    return clean + solver.error * noise


def fronts(solver: FakeSolver) -> tuple[int, ...]:
    """The front after each round: slow first, at least one step a round, N at the end."""
    return tuple(
        max(r, round(NUM_STEPS * (r / solver.rounds) ** 1.3)) if r < solver.rounds else NUM_STEPS
        for r in range(1, solver.rounds + 1)
    )


def _hash(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:20]
