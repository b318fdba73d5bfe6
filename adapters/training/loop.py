"""A resumable optimisation loop: each step's randomness comes from its number, so a resumed run repeats nothing."""

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class StepRandom:
    """The two random generators of one step, both decided by (seed, stage, step)."""

    numpy: np.random.Generator
    torch: torch.Generator

    @classmethod
    def of(cls, seed: int, stage: str, step: int) -> "StepRandom":
        """Return the generators of one step of one stage."""
        numpy = np.random.default_rng([seed, zlib.crc32(stage.encode()), step])
        return cls(numpy, torch.Generator().manual_seed(int(numpy.integers(2**62))))


class StagePlan(Protocol):
    """The part of a recipe's stage that the loop reads."""

    @property
    def name(self) -> str:
        """Names the checkpoint and the random stream."""
        ...

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        ...

    @property
    def lr(self) -> float:
        """Peak learning rate."""
        ...

    @property
    def end(self) -> float:
        """Share of ``lr`` left at the last step."""
        ...

    @property
    def ema(self) -> float:
        """Time constant of the averaged weights as a share of the steps done; 0 keeps no average."""
        ...


@dataclass(frozen=True)
class TrainingLoop:
    """Trains a module through one stage.

    Attributes:
        folder: where checkpoints lie, one file for each stage.
        seed: decides every random number of the run.
        resume: continue from the stage's checkpoint if there is one.
        save_every_s: seconds between checkpoints.
        log: called with progress lines.
    """

    folder: Path
    seed: int
    resume: bool = False
    save_every_s: float = 120.0
    log: Callable[[str], None] = print

    def fit(self, module: nn.Module, plan: StagePlan, loss: Callable[[StepRandom], Tensor]) -> float:
        """Minimise ``loss`` over the module's parameters; leaves the averaged weights in it if the plan has any.

        Returns:
            The running mean of the loss at the end.
        """
        state = _State(module, plan, self.folder / f"{plan.name}.pt")
        if self.resume:
            state.load()
        module.train()
        started, saved, first = time.monotonic(), time.monotonic(), state.step
        while state.step < plan.steps:
            state.advance(loss(StepRandom.of(self.seed, plan.name, state.step)))
            now = time.monotonic()
            if state.step % 50 == 0:
                left_s = (now - started) / (state.step - first) * (plan.steps - state.step)
                self.log(f"{plan.name} {state.step}/{plan.steps} loss {state.mean_loss:.5f} {left_s:.0f} s left")
            if now - saved > self.save_every_s or state.step == plan.steps:
                state.save()
                saved = now
        state.finish()
        return state.mean_loss


class _State:
    """Module, optimizer, average and step count of one stage, saved and loaded together."""

    def __init__(self, module: nn.Module, plan: StagePlan, path: Path) -> None:
        self.module, self.plan, self.path = module, plan, path
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=plan.lr, betas=(0.9, 0.98), weight_decay=0.0)
        self.average = [p.detach().clone() for p in self.parameters] if plan.ema else []
        self.step = 0
        self.mean_loss = 0.0

    def advance(self, loss: Tensor) -> None:
        """Take one optimizer step."""
        warm_up = min(1.0, (self.step + 1) / 100)
        left = 1 - self.step / self.plan.steps
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.lr * warm_up * (self.plan.end + (1 - self.plan.end) * left)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.step += 1
        weight = max(0.02, 1 / self.step)
        self.mean_loss += weight * (float(loss.detach()) - self.mean_loss)
        with torch.no_grad():
            for average, parameter in zip(self.average, self.parameters, strict=False):
                average.lerp_(parameter, 1 / (1 + self.plan.ema * self.step))

    def save(self) -> None:
        """Write the checkpoint, atomically."""
        state = {
            "step": self.step,
            "mean_loss": self.mean_loss,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.path)

    def load(self) -> None:
        """Read the checkpoint if there is one."""
        if not self.path.exists():
            return
        device = self.parameters[0].device
        state = torch.load(self.path, map_location=device, weights_only=True)
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.step, self.mean_loss = state["average"], state["step"], state["mean_loss"]

    def finish(self) -> None:
        """Put the averaged weights into the module and leave training mode."""
        with torch.no_grad():
            for parameter, average in zip(self.parameters, self.average, strict=False):
                parameter.copy_(average)
        self.module.eval()
