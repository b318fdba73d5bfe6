"""Model of J, the x0-prediction's Jacobian with respect to the state, from secants: the quasi-Newton part of `collocation`.

A node is evaluated at a state that is still wrong. What is wanted is the prediction at the corrected state, and holding it
still is a poor guess: guidance makes it 5 C - 4 U of a conditional and an unconditional prediction, and since the
unconditional one follows the state the more, the guided one runs against the move, several times its size. The trajectory
itself is smooth and strongly contracting there, yet Picard iteration overshoots: a stiff problem.

J is large in few directions only (of 1024, four hold half of |J|^2 on the demo models, sixteen three quarters), and these
hardly turn from one step to the next. So a few secants, a move s_k and the change y_k that it made, tell most:

    x0(x + d) - x0(x)  ~  J d  ~  b d + sum_k w_k r_k,      r_k = y_k - b s_k,      w = (k(s, s) + ridge)^-1 k(s, d),

with a gain b for the rest, which is a share of the secants' own. The inner product k decides which secants a move resembles.
With k(a, b) = a.b this is the multisecant quasi-Newton method (Anderson, 1965; Fang and Saad, 2009); with
k(a, b) = sum_k (a.y_k)(y_k.b) it is nearly the symmetric rank-one update (SR1: Conn, Gould and Toint, 1991), which takes a
large change for a large direction of J. Their sum is as good as the second where J is symmetric, and as safe as the first
where it is not. J turns with the ratio of signal to noise, and so the ridge of a secant grows with the distance in it.

Secants come for free whenever a node is evaluated again, and on purpose from probes: evaluations beside a node, at a small
move. The directions worth a probe are those of the innovations, in which the predictions of a round differed from what the
model had said: those will move the states that follow. For secants that is a step of block power iteration each round, which
turns the probes towards the large directions of J.

A gain is also how an error of the state comes to be one of the picture. Where it is large and positive the trajectory is
about to decide between pictures, and what is left open at a state there must be so much smaller (`amplification`).

All of this changes how fast an iteration converges, never to what: at d = 0 the model says 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, log
from typing import TYPE_CHECKING

from genrun.solvers.contract import Problem
from genrun.solvers.trajectory import rms
from genrun.solvers.tuning import TUNING, Tuning

if TYPE_CHECKING:
    from genrun.solvers.shapes import Gram, Pairs, PerSecant, Products, Secants, State, Vectors


def log_snr(problem: Problem, index: int, least: float = TUNING.least_level) -> float:
    """Return the log of alpha over sigma at a grid point, neither taken to be less than `least`."""
    return log(max(problem.alpha(index), least) / max(problem.sigma(index), least))


@dataclass
class JacobianModel:
    """Secants of one sample, the last `capacity` of them, and the directions to probe next.

    Attributes:
        log_snrs: log of alpha over sigma at each step.
        capacity: secants kept, the oldest overwritten; each costs two latents.
        floor: RMS of a move too small to tell anything.
        tuning: prior, ridge and weights.
        count: secants seen.
        steps: the step of each secant that is kept.
        innovations: how predictions of the last round differed from what had been expected of them.
        misfits: RMS of what the model missed of each change, over that of the move, in the last round.
        largest_gain: largest RMS of a change over that of its move in the last round; infinite until something can be known.
    """

    log_snrs: Sequence[float]
    capacity: int
    floor: float
    tuning: Tuning = TUNING
    count: int = 0
    steps: list[int] = field(default_factory=list)
    innovations: list[State] = field(default_factory=list)
    misfits: list[float] = field(default_factory=list)
    largest_gain: float = 0.0

    @property
    def misfit(self) -> float:
        """Largest relative error of the model in the last round."""
        return max(self.misfits, default=self.tuning.unknown_misfit)

    def begin_round(self) -> None:
        """Forget the innovations and misfits of the last round."""
        self.innovations, self.misfits, self.largest_gain = [], [], 0.0

    def seed_directions(self, x0: State) -> None:
        """Name directions to probe before any secant is known: J is large along the data, as the first prediction shows."""
        flat = x0.mean((-2, -1) if x0.ndim > 3 else -min(2, x0.ndim), keepdim=True).expand_as(x0)
        self.innovations = [x0, flat]
        self.largest_gain = inf

    def add_secant(self, step: int, move: State, change: State) -> None:
        """Learn that the x0-prediction of a step changed when its state moved, unless by too little to tell anything."""
        length, gain = rms(move), rms(change) / max(rms(move), self.floor)
        # A model that explodes is not learned from: what the squares of these overflow would stop the solver, not the model.
        if self.floor < length and max(length, gain) < self.tuning.most_gain:
            self.largest_gain = max(self.largest_gain, gain)
            self.innovations.append(change - self.at(step).apply(move))
            self.misfits.append(rms(self.innovations[-1]) / length)
            self._store(step, move, change)
            self._measure()

    def add_first_look(self, innovation: State) -> None:
        """Learn how a first x0-prediction differs from the one that its state was made with."""
        self.innovations.append(innovation * self.tuning.first_look_weight)

    def at(self, step: int) -> LocalJacobian:
        """Return the model of J at a step."""
        if not self.count:
            return LocalJacobian(self.tuning.prior_gain)
        tuning = self.tuning
        distance = self.gram.new_tensor([abs(self.log_snrs[other] - self.log_snrs[step]) for other in self.steps])
        ridges = 1 + tuning.drift * distance
        mean = float(tuning.unseen_share * (self.gains / ridges).sum() + tuning.prior_weight * tuning.prior_gain)
        gain = mean / float((1 / ridges).sum() + tuning.prior_weight)
        regularised = self.gram + (tuning.ridge * self.gram.diag() * ridges).diag()
        return LocalJacobian(gain, self, regularised.inverse())

    def amplification(self, step: int) -> float:
        """Return how many times an error of the state at a step may be in the picture: the largest gain from there on.

        At least 1. A state that is about to decide between two pictures has predictions that follow it 5 to 13 times.
        """
        if not self.count:
            return self.tuning.unknown_amplification if self.capacity > 1 else 1.0  # a worker alone never learns of any
        return max([1.0, *(gain for gain, at in zip(self.gains.tolist(), self.steps, strict=True) if at >= step)])

    def probe_directions(self, count: int) -> list[State]:
        """Spend the innovations on at most `count` directions of RMS 1: their principal ones, which are orthogonal."""
        if not self.innovations or not count:
            self.innovations = []
            return []
        shape = self.innovations[0].shape
        rows = self.innovations[0].new_empty((len(self.innovations), shape.numel()))
        for row in rows:
            row.copy_(self.innovations.pop().flatten())  # popped: a list and a matrix of them would be twice the memory
        products = (rows @ rows.T / rows.shape[1]).cpu().double()
        if not bool(products.isfinite().all()):  # of predictions whose squares overflow
            return []
        mixtures, sizes, _ = products.svd()
        largest = [mixture for mixture, size in zip(mixtures.T, sizes, strict=True) if size > self.floor**2][:count]
        directions = [(mixture.to(rows) @ rows).view(shape) for mixture in largest]
        # Rows that depend on one another, as a prediction that is flat and its mean, leave nothing but their rounding.
        rounding = self.tuning.rounding * float(sizes[0]) ** 0.5
        return [direction.div_(size) for direction in directions if (size := rms(direction)) > rounding]

    @property
    def secants(self) -> Secants:
        """All secants as rows: moves at even ones, changes at odd ones."""
        return self.pairs[: len(self.steps)].flatten(0, 1)

    def products(self, vectors: Vectors) -> Products:
        """Return mean products of the secants' rows with vectors, on the CPU in float64: small, and to be inverted."""
        return (self.secants @ vectors / self.pairs.shape[-1]).cpu().double()

    def kernel(self, move: State) -> PerSecant:
        """Return k(s, d) of a move with every secant."""
        plain, along = self.products(move.flatten()).view(-1, 2).unbind(1)
        return plain + self.tuning.response_weight * self.along @ (along / self.lengths)

    def _store(self, step: int, move: State, change: State) -> None:
        """Write a secant, scaled to a move of RMS 1, over the oldest one."""
        if not self.count:
            self.pairs: Pairs = move.new_zeros((self.capacity, 2, move.numel()))
        row, length = self.count % self.capacity, rms(move)
        for half, tensor in zip(self.pairs[row], (move, change), strict=True):
            half.copy_(tensor.flatten()).div_(length)
        self.steps[row : row + 1] = [step]
        self.count += 1

    def _measure(self) -> None:
        """Take the inner products of all pairs: all that does not depend on the step at which the model is asked."""
        products = self.products(self.secants.T)
        plain, across, squares = products[::2, ::2], products[::2, 1::2], products[1::2, 1::2].diag()
        self.lengths: PerSecant = squares.sqrt().clamp(min=self.floor)
        self.gains: PerSecant = across.diag()
        self.along: Gram = across / self.lengths
        self.gram: Gram = plain + self.tuning.response_weight * self.along @ self.along.T


@dataclass(frozen=True)
class LocalJacobian:
    """The model of J at one step.

    Attributes:
        gain: b, of directions that no secant tells of; before any secant, of all.
        model: the secants, if there are any.
        inverse: (k(s, s) + ridge)^-1.
    """

    gain: float
    model: JacobianModel | None = None
    inverse: Gram | None = None

    def apply(self, move: State) -> State:
        """Return J d: the change of the x0-prediction when the state moves by d."""
        change = move * self.gain
        if self.model is None or self.inverse is None:
            return change
        weights = self.inverse @ self.model.kernel(move)
        # sum_k w_k (y_k - b s_k), as one product with the rows s_1, y_1, s_2, y_2, ..
        mixture = weights.outer(weights.new_tensor([-self.gain, 1.0])).flatten().to(change)
        return change.add_((mixture @ self.model.secants).view_as(move))
