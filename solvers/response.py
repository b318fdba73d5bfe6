"""How the x0-prediction answers a move of the state: secants, measured for free whenever a step is evaluated again.

A node's prediction is asked at a state that is still wrong. What is wanted is the prediction at the corrected state, and
holding it still is a poor guess: guidance makes it 5 C - 4 U of a conditional and an unconditional prediction, and since the
unconditional one follows the state the more, the guided one runs against the move, several times its size. The trajectory
itself is smooth and strongly contracting there, yet Picard iteration overshoots: a stiff problem. So the answer is modelled
by the last moves s of this node and of its neighbours and the answers y that were seen (multisecant quasi-Newton: Fang and
Saad, 2009; Anderson, 1965), on top of a gain b for the rest:

    x0(x + d) - x0(x)  ~  b d + sum_k w_k (y_k - b s_k),     w = argmin |d - sum_k w_k s_k|^2, with a ridge.

It changes how fast an iteration converges, never to what: at d = 0 it is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from genrun.solvers.trajectory import rms

if TYPE_CHECKING:
    from torch import Tensor

RIDGE = 1e-2
NEIGHBOURS = 4
REACH = 4
"""Nodes on either side whose secants are used."""
BASE_GAIN = 0.3
"""Gain where nothing is known: between 0 at high noise and 1 at none, for moves that no stiffness resists."""
DOUBT = 3.0
"""Secants that weigh as much as BASE_GAIN does, for a node that has none of its own."""


@dataclass(frozen=True)
class Secant:
    """A move s of a node's state, and the answer y of its x0-prediction.

    Attributes:
        place: the node's place among all nodes, which says how near another is.
        round: when it was measured.
        move: s / |s|.
        answer: y / |s|.
        length: |s|, as an RMS.
    """

    place: int
    round: int
    move: Tensor
    answer: Tensor
    length: float

    @property
    def gain(self) -> float:
        """The part of the answer along the move."""
        return mean_product(self.move, self.answer)


@dataclass
class Response:
    """The secants of one sample's window, the latest of each node."""

    floor: float
    round: int = 0
    secants: dict[int, Secant] = field(default_factory=dict)

    def observe(self, place: int, move: Tensor, answer: Tensor) -> None:
        """Learn a secant, unless the move is too small to tell anything."""
        length = rms(move)
        if length > self.floor:
            self.secants[place] = Secant(place, self.round, move / length, answer / length, length)

    def begin_round(self, place: int) -> None:
        """Count the round, and drop what was learned behind its first node's neighbour."""
        self.round += 1
        self.secants = {p: s for p, s in self.secants.items() if p >= place - 1}

    def at(self, place: int) -> Model:
        """The model of the answer near a node."""
        near = sorted(self.secants.values(), key=lambda s: (abs(s.place - place), -s.round))
        near = [s for s in near if abs(s.place - place) <= REACH][: NEIGHBOURS + 1]
        own = place in self.secants
        return Model(near, BASE_GAIN if own else self._pooled(near))

    def _pooled(self, near: Sequence[Secant]) -> float:
        """Gain of a node that was seen once: that of the secants near it, the less doubted the more of them are recent."""
        weight = sum(s.length**2 for s in near)
        if not weight:
            return BASE_GAIN
        pooled = sum(s.gain * s.length**2 for s in near) / weight
        recent = sum(s.round >= self.round - 1 for s in near)
        return BASE_GAIN + (pooled - BASE_GAIN) * recent / (recent + DOUBT)


@dataclass
class Model:
    """The modelled answer near one node."""

    secants: Sequence[Secant]
    gain: float
    inverse: Tensor | None = None

    def answer(self, move: Tensor) -> Tensor:
        """The change of the x0-prediction when the state moves by `move`."""
        answer = move * self.gain
        for weight, secant in zip(self._weights(move), self.secants, strict=True):
            answer = answer + (secant.answer - secant.move * self.gain) * weight
        return answer

    def _weights(self, move: Tensor) -> list[float]:
        if not self.secants:
            return []
        if self.inverse is None:
            rows = [[mean_product(a.move, b.move) + RIDGE * (a is b) for b in self.secants] for a in self.secants]
            self.inverse = move.new_tensor(rows, device="cpu").double().inverse()
        against = self.inverse.new_tensor([mean_product(s.move, move) for s in self.secants])
        return (self.inverse @ against).tolist()


def mean_product(a: Tensor, b: Tensor) -> float:
    """Inner product over the number of elements."""
    return float((a * b).mean())
