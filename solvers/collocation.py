"""Collocation: evaluate the x0-prediction at few nodes, interpolate between them, and replay every step of the scheduler.

Along the trajectory of a good model the x0-prediction is a smooth curve, so that it is worth evaluating at few of the N
steps. Between nodes the scheduler's own steps are taken with the interpolated prediction: the result follows the N-step
trajectory, discretisation included, with far fewer than N evaluations; and Picard iteration over K nodes makes those in
parallel. This is modified Picard iteration with collocation, known from the parallel solution of ordinary differential
equations (Clenshaw and Norton, 1963; Bai and Junkins, 2011).

While a state moves, its x0-prediction is held.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from genrun.solvers.contract import History, Point, Problem, Run
from genrun.solvers.sweep import Acceptance
from genrun.solvers.trajectory import Trajectory, check_options, rms

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Collocation:
    """Picard iteration over nodes every `spacing` steps, with the steps between them interpolated.

    With `exact`, or at tolerance 0, every step is a node and the sequential trajectory is the only fixed point. Otherwise
    approximate: steps between nodes are never evaluated and count as `skipped`.

    Attributes:
        workers: K, nodes evaluated a round.
        tolerance: RMS change in the latents' units below which a node is settled; 0 is exact.
        spacing: steps from one node to the next.
        exact: make every step a node.
        max_rounds: rounds after which the rest is stepped sequentially.
    """

    workers: int = 8
    tolerance: float = 0.08
    spacing: int = 2
    exact: bool = False
    max_rounds: int | None = None

    def __post_init__(self) -> None:
        check_options(self.workers, self.tolerance, self.max_rounds)
        if self.spacing < 1:
            raise ValueError(f"spacing: must be at least 1, got {self.spacing}")

    def solve(self, problem: Problem) -> Run:
        """Sample one trajectory."""
        dense = self.exact or self.tolerance == 0
        return NodeWindow(problem, self, place_nodes(problem.num_steps, 1 if dense else self.spacing)).run()


def place_nodes(num_steps: int, spacing: int) -> list[int]:
    """Every `spacing`-th step, and the last one."""
    return sorted({*range(0, num_steps, spacing), num_steps - 1})


@dataclass(frozen=True)
class Seen:
    """A node's evaluation: the state x that was asked, the model's output there, and its x0-prediction."""

    x: Tensor
    output: Tensor
    x0: Tensor


@dataclass
class NodeWindow:
    """A window of K nodes sliding over one sample's trajectory."""

    problem: Problem
    options: Collocation
    nodes: list[int]

    def run(self) -> Run:
        """Solve: one round a turn."""
        at = Trajectory(self.problem, self.options.max_rounds)
        first, states = 0, [at.x]
        while not at.done and not at.spent:
            outputs = yield from at.ask([Point(self.nodes[first + k], x) for k, x in enumerate(states)])
            first, states = self._replay(at, first, states, outputs)
        return (yield from at.finish())

    def _replay(
        self, at: Trajectory, first: int, states: list[Tensor], outputs: list[Tensor]
    ) -> tuple[int, list[Tensor]]:
        """Step from the front with what was learned; returns the first node of the next window, and its states.

        A node is settled when its state moves by no more than the tolerance; the first unsettled one becomes the front.
        """
        settled = Acceptance(self.problem, self.options.tolerance, absolute=True)
        x, history, residual = at.x, at.history, 0.0
        accepted: tuple[int, Tensor, History] | None = None
        right = self._see(first, states.pop(0), outputs.pop(0))
        corrected: list[Tensor] = []
        node = first
        while True:
            left, right = right, self._see(node + 1, states.pop(0), outputs.pop(0)) if states else None
            corrected.append(x)
            x, history = self._across(node, x, history, left, right)
            node += 1
            if right is None:
                break
            residual = max(residual, rms(x - right.x))
            if accepted is None and not settled(self.nodes[node], x - right.x):
                accepted = (node, x, history)
        front, x_front, front_history = accepted or (node, x, history)
        self._accept(at, front, x_front, front_history, residual)
        if at.done:
            return front, []
        corrected = [*corrected[front - first :], x]
        return front, self._extend(front, corrected, history, left.x0)

    def _see(self, node: int, x: Tensor, output: Tensor) -> Seen:
        index = self.nodes[node]
        return Seen(x, output, self.problem.predict_x0(index, x, output))

    def _across(self, node: int, x: Tensor, history: History, left: Seen, right: Seen | None) -> tuple[Tensor, History]:
        """All steps from a node to the next, with X0 interpolated between the two where the next is known."""
        for index in self._steps(node):
            if index == self.nodes[node] and not bool((x - left.x).any()):
                output = left.output
            else:
                x0 = left.x0
                if right is not None:
                    weight = (index - self.nodes[node]) / len(self._steps(node))
                    x0 = x0 + (right.x0 - x0) * weight
                output = self.problem.from_x0(index, x, x0)
            x, history = self.problem.step(index, x, output, history)
        return x, history

    def _extend(self, first: int, states: list[Tensor], history: History, x0: Tensor) -> list[Tensor]:
        """Fill the window up to K nodes by stepping on with X0 frozen; the last of `states` belongs to `history`."""
        width = min(self.options.workers, len(self.nodes) - first)
        del states[width:]
        while len(states) < width:
            x = states[-1]
            for index in self._steps(first + len(states) - 1):
                x, history = self.problem.step(index, x, self.problem.from_x0(index, x, x0), history)
            states.append(x)
        return states

    def _accept(self, at: Trajectory, node: int, x: Tensor, history: History, residual: float) -> None:
        before = at.front
        front = self.nodes[node] if node < len(self.nodes) else self.problem.num_steps
        at.accept(front, x, history, residual)
        at.skipped += front - before - sum(before <= i < front for i in self.nodes)

    def _steps(self, node: int) -> range:
        last = self.nodes[node + 1] if node + 1 < len(self.nodes) else self.problem.num_steps
        return range(self.nodes[node], last)
