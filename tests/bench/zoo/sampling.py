"""Many samples of a model of the zoo at once: every solver in lockstep, all their points in one batch.

A pipeline evaluates its points one by one, so that bits do not depend on the number of ranks. Here hundreds of samples
share a forward pass, whose rounding is 1e-6 of a tolerance. Steps are the pipeline's own scheduler's.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genrun.adapters.scheduler.noise import noise_levels
from genrun.adapters.scheduler.replay import Lane, Replay
from genrun.solvers.contract import Point, Solution, Solver

from .models import FRAMES, MODELS, Text
from .train import predict

MOST_ROWS = 256
"""Pictures of a forward pass; a video's frames count one by one."""


@dataclass(frozen=True)
class Pair:
    """A sample: the number of its caption (the last is the empty one's), and its seed."""

    caption: int
    seed: int


class Sampler:
    """A model of the zoo, evaluated in batches, at one number of steps and one guidance scale.

    Args:
        name: a key of `MODELS`.
        root: folder of trained models.
        steps: N.
        guidance: the guidance scale; at 1 or less the model is called without the empty caption, as pipelines do.
        scheduler: a class of diffusers in place of the pipeline's own, with that one's configuration.
    """

    def __init__(self, name: str, root: Path, steps: int, guidance: float, scheduler: str | None = None) -> None:
        logging.getLogger("transformers").setLevel(logging.ERROR)
        self.model, self.guidance = MODELS[name], guidance
        self.pipe: Any = import_module("diffusers").DiffusionPipeline.from_pretrained(
            root / name, local_files_only=True
        )
        self.denoiser: Any = self.pipe.transformer if hasattr(self.pipe, "transformer") else self.pipe.unet
        self._prompts = (*self.model.pictures().captions, "")
        self._encoded: dict[int, Text] = {}
        self.captions = len(self._prompts) - 1
        self.scheduler: Any = self.pipe.scheduler
        if scheduler is not None:
            self.scheduler = getattr(import_module("diffusers"), scheduler).from_config(self.scheduler.config)
        self.steps = steps

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a sample's latents, without the batch."""
        config = self.denoiser.config
        frames = (FRAMES,) if "Latte" in type(self.denoiser).__name__ else ()
        return (config.in_channels, *frames, config.sample_size, config.sample_size)

    @torch.no_grad()
    def text(self, captions: Sequence[int]) -> Text:
        """Return the text arguments of captions; the number after the last is the empty one's."""
        for caption in {*captions} - self._encoded.keys():
            self._encoded[caption] = self.model.encode(self.pipe, self._prompts[caption])
        rows = [self._encoded[caption] for caption in captions]
        return {key: torch.cat([row[key] for row in rows]) for key in rows[0]}

    def draw(self, count: int, seed: int) -> list[Pair]:
        """Draw captions and seeds."""
        rng = np.random.default_rng(seed)
        return [Pair(int(rng.integers(self.captions)), int(rng.integers(2**31))) for _ in range(count)]

    def start(self, pair: Pair) -> Tensor:
        """The initial noise of a sample, (1, ...)."""
        noise = torch.randn(1, *self.shape, generator=torch.Generator().manual_seed(pair.seed))
        return noise * float(getattr(self.scheduler, "init_noise_sigma", 1.0))

    @torch.no_grad()
    def sample(self, pairs: Sequence[Pair], solver: Solver) -> list[Solution]:
        """Sample every pair with a solver."""
        replay = self._replay(pairs[0])
        levels = noise_levels(self.scheduler)
        found: dict[int, Solution] = {}
        running: dict[int, Generator[Sequence[Point], list[Tensor], Solution]] = {}
        asked: dict[int, Sequence[Point]] = {}
        for number, pair in enumerate(pairs):
            if replay.stochastic:
                replay = self._replay(pair)
            running[number] = solver.solve(Lane(replay, levels, self.start(pair), 0))
            asked[number] = next(running[number])
        while asked:
            points = [(point, pairs[number].caption) for number, each in asked.items() for point in each]
            outputs = iter(self.evaluate(points))
            for number, each in list(asked.items()):
                try:
                    asked[number] = running[number].send([next(outputs) for _ in each])
                except StopIteration as stop:
                    found[number] = stop.value
                    del asked[number]
        return [found[number] for number in range(len(pairs))]

    def _replay(self, pair: Pair) -> Replay:
        """The scheduler's steps, with a sample's own noise where they add some."""
        self.scheduler.set_timesteps(self.steps)  # which forgets the steps that it has taken
        start, noise = self.start(pair), torch.Generator().manual_seed(pair.seed + 1)
        return Replay(self.scheduler, start, torch.zeros_like(start), noise)

    def evaluate(self, points: Sequence[tuple[Point, int]]) -> list[Tensor]:
        """Return the model's guided outputs at points of any steps and captions, each (1, ...)."""
        found: list[Tensor] = []
        rows = MOST_ROWS // (self.shape[1] if len(self.shape) == 4 else 1)
        for first in range(0, len(points), rows):
            part = points[first : first + rows]
            x = torch.cat([self._seen(point) for point, _ in part])
            timesteps = torch.stack([self.scheduler.timesteps[point.index] for point, _ in part])
            captions = [caption for _, caption in part]
            output = self._call(x, timesteps, captions)
            if self.guidance > 1 and self.model.guided:
                empty = self._call(x, timesteps, [self.captions] * len(part))
                output = empty + self.guidance * (output - empty)
            found += output.split(1)
        return found

    def _seen(self, point: Point) -> Tensor:
        """Return what the model is shown of a state: an EDM scheduler scales it by the step's noise level."""
        if hasattr(self.scheduler, "precondition_inputs"):
            return self.scheduler.precondition_inputs(point.x, self.scheduler.sigmas[point.index])
        return point.x

    def _call(self, x: Tensor, timesteps: Tensor, captions: Sequence[int]) -> Tensor:
        return predict(self.denoiser, x, timesteps, self.text(captions))


def rmse(x: Tensor, reference: Tensor) -> float:
    """Latent RMSE in standard deviations of the reference."""
    return float((x - reference).square().mean().sqrt() / reference.std(correction=0))
