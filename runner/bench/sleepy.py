"""The model of `genrun bench --engine`: it sleeps, and answers in closed form.

In a file of its own: `rank.py` is a program's main one, whose objects pass for a user's own, and a `forward` that a user has
patched is refused where it counts.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class SleepyModel:
    """A transformer's forward that sleeps, then predicts a velocity that bends with time.

    Attributes:
        latency_s: how long.
        slept_s: in all calls since `reset`.
        first: (wall clock, processor time) at the first call since `reset`.
    """

    latency_s: float = 0.0
    slept_s: float = 0.0
    first: tuple[float, float] | None = None

    def reset(self) -> None:
        """Forget earlier calls."""
        self.slept_s, self.first = 0.0, None

    def __call__(self, hidden_states: Tensor, timestep: Tensor, **_: Any) -> tuple[Tensor]:
        """Return (velocity,), of the latents' shape."""
        started = time.perf_counter()
        self.first = self.first or (started, time.process_time())
        time.sleep(self.latency_s)
        self.slept_s += time.perf_counter() - started
        phase = (timestep.float() / 1000).view(-1, 1, 1, 1)
        return (hidden_states * 0.5 - torch.tanh(hidden_states * (1 - phase)),)
