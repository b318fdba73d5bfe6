"""Collocation: evaluate the x0-prediction at few nodes, interpolate between them, and replay every step of the scheduler.

Along the trajectory of a good model the x0-prediction is a smooth curve, so that it is worth evaluating at few of the N
steps. Between nodes the scheduler's own steps are taken with the interpolated prediction: the result follows the N-step
trajectory, discretisation included, with far fewer than N evaluations; and an iteration over K nodes makes those in
parallel. This is modified Picard iteration with collocation, known from the parallel solution of ordinary differential
equations (Clenshaw and Norton, 1963; Bai and Junkins, 2011), with two things added:

- a prediction is not held while its state is corrected, but moved by what `Response` has learned of its Jacobian
  (quasi-Newton); how well that is known decides how long a window can be, so that where the model is stiff more than half
  of many workers probe it, and
- the distance to the next node is as long as the measured curvature of the prediction allows, less of it early on, where an
  error that nothing undoes grows with the picture.

Each round costs at most K evaluations; the last node is step N - 1, whose prediction is the picture. The memory is eight
latents a worker: a secant of two, a node's state, the one evaluated, its output and prediction, and states between nodes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from genrun.solvers.contract import History, Point, Problem, Run
from genrun.solvers.nodes import LOOSE, Spacing, x0_share
from genrun.solvers.response import Model, Response, log_snr
from genrun.solvers.sweep import Acceptance
from genrun.solvers.trajectory import Trajectory, check_options, rms
from genrun.solvers.window import freeze_x0

if TYPE_CHECKING:
    from torch import Tensor

SETTLED = 0.7
"""RMS change of a state that counts as settled, as a share of the tolerance."""
PROBE = 0.05
"""RMS of a probe's move, as a share of the state's."""
STIFF = 0.2
"""How much of an error in the state has to come back over a window, for knowing the Jacobian to be worth probes."""


@dataclass(frozen=True)
class Collocation:
    """Quasi-Newton iteration over nodes whose distance follows the measured curvature; between them, interpolation.

    With `exact`, or at tolerance 0, every step is a node and the sequential trajectory is the only fixed point. Otherwise
    approximate: steps between nodes are never evaluated and count as `skipped`. Schedulers with stages (Heun) have no steps
    between nodes either; those that add noise in their steps (ancestral, SDE, DDPM) are sampled exactly.

    Attributes:
        workers: K, evaluations a round.
        tolerance: RMS error of the final latents to aim at, in their units; 0 is exact.
        spacing: steps from one node to the next; by the measured curvature if not given.
        probes: workers that probe the Jacobian instead of a node; by K and tolerance if not given.
        exact: make every step a node.
        max_rounds: rounds after which the rest is stepped sequentially.
    """

    workers: int = 8
    tolerance: float = 0.05
    spacing: int | None = None
    probes: int | None = None
    exact: bool = False
    max_rounds: int | None = None

    def __post_init__(self) -> None:
        check_options(self.workers, self.tolerance, self.max_rounds)
        if self.spacing is not None and self.spacing < 1:
            raise ValueError(f"spacing: must be at least 1, got {self.spacing}")
        if self.probes is not None and not 0 <= self.probes < self.workers:
            raise ValueError(f"probes: must be from 0 to workers - 1, which is {self.workers - 1}, got {self.probes}")

    def solve(self, problem: Problem) -> Run:
        """Sample one trajectory."""
        # Noise that steps add makes predictions jump: an error that settles is then no longer small, nor undone later.
        tolerance = 0.0 if problem.stochastic else self.tolerance
        dense = self.exact or tolerance == 0 or has_stages(problem)
        probes = self.probes if self.probes is not None else 0 if dense else usual_probes(self.workers, tolerance)
        spacing = Spacing(problem, self.workers - probes, tolerance, 1 if dense else self.spacing)
        settled = Acceptance(problem, SETTLED * tolerance, absolute=True)
        return NodeWindow(problem, self.workers, probes, spacing, settled, self.max_rounds).run()


def usual_probes(workers: int, tolerance: float) -> int:
    """1 of 4 workers, 5 of 8, 11 of 16; half of that where nodes have to be so close that more of them are worth more."""
    probes = max(0, 5 * (workers - 2) // 6)
    return probes if tolerance >= LOOSE else probes // 2


def has_stages(problem: Problem) -> bool:
    """Whether steps come in stages at one noise level, as Heun's do: a stage left out would be no step at all."""
    sigmas = [problem.sigma(index) for index in range(problem.num_steps)]
    return any(after >= before for before, after in pairwise(sigmas))


