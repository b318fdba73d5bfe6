"""How the x0-prediction answers a move of the state: its Jacobian J, from secants, where it matters.

A node's prediction is asked at a state that is still wrong. What is wanted is the prediction at the corrected state, and
holding it still is a poor guess: guidance makes it 5 C - 4 U of a conditional and an unconditional prediction, and since the
unconditional one follows the state the more, the guided one runs against the move, several times its size. The trajectory
itself is smooth and strongly contracting there, yet Picard iteration overshoots: a stiff problem.

J is large in few directions only (of 1024, four hold half of |J|^2 on the demo models, sixteen three quarters), and these
hardly turn from one step to the next. So a few secants, moves s_k with the answers y_k that were seen, tell most of it:

    x0(x + d) - x0(x)  ~  b d + sum_k w_k r_k,      r_k = y_k - b s_k,      w = (k(s, s) + ridge)^-1 k(s, d),

with a gain b for the rest, which is a share of the secants' own. The inner product k decides which secants a move resembles.
With k(a, b) = a.b this is the multisecant quasi-Newton method (Anderson, 1965; Fang and Saad, 2009); with
k(a, b) = sum_k (a.y_k)(y_k.b) it is nearly the symmetric rank-one update (SR1: Conn, Gould and Toint, 1991), which takes a
large answer for a large direction of J. Their sum is as good as the second where J is symmetric, and as safe as the first
where it is not. J turns with the ratio of signal to noise, and so the doubt about a secant grows with that.

Secants come for free whenever a node is evaluated again, and on purpose from probes: evaluations beside a node, at a small
move. The directions worth a probe are those in which the predictions of a round differed from what had been expected: those
will move the states that follow. For answers that is a step of block power iteration each round, which turns the probes
towards the large directions of J.

All of this changes how fast an iteration converges, never to what: at d = 0 the answer is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, log
from typing import TYPE_CHECKING

from genrun.solvers.contract import Problem
from genrun.solvers.trajectory import rms

if TYPE_CHECKING:
    from torch import Tensor

GAIN = 0.3
"""Answer to a move in a direction nothing is known of, before any secant: between 0 at high noise and 1 at none."""
GAIN_WEIGHT = 1.0
"""How many secants that counts as, once there are some."""
REST = 0.6
"""What the directions not seen yet answer, as a share of what the secants did: these were chosen for their large answers."""
RIDGE = 0.1
"""Doubt about a secant measured right where it is used, as a share of its weight."""
DRIFT = 10.0
"""How often that doubt is added while the ratio of signal to noise grows e-fold, as J turns."""
ALONG_ANSWERS = 3.0
"""Weight of the inner product along the answers against the plain one."""
NEWS = 0.2
"""Weight of a surprise at a node evaluated for the first time against one in an answer."""
UNKNOWN = 4.0
"""The misfit where a round has shown no answer."""
LEAST_LEVEL = 1e-3
"""Signal and noise below which their ratio says nothing more."""


def log_snr(problem: Problem, index: int) -> float:
    """Log of alpha over sigma at a grid point, both no less than LEAST_LEVEL."""
    return log(max(problem.alpha(index), LEAST_LEVEL) / max(problem.sigma(index), LEAST_LEVEL))


@dataclass
class Response:
    """What one sample has shown of J: the last `size` secants, the oldest overwritten.

    Attributes:
        levels: log of alpha over sigma at each step.
        size: secants kept; each costs two latents.
        floor: RMS of a move too small to tell anything.
        indices: the step of each secant.
        surprises: how the predictions of the last round differed from what had been expected.
        gain: largest answer over its move in the last round, as RMS; infinite until something can be known.
        misses: what was wrong in each answer's model, over its move, in the last round.
        least_gain: the lowest that the secants' mean gain has been; infinite until there is one.
    """

    levels: Sequence[float]
    size: int
    floor: float
    count: int = 0
    indices: list[int] = field(default_factory=list)
    surprises: list[Tensor] = field(default_factory=list)
    misses: list[float] = field(default_factory=list)
    gain: float = 0.0
    least_gain: float = inf

    def begin(self, x0: Tensor) -> None:
        """Name directions to probe before any secant is known: J is large along the data, as the first prediction shows."""
        flat = x0.mean((-2, -1) if x0.ndim > 3 else -min(2, x0.ndim), keepdim=True).expand_as(x0)
        self.surprises = [x0, flat]
        self.gain = inf

    def begin_round(self) -> None:
        """Forget what surprised in the last round, and how much."""
        self.surprises, self.misses, self.gain = [], [], 0.0

    @property
    def runs_along(self) -> bool:
        """Whether predictions are known to have always moved with their states, as they do without guidance."""
        return 0 < self.least_gain < inf

    @property
    def runs_against(self) -> bool:
        """Whether predictions are known to have moved against their states, as guidance makes them."""
        return self.least_gain <= 0

    @property
    def misfit(self) -> float:
        """Largest difference between an answer and what was said of it in the last round, over the move, as RMS."""
        return max(self.misses, default=UNKNOWN)

    def observe(self, index: int, move: Tensor, answer: Tensor) -> None:
        """Learn that the x0-prediction of a step answered a move of its state, unless that is too small to tell anything."""
        if rms(move) > self.floor:
            self.gain = max(self.gain, rms(answer) / rms(move))
            self.surprises.append(answer - self.at(index).answer(move))
            self.misses.append(rms(self.surprises[-1]) / rms(move))
            self._keep(index, move, answer)
            self._measure()

    def hear(self, surprise: Tensor) -> None:
        """Learn how a first x0-prediction differs from the one that its state was made with."""
        self.surprises.append(surprise * NEWS)

    def _keep(self, index: int, move: Tensor, answer: Tensor) -> None:
        """Write a secant, scaled to a move of RMS 1, over the oldest one."""
        if not self.count:
            self.pairs = move.new_zeros((self.size, 2, move.numel()))
        row, length = self.count % self.size, rms(move)
        for half, tensor in zip(self.pairs[row], (move, answer), strict=True):
            half.copy_(tensor.flatten()).div_(length)
        self.indices[row : row + 1] = [index]
        self.count += 1

    @property
    def secants(self) -> Tensor:
        """All secants as rows: moves at even ones, answers at odd ones."""
        return self.pairs[: len(self.indices)].flatten(0, 1)

    def _measure(self) -> None:
        """Inner products of all pairs: what does not depend on where the model is asked."""
        products = self.products(self.secants.T)
        plain, across, lengths = products[::2, ::2], products[::2, 1::2], products[1::2, 1::2].diag().sqrt()
        self.lengths = lengths.clamp(min=self.floor)
        self.gains, self.along = across.diag(), across / self.lengths
        self.least_gain = min(self.least_gain, float(self.gains.mean()))
        self.kernel = plain + ALONG_ANSWERS * self.along @ self.along.T

    def products(self, vectors: Tensor) -> Tensor:
        """Mean products of the secants' rows with vectors as columns, small and exact enough to calculate with."""
        return (self.secants @ vectors / self.pairs.shape[-1]).cpu().double()

    def at(self, index: int) -> Model:
        """The model of the answer at a step."""
        if not self.count:
            return Model()
        far = self.kernel.new_tensor([abs(self.levels[other] - self.levels[index]) for other in self.indices])
        doubt = 1 + DRIFT * far
        gain = float(REST * (self.gains / doubt).sum() + GAIN_WEIGHT * GAIN) / float((1 / doubt).sum() + GAIN_WEIGHT)
        return Model(self, (self.kernel + (RIDGE * self.kernel.diag() * doubt).diag()).inverse(), gain)

    def resemblance(self, move: Tensor) -> Tensor:
        """k(s, d) of a move with every secant."""
        plain, along = self.products(move.flatten()).view(-1, 2).unbind(1)
        return plain + ALONG_ANSWERS * self.along @ (along / self.lengths)

    def directions(self, count: int) -> list[Tensor]:
        """Spend the surprises on at most `count` directions of RMS 1 to probe next: the principal ones, orthogonal."""
        if not self.surprises or not count:
            self.surprises = []
            return []
        shape = self.surprises[0].shape
        surprises = self.surprises[0].new_empty((len(self.surprises), shape.numel()))
        for row in surprises:
            row.copy_(self.surprises.pop().flatten())
        mixtures, sizes, _ = (surprises @ surprises.T / surprises.shape[1]).cpu().double().svd()
        largest = [mixture for mixture, size in zip(mixtures.T, sizes, strict=True) if size > self.floor**2][:count]
        directions = [(mixture.to(surprises) @ surprises).view(shape) for mixture in largest]
        return [direction.div_(rms(direction)) for direction in directions]


@dataclass(frozen=True)
class Model:
    """The modelled answer at one step; before anything is known, the gain alone."""

    known: Response | None = None
    inverse: Tensor | None = None
    gain: float = GAIN

    def answer(self, move: Tensor) -> Tensor:
        """The change of the x0-prediction when the state moves by `move`."""
        answer = move * self.gain
        if self.known is None or self.inverse is None:
            return answer
        weights = self.inverse @ self.known.resemblance(move)
        mixture = weights.outer(weights.new_tensor([-self.gain, 1.0])).flatten().to(answer)
        return answer.add_((mixture @ self.known.secants).view_as(move))
