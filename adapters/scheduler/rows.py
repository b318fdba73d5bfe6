"""The samples of a batch, each with its solver, the model calls of a round, and how far a call is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from genrun.adapters.scheduler.joined import JoinedScheduler, unpack
from genrun.adapters.scheduler.noise import NoiseLevels
from genrun.adapters.scheduler.replay import Lane
from genrun.adapters.shapes import Latents, Output, Sample, SampleOutput
from genrun.solvers.contract import Point, Run, Solution


@dataclass(frozen=True)
class CallProgress:
    """The state of a call after a round.

    Attributes:
        front: final states so far.
        num_steps: N.
        rounds: parallel model calls.
        nfe: model evaluations asked for.
        predict_x0: returns the x0-prediction of the first sample at the round's first point, (1, ...) in the form of the
            loop's latents.
    """

    front: int
    num_steps: int
    rounds: int
    nfe: int
    predict_x0: Callable[[], Sample] | None = field(default=None, repr=False, compare=False)


OnRound = Callable[[CallProgress], None]


@dataclass(frozen=True)
class Evaluation:
    """A model call of a round: the step, and the latents of the whole batch there.

    `turn` counts the calls at one step in one round: all but the first are probes beside the state that matters.
    """

    index: int
    turn: int
    x: Latents


@dataclass
class Row:
    """A sample of the batch: its solver's generator, the points it asks for, and its solution in the end."""

    lane: Lane
    run: Run
    points: Sequence[Point]
    filler: Sample
    solution: Solution | None = None

    def send(self, outputs: list[SampleOutput]) -> None:
        """Hand over a round's outputs, without the gradients that a loop of one's own may have."""
        self.points = ()
        outputs[:] = [each.detach() for each in outputs]
        try:
            with torch.no_grad():
                self.points = self.run.send(outputs)
            self.filler = self.points[0].x
        except StopIteration as stop:
            self.solution = stop.value
            self.filler = stop.value.x


def places(points: Sequence[Point]) -> list[tuple[int, int]]:
    """Return each point's step, and how many points before it are at the same one."""
    indices = [point.index for point in points]
    return [(index, indices[:at].count(index)) for at, index in enumerate(indices)]


def x0_of(scheduler: Any, levels: NoiseLevels, point: Point, output: Output) -> Sample:
    """Return the x0-prediction of an output for the first sample; of what is sampled beside pictures, only theirs."""
    # Not by the sample's lane: what it keeps of a prediction, its guesses are made of.
    x0 = levels.predict_x0(point.index, point.x, output[:1, : point.x.shape[1]].float())
    return unpack(x0, scheduler.samples)[0] if isinstance(scheduler, JoinedScheduler) else x0