@dataclass
class Node:
    """A step to evaluate.

    Attributes:
        index: the step.
        x: its state, as the last replay left it.
        seen: the state that was evaluated last, if any.
        x0: the prediction there.
        expected: the prediction that its state was made with, until it is evaluated.
        output: the model's output there, until the replay has passed.
    """

    index: int
    x: Tensor
    seen: Tensor | None = None
    x0: Tensor | None = None
    expected: Tensor | None = None
    output: Tensor | None = None

    @property
    def move(self) -> Tensor | None:
        """How far the state is from the one that was evaluated; None where none was, or where it is the same."""
        move = None if self.seen is None else self.x - self.seen
        return move if move is not None and bool(move.any()) else None


@dataclass
class NodeWindow:
    """A window of nodes sliding over one sample's trajectory, and probes of the Jacobian at its last node.

    `between` holds the states of the last replay at the steps between nodes: those that interpolated predictions belong to.
    """

    problem: Problem
    workers: int
    probes: int
    spacing: Spacing
    settled: Acceptance
    max_rounds: int | None = None
    between: dict[int, Tensor] = field(default_factory=dict)
    probing: int = 0

    def run(self) -> Run:
        """Solve: one round a turn."""
        at = Trajectory(self.problem, self.max_rounds)
        levels = [log_snr(self.problem, index) for index in range(self.problem.num_steps)]
        response = Response(levels, self.workers, self.problem.floor)
        nodes = [Node(0, at.x)]
        while not at.done and not at.spent:
            probes = self._probe(nodes, response)
            outputs = yield from at.ask([Point(node.index, node.x) for node in nodes] + probes)
            response.begin_round()
            for node in nodes:
                self._look(node, outputs.pop(0), response)
            self._compare(nodes[-1], probes, outputs, response)
            if at.rounds == 1 and (x0 := nodes[0].x0) is not None:
                response.begin(x0)
            del probes
            self._adapt(nodes, response)
            nodes = self._replay(at, nodes, response)
        return (yield from at.finish())

    def _probe(self, nodes: list[Node], response: Response) -> list[Point]:
        """Points beside the last node. Its state is the newest guess, so what is learned there will be used the longest."""
        last = nodes[-1]
        count = self.workers - len(nodes) if self.probing and len(nodes) > 1 else 0
        directions = response.directions(count)
        size = PROBE * rms(last.x) if directions else 0.0
        states = [last.x + direction * size for direction in directions]
        return [Point(last.index, self.problem.hold(last.index, x)) for x in states]

    def _adapt(self, nodes: list[Node], response: Response) -> None:
        """Probe where a held prediction would not do, and go by trends where predictions are not corrected, or run along."""
        end = min(nodes[-1].index + 1, self.problem.num_steps)
        stiffness = response.gain * x0_share(self.problem, nodes[0].index, end)
        self.probing = self.probes if stiffness >= STIFF else 0
        self.spacing.workers = self.workers - self.probing
        self.spacing.lasting = not response.runs_against
        self.spacing.steady = self.workers == 1 or response.runs_along

    def _look(self, node: Node, output: Tensor, response: Response) -> None:
        """Take an output in, and a secant if the node was evaluated before."""
        x0, move = self.problem.predict_x0(node.index, node.x, output), node.move
        if node.x0 is not None and move is not None:
            response.observe(node.index, move, x0 - node.x0)
        if node.expected is not None:
            response.hear(x0 - node.expected)
            node.expected = None
        node.seen, node.x0, node.output = node.x, x0, output

    def _compare(self, node: Node, probes: list[Point], outputs: list[Tensor], response: Response) -> None:
        """Take a secant from each probe beside a node."""
        for probe in probes:
            assert node.x0 is not None
            x0 = self.problem.predict_x0(probe.index, probe.x, outputs.pop(0))
            response.observe(probe.index, probe.x - node.x, x0 - node.x0)

    def _replay(self, at: Trajectory, nodes: list[Node], response: Response) -> list[Node]:
        """Step from the front across the evaluated nodes and correct their states; returns the next window in their place.

        The first node that is not final is the new front.
        """
        chain = [*nodes, Node(self.spacing.after(nodes[-1].index, ahead=True), at.x)]
        histories, residual, trail, x0 = [at.history], 0.0, self.spacing.settled, at.x
        for left, right in pairwise(chain):
            model = response.at(left.index)
            x0 = self._prediction(left, model)
            trail = self.spacing.follow(trail, left.index, x0)
            right.x, history = self._across(left, right, x0, histories[-1], model)
            histories.append(history)
            residual = max(residual, 0.0 if right.move is None else rms(right.move))
        first = self._front(chain, histories, response)
        self._accept(at, nodes, chain[first], histories[first], residual)
        start = nodes[-1].index
        nodes[:] = [node for node in chain[first:] if node.index < self.problem.num_steps][: self.workers]
        del trail, chain
        return self._extend(nodes, histories[-1], x0, start)

    def _front(self, chain: list[Node], histories: list[History], response: Response) -> int:
        """Place in the chain of the first node that is not final, or of the step before it that nothing is unknown of."""
        first = next(
            (k for k, node in enumerate(chain) if k and not self._final(node, chain[-1], response)), len(chain) - 1
        )
        left = chain[first - 1]
        if not self._usable(left, chain[first], response):
            model, step = response.at(left.index), Node(left.index + 1, left.x)
            step.x, history = self._across(left, step, self._prediction(left, model), histories[first - 1], model)
            chain.insert(first, step)
            histories.insert(first, history)
        return first

    def _usable(self, left: Node, right: Node, response: Response) -> bool:
        """Whether a node that is not settled can be the front: its prediction, unknown in part, came in on the way to it."""
        if right.move is None or right.index == left.index + 1:
            return True
        unknown = response.misfit * x0_share(self.problem, left.index, right.index) / 2
        return self.settled(right.index, right.move * (unknown / self.spacing.allowance(right.index)))

    def _final(self, node: Node, end: Node, response: Response) -> bool:
        """Whether a node's state is settled: its last move small, and what that leaves unknown of the window's end too."""
        if node.move is None:
            return True
        unknown = response.misfit * x0_share(self.problem, node.index, end.index)
        return self.settled(node.index, node.move * (max(1.0, unknown) / self.spacing.allowance(node.index)))

    def _across(self, left: Node, right: Node, x0: Tensor, history: History, model: Model) -> tuple[Tensor, History]:
        """All steps from a node that predicts `x0` to the next: the state there, and the history."""
        x, output, left.output = left.x, left.output, None
        if output is None or left.move is not None:
            output = self.problem.from_x0(left.index, x, x0)
        x, history = self.problem.step(left.index, x, output, history)
        for index in range(left.index + 1, right.index):
            x0 = self._interpolated(left, right, index, x, model)
            self.between[index] = x
            x, history = self.problem.step(index, x, self.problem.from_x0(index, x, x0), history)
        return x, history

    def _prediction(self, node: Node, model: Model) -> Tensor:
        """X0 at a node whose state may have moved since it was evaluated."""
        assert node.x0 is not None
        move = node.move
        return node.x0 if move is None else model.answer(move).add_(node.x0)

    def _interpolated(self, left: Node, right: Node, index: int, x: Tensor, model: Model) -> Tensor:
        """X0 at a step between two nodes; held where the right one has not been evaluated."""
        assert left.x0 is not None
        x0, known = left.x0, self.between.get(index)
        answer = None if known is None else model.answer(x - known)
        if right.x0 is not None:
            x0 = x0 + (right.x0 - x0) * ((index - left.index) / (right.index - left.index))
        else:
            x0 = self.spacing.carried(x0, index - left.index)
        return x0 if answer is None else answer.add_(x0)

    def _accept(self, at: Trajectory, nodes: list[Node], front: Node, history: History, residual: float) -> None:
        """Make a node the front; what lies before it is final."""
        passed = [node for node in nodes if node.index < front.index]
        at.skipped += front.index - at.front - len(passed)
        at.accept(front.index, front.x, history, residual)
        for node in passed:
            assert node.x0 is not None
            self.spacing.settle(node.index, node.x0)
        self.between = {index: x for index, x in self.between.items() if index > front.index}

    def _extend(self, nodes: list[Node], history: History, x0: Tensor, start: int) -> list[Node]:
        """Fill the window by stepping on with X0 carried on from step `start`; `history` belongs to the last of `nodes`."""
        while nodes and len(nodes) < self.workers - self.probing and nodes[-1].index < self.problem.num_steps - 1:
            last = nodes[-1]
            x, stop = last.x, self.spacing.after(last.index)
            for index in range(last.index, stop):
                if index > last.index:
                    self.between[index] = x
                x, history = freeze_x0(self.problem, index, x, history, self.spacing.carried(x0, index - start))
            nodes.append(Node(stop, x, expected=self.spacing.carried(x0, stop - start)))
        return nodes
