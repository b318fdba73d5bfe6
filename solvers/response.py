"""How the x0-prediction answers a move of the state: its Jacobian J, from secants, where it matters.

A node's prediction is asked at a state that is still wrong. What is wanted is the prediction at the corrected state, and
holding it still is a poor guess: guidance makes it 5 C - 4 U of a conditional and an unconditional prediction, and since the
unconditional one follows the state the more, the guided one runs against the move, several times its size. The trajectory
itself is smooth and strongly contracting there, yet Picard iteration overshoots: a stiff problem.

J is large in few directions only (of 1024, four hold half of |J|^2 on the demo models, sixteen three quarters), and these
hardly turn from one step to the next. So a few secants, moves s_k with the answers y_k that were seen, tell most of it:

    x0(x + d) - x0(x)  ~  b d + sum_k w_k r_k,      r_k = y_k - b s_k,      w = (k(s, s) + ridge)^-1 k(s, d),

with a gain b for the rest. The inner product k decides which secants a move resembles. With k(a, b) = a.b this is the
multisecant quasi-Newton method (Anderson, 1965; Fang and Saad, 2009); with k(a, b) = sum_k (a.r_k)(r_k.b) it is the
symmetric rank-one update (SR1: Conn, Gould and Toint, 1991), which takes a large answer for a large direction of J. Their
sum is as good as the second where J is symmetric, and as safe as the first where it is not.

Secants come for free whenever a node is evaluated again, and on purpose from probes: evaluations beside a node, at a small
move. The directions worth a probe are those in which the answers of a round differed from what the model had said: a step of
block power iteration each round, which turns them towards the large directions of J.

All of this changes how fast an iteration converges, never to what: at d = 0 the answer is 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from genrun.solvers.trajectory import rms

if TYPE_CHECKING:
    from torch import Tensor

GAIN = 0.3
"""Answer to a move in a direction nothing is known of: between 0 at high noise and 1 at none."""
RIDGE = 0.3
"""Doubt about a secant measured right where it is used, as a share of its weight."""
DRIFT = 15.0
"""How much the doubt grows over a whole trajectory, as J turns."""
ALONG_ANSWERS = 3.0
"""Weight of the inner product along the answers against the plain one."""


@dataclass
class Response:
    """What one sample has shown of J: the last `size` secants, the oldest overwritten.

    Attributes:
        num_steps: N.
        size: secants kept; each costs two latents.
        floor: RMS of a move too small to tell anything.
        indices: the step of each secant.
        surprises: directions that the model was wrong about in the last round.
        gain: largest answer over its move in the last round, as RMS; infinite until something can be known.
    """

    num_steps: int
    size: int
    floor: float
    count: int = 0
    indices: list[int] = field(default_factory=list)
    surprises: list[Tensor] = field(default_factory=list)
    gain: float = 0.0

    def begin(self, x0: Tensor, noise: Tensor) -> None:
        """Name directions to probe before any secant is known: J is large along the data, as the first prediction shows."""
        flat = x0.mean((-2, -1) if x0.ndim > 3 else -min(2, x0.ndim), keepdim=True).expand_as(x0)
        self.surprises = [x0, flat, noise * (0.1 * rms(x0) / max(rms(noise), self.floor))]
        self.gain = float("inf")

    def begin_round(self) -> None:
        """Forget what surprised in the last round, and how much."""
        self.surprises, self.gain = [], 0.0

    def observe(self, index: int, move: Tensor, answer: Tensor) -> None:
        """Learn that the x0-prediction of a step answered a move of its state, unless that is too small to tell anything."""
        if rms(move) > self.floor:
            self.gain = max(self.gain, rms(answer) / rms(move))
            self.surprises.append(answer - self.at(index).answer(move))
            self._keep(index, move, answer)
            self._measure()

    def _keep(self, index: int, move: Tensor, answer: Tensor) -> None:
        """Write a secant, scaled to a move of RMS 1, over the oldest one."""
        if not self.count:
            self.moves = move.new_zeros((self.size, move.numel()))
            self.rests = move.new_zeros((self.size, move.numel()))
        row, length = self.count % self.size, rms(move)
        self.moves[row] = move.flatten() / length
        self.rests[row] = (answer - move * GAIN).flatten() / length
        self.indices[row : row + 1] = [index]
        self.count += 1

    def _measure(self) -> None:
        """Inner products of all pairs: what does not depend on where the model is asked."""
        moves, rests = self.moves[: len(self.indices)], self.rests[: len(self.indices)]
        plain, across = moves @ moves.T / moves.shape[1], moves @ rests.T / moves.shape[1]
        self.lengths = rests.square().mean(1).sqrt().clamp(min=self.floor).cpu().double()
        self.along = across.cpu().double() / self.lengths
        self.kernel = plain.cpu().double() + ALONG_ANSWERS * self.along @ self.along.T

    def at(self, index: int) -> Model:
        """The model of the answer at a step."""
        if not self.count:
            return Model()
        far = self.kernel.new_tensor([abs(other - index) / self.num_steps for other in self.indices])
        doubt = RIDGE * self.kernel.diag() * (1 + DRIFT * far)
        return Model(self, (self.kernel + doubt.diag()).inverse())

    def resemblance(self, move: Tensor) -> Tensor:
        """k(s, d) of a move with every secant."""
        flat, known = move.flatten(), len(self.indices)
        plain = (self.moves[:known] @ flat / len(flat)).cpu().double()
        along = (self.rests[:known] @ flat / len(flat)).cpu().double() / self.lengths
        return plain + ALONG_ANSWERS * self.along @ along

    def directions(self, count: int) -> list[Tensor]:
        """At most `count` directions of RMS 1 to probe next: the largest surprises first, orthogonal to each other."""
        left, chosen = list(self.surprises), []
        while left and len(chosen) < count:
            sizes = [rms(direction) for direction in left]
            largest = sizes.index(max(sizes))
            if sizes[largest] <= self.floor:
                break
            best = left.pop(largest) / sizes[largest]
            left = [other - best * float((other * best).mean()) for other in left]
            chosen.append(best)
        return chosen


@dataclass(frozen=True)
class Model:
    """The modelled answer at one step; before anything is known, the gain alone."""

    known: Response | None = None
    inverse: Tensor | None = None

    def answer(self, move: Tensor) -> Tensor:
        """The change of the x0-prediction when the state moves by `move`."""
        answer = move * GAIN
        if self.known is None or self.inverse is None:
            return answer
        weights = (self.inverse @ self.known.resemblance(move)).to(answer)
        return answer + (weights @ self.known.rests[: len(weights)]).view_as(move)
