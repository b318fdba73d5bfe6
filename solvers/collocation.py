"""Collocation: evaluate the x0-prediction at few nodes, interpolate between them, and replay every step of the scheduler.

Along the trajectory of a good model the x0-prediction is a smooth curve, so that it is worth evaluating at few of the N
steps. Between nodes the scheduler's own steps are taken with the interpolated prediction: the result follows the N-step
trajectory, discretisation included, with far fewer than N evaluations; and an iteration over K nodes makes those in
parallel. This is modified Picard iteration with collocation, known from the parallel solution of ordinary differential
equations (Clenshaw and Norton, 1963; Bai and Junkins, 2011), with three things added:

- a prediction is not held while its state is corrected, but moved by a model of its Jacobian (`jacobian.py`, quasi-Newton);
  how well that is known decides how long a window can be, so that where the model is stiff more than half of many workers
  probe it,
- the distance to the next node is as long as the measured curvature of the prediction allows (`step_size.py`, the step-size
  control), less of it early on, where an error that nothing undoes grows with the picture, and
- the gap before the front is stepped again once the front is evaluated: a predictor-corrector method, which is all that is
  left of this with one worker. Where the prediction is far from what was foretold, half of the gap is taken instead, and
  gaps between nodes that turn out to bend too much are closed.

Here is the loop: evaluate the nodes and the probes, learn, correct the front and all states after it, move it, and choose
new nodes. Each round costs at most K evaluations; the last node is step N - 1, whose prediction is the picture. The memory
is eight latents a worker (a secant of two, a node's state, the one evaluated, its output and prediction, and what a step
takes), and with several workers the states between nodes, up to a third of N. `tuning.py` has the constants.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from genrun.solvers.contract import History, Point, Problem, Run
from genrun.solvers.jacobian import JacobianModel, LocalJacobian, log_snr
from genrun.solvers.step_size import Prediction, StepSizeController, has_stages, stage_gain, x0_weight
from genrun.solvers.trajectory import Trajectory, check_options, rms
from genrun.solvers.tuning import TUNING, Tuning
from genrun.solvers.window import Acceptance, freeze_x0

if TYPE_CHECKING:
    from genrun.solvers.shapes import Output, State


@dataclass(frozen=True)
class Collocation:
    """Quasi-Newton iteration over nodes whose distance follows the measured curvature; between them, interpolation.

    With `exact`, or at tolerance 0, every step is a node and the sequential trajectory is the only fixed point: met bit for
    bit at 0, and to within the tolerance with `exact` alone. Otherwise approximate: steps between nodes are never evaluated
    and count as `skipped`. Schedulers with stages (Heun) have no steps between nodes either; those that add noise in their
    steps (ancestral, SDE, DDPM) are sampled exactly.

    Attributes:
        workers: K, evaluations a round.
        tolerance: RMS error of the final latents to aim at, in their units; 0 is exact.
        spacing: steps from one node to the next; by the measured curvature if not given.
        probes: workers that probe the Jacobian instead of a node; by K if not given.
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

    def alternatives(self) -> list[Collocation]:
        """Return settings that may be faster at the same error, which is best differing by model: fewer probes or more."""
        if self.probes is not None or self.workers < 3:
            return []
        usual = usual_probes(self.workers)
        # Of eight 1, 3 and 5; without any none of the tuning models was sampled faster than with one.
        others = {1, (3 * usual + 1) // 2, 2 * usual + 1} - {usual}
        return [replace(self, probes=count) for count in sorted(others) if count < self.workers]

    def solve(self, problem: Problem) -> Run:
        """Sample one trajectory."""
        # Noise that steps add makes predictions jump: an error that settles is then no longer small, nor undone later.
        tolerance = 0.0 if problem.stochastic else self.tolerance
        dense = self.exact or tolerance == 0 or has_stages(problem)
        probes = self.probes if self.probes is not None else 0 if dense else usual_probes(self.workers)
        jacobian = JacobianModel([log_snr(problem, i) for i in range(problem.num_steps)], self.workers, problem.floor)
        spacing = 1 if dense else self.spacing
        return NodeWindow(
            problem,
            self.workers,
            probes,
            StepSizeController(problem, self.workers - probes, tolerance, spacing, jacobian.amplification),
            jacobian,
            Acceptance(problem, TUNING.settled_share * tolerance, "absolute"),
            self.max_rounds,
        ).run()


def usual_probes(workers: int) -> int:
    """Return how many of the workers probe: 2 of 8, 5 of 16, and none of less than five."""
    # The same at every tolerance, so that a larger one takes no more rounds. Twice as many from 0.05 on were better on the
    # demo models, and took a round more on a guided transformer that they were not tuned on, and on guided mixtures. Of two
    # workers none can: probes stand beside the second node of a window or a later one.
    return max(0, 5 * (workers - 2) // 6) // 2


@dataclass
class Node:
    """A step to evaluate.

    Attributes:
        index: the step.
        x: its state, as the last replay left it.
        evaluated: the state that was evaluated last, if any.
        x0: the prediction there.
        output: the model's output there, until the replay has passed.
    """

    index: int
    x: State
    evaluated: State | None = None
    x0: State | None = None
    output: Output | None = None

    @property
    def move(self) -> State | None:
        """Distance of the state from the one that was evaluated; None where none was, or where it is the same."""
        move = None if self.evaluated is None else self.x - self.evaluated
        return move if move is not None and bool(move.any()) else None


@dataclass
class NodeWindow:
    """A window of nodes sliding over one sample's trajectory, and probes of the Jacobian at its last node.

    Attributes:
        problem: the trajectory.
        workers: K, evaluations a round.
        probes: how many of them probe, where probing pays.
        spacing: the step-size control.
        jacobian: the model of the Jacobian.
        settled: the acceptance test.
        max_rounds: budget of rounds, after which the rest is stepped sequentially.
        tuning: constants.
        between: states of the last replay at steps between nodes, which the interpolated predictions there belong to.
        probing: how many workers probe now.
        crossed: the last final node, and the scheduler's memory there, if the front was reached from it on predictions that
            were extrapolated; None otherwise.
    """

    problem: Problem
    workers: int
    probes: int
    spacing: StepSizeController
    jacobian: JacobianModel
    settled: Acceptance
    max_rounds: int | None = None
    tuning: Tuning = TUNING
    between: dict[int, State] = field(default_factory=dict)
    probing: int = 0
    crossed: tuple[Node, History] | None = None

    def run(self) -> Run:
        """Sample the trajectory, one round a turn."""
        at = Trajectory(self.problem, self.max_rounds)
        nodes = [Node(0, at.x)]
        while not at.done and not at.spent:
            probes = self._probes(nodes)
            outputs = yield from at.ask([Point(node.index, node.x) for node in nodes] + probes)
            if self._too_far(nodes[0], outputs[0]):
                nodes = self._retreat(at, nodes[0])
                continue
            self._learn(nodes, probes, outputs)
            if at.rounds == 1 and (x0 := nodes[0].x0) is not None:
                self.jacobian.seed_directions(x0)
            del probes
            self._adapt(nodes)
            self._correct_front(at, nodes[0])
            nodes = self._replay(at, nodes)
        return (yield from at.finish())

    def _probes(self, nodes: list[Node]) -> list[Point]:
        """Return points beside the last node."""
        # There, because its state is the newest guess: what is learned will be used the longest.
        last = nodes[-1]
        count = self.workers - len(nodes) if self.probing and len(nodes) > 1 else 0
        directions = self.jacobian.probe_directions(count)
        size = self.tuning.probe_size * rms(last.x) if directions else 0.0
        states = [last.x + direction * size for direction in directions]
        return [Point(last.index, self.problem.hold(last.index, x)) for x in states]

    def _learn(self, nodes: list[Node], probes: list[Point], outputs: list[Output]) -> None:
        """Take the outputs in: predictions at nodes, and a secant from each node evaluated again and each probe."""
        self.jacobian.begin_round()
        looks: list[Prediction] = []
        for node in nodes:
            output = outputs.pop(0)
            x0, move = self.problem.predict_x0(node.index, node.x, output), node.move
            if node.x0 is not None and move is not None:
                self.jacobian.add_secant(node.index, move, x0 - node.x0)
            if self.spacing.lies_ahead(node.index):
                self.jacobian.add_first_look(x0 - self.spacing.foretold(node.index))
                looks.append((node.index, x0))
            node.evaluated, node.x0, node.output = node.x, x0, output
        self.spacing.learn_trend(looks)
        last = nodes[-1]
        for probe in probes:
            assert last.x0 is not None
            x0 = self.problem.predict_x0(probe.index, probe.x, outputs.pop(0))
            self.jacobian.add_secant(probe.index, probe.x - last.x, x0 - last.x0)

    def _adapt(self, nodes: list[Node]) -> None:
        """Probe where a held prediction would not do, and tell the step-size control how many nodes that leaves."""
        end = min(nodes[-1].index + 1, self.problem.num_steps)
        stiffness = self.jacobian.largest_gain * x0_weight(self.problem, nodes[0].index, end)
        self.probing = self.probes if stiffness >= self.tuning.stiff_gain else 0
        if not self.probing:
            self.jacobian.innovations.clear()  # which are kept to probe them
        self.spacing.workers = self.workers - self.probing

    def _too_far(self, front: Node, output: Output) -> bool:
        """Return True where the gap before the front was too long: what was foretold there misses the model's prediction."""
        if self.crossed is None or self.spacing.fixed is not None:
            return False
        left, most = self.crossed[0].index, self.tuning.most_missed * self.spacing.tolerance
        x0 = self.problem.predict_x0(front.index, front.x, output)
        missed = x0_weight(self.problem, left, front.index + 1) * rms(x0 - self.spacing.foretold(front.index))
        return missed > most * self.spacing.tolerance_share(front.index)

    def _retreat(self, at: Trajectory, front: Node) -> list[Node]:
        """Take half of the gap before the front instead: the step is rejected (Hairer, Norsett and Wanner, 1993, II.4)."""
        assert self.crossed is not None
        left, history = self.crossed
        middle = Node((left.index + front.index) // 2, left.x)
        assert left.x0 is not None
        middle.x, history = self._across(left, middle, left.x0, history, self.jacobian.at(left.index), keep=False)
        if middle.index == left.index + 1:
            self.crossed = None
        at.retreat(middle.index, middle.x, history)
        self.between.clear()
        return self._extend([middle], history)

    def _correct_front(self, at: Trajectory, front: Node) -> None:
        """Step again across the gap before the front, now that the predictions at both of its ends are known.

        It costs no evaluation: the corrector of a predictor-corrector method (Hairer, Norsett and Wanner, 1993, III.1; in
        samplers UniC: Zhao et al., 2023). The prediction at the front was made before, and follows by the model of J.
        """
        crossed, self.crossed = self.crossed, None
        # A prediction that turns back may be the model's answer to an error of its state. Where J is not known, that is
        # undone by stepping on with it, and made an error for good by the corrector.
        if crossed is None or front.x0 is None or not self.spacing.goes_on(front.index, front.x0):
            return
        left, history = crossed
        assert left.x0 is not None
        front.x, history = self._across(left, front, left.x0, history, self.jacobian.at(left.index), keep=False)
        at.correct(front.x, history)
        front.x0 = self._prediction(front, self.jacobian.at(front.index))
        front.evaluated, front.output = front.x, None

    def _replay(self, at: Trajectory, nodes: list[Node]) -> list[Node]:
        """Step from the front across the evaluated nodes and correct their states; returns the next window in their place.

        The first node that is not final is the new front.
        """
        chain = [*nodes, ahead := Node(nodes[-1].index + 1, at.x)]
        histories, residual, known = [at.history], 0.0, self.spacing.final
        strained: list[int] = []  # places of the nodes that gaps which turned out to be too long end at
        for place, (left, right) in enumerate(pairwise(chain)):
            jacobian = self.jacobian.at(left.index)
            x0 = self._prediction(left, jacobian)
            known = self.spacing.measure(known, left.index, x0)
            if place and self.spacing.too_long(chain[place - 1].index, left.index):
                strained.append(place)
            if right is ahead:
                right.index = self.spacing.next_node(left.index, ahead=True)
            right.x, history = self._across(left, right, x0, histories[-1], jacobian)
            histories.append(history)
            residual = max(residual, 0.0 if right.move is None else rms(right.move))
        middles = self._middles(chain, strained)
        first = self._front(chain, histories, min(strained, default=len(chain)))
        self._accept(at, nodes, chain[first], histories[first], residual)
        left = chain[first - 1]
        if chain[first].evaluated is None and chain[first].index > left.index + 1:
            prediction = self._prediction(left, self.jacobian.at(left.index))
            self.crossed = Node(left.index, left.x, left.x, prediction), histories[first - 1]
        window = chain[first:] + [node for node in middles if node.index > chain[first].index]
        window.sort(key=lambda node: node.index)
        nodes[:] = [node for node in window if node.index < self.problem.num_steps][: self.workers]
        del known, chain, middles, window  # so that nothing holds the states of nodes that are final
        return self._extend(nodes, histories[-1])

    def _middles(self, chain: list[Node], strained: list[int]) -> list[Node]:
        """Return nodes in the middle of gaps that are too long, given the places in the chain of the gaps' ends."""
        # All of them, not the first alone: closed one by one they would cost a round each.
        middles = [(chain[place - 1].index + chain[place].index) // 2 for place in strained]
        return [Node(index, self.between[index]) for index in middles]

    def _front(self, chain: list[Node], histories: list[History], strained: int) -> int:
        """Return the place in the chain of the new front: the first node that is not final.

        Where too much of the prediction on the way to that node is unknown, the front is the step after the last final node,
        which is inserted: an unsettled node made the front has been as far off as 3.7 tolerances. So it is where a gap
        has turned out to be too long; `strained` is the place where the first such gap ends.
        """
        first = next((k for k, node in enumerate(chain) if k and not self._final(node, chain[-1])), len(chain) - 1)
        first = min(first, strained)
        left = chain[first - 1]
        if first == strained or not self._usable(left, chain[first]):
            jacobian, step = self.jacobian.at(left.index), Node(left.index + 1, left.x)
            prediction = self._prediction(left, jacobian)
            step.x, history = self._across(left, step, prediction, histories[first - 1], jacobian)
            chain.insert(first, step)
            histories.insert(first, history)
        return first

    def _final(self, node: Node, end: Node) -> bool:
        """Return True when a node is settled: its last move small, and what that leaves unknown of the window's end too."""
        if node.move is None:
            return True
        unknown = self.jacobian.misfit * x0_weight(self.problem, node.index, end.index)
        gain = max(1.0, unknown, stage_gain(self.problem, node.index))
        return self.settled(node.index, node.move * (gain / self.spacing.tolerance_share(node.index)))

    def _usable(self, left: Node, right: Node) -> bool:
        """Return True when a node that is not settled can be the front: little is unknown of the prediction up to it."""
        if right.move is None or right.index == left.index + 1:
            return True
        # Interpolation brings in the right node's prediction, wrong by the misfit, by half in the mean over the gap.
        unknown = self.jacobian.misfit * x0_weight(self.problem, left.index, right.index) / 2
        return self.settled(right.index, right.move * (unknown / self.spacing.tolerance_share(right.index)))

    def _across(
        self, left: Node, right: Node, x0: State, history: History, jacobian: LocalJacobian, *, keep: bool = True
    ) -> tuple[State, History]:
        """Take all steps from a node that predicts `x0` to the next; returns the state there, and the history.

        With `keep` the states on the way are kept, for predictions there to follow them.
        """
        x, output, left.output = left.x, left.output, None
        if output is None or left.move is not None:
            output = self.problem.from_x0(left.index, x, x0)
        x, history = self.problem.step(left.index, x, output, history)
        for index in range(left.index + 1, right.index):
            x0 = self._interpolated(left, right, index, x, jacobian)
            if keep and self.workers > 1:  # one alone makes the far end its front, and comes here no more
                self.between[index] = x
            x, history = self.problem.step(index, x, self.problem.from_x0(index, x, x0), history)
        return x, history

    def _prediction(self, node: Node, jacobian: LocalJacobian) -> State:
        """Return X0 at a node whose state may have moved since it was evaluated."""
        assert node.x0 is not None
        move = node.move
        return node.x0 if move is None else jacobian.apply(move).add_(node.x0)

    def _interpolated(self, left: Node, right: Node, index: int, x: State, jacobian: LocalJacobian) -> State:
        """Return X0 at a step between two nodes, or beyond the left one where the right one has not been evaluated."""
        assert left.x0 is not None
        x0, known = left.x0, self.between.get(index)
        change = None if known is None else jacobian.apply(x - known)
        if right.x0 is not None:
            x0 = x0 + (right.x0 - x0) * ((index - left.index) / (right.index - left.index))
        else:
            x0 = self.spacing.foretold(index)
        return x0 if change is None else change.add_(x0)

    def _accept(self, at: Trajectory, nodes: list[Node], front: Node, history: History, residual: float) -> None:
        """Make a node the front; what lies before it is final."""
        passed = [node for node in nodes if node.index < front.index]
        at.skipped += front.index - at.front - len(passed)
        at.accept(front.index, front.x, history, residual)
        for node in passed:
            assert node.x0 is not None
            self.spacing.keep_final(node.index, node.x0)
        self.between = {index: x for index, x in self.between.items() if index > front.index}

    def _extend(self, nodes: list[Node], history: History) -> list[Node]:
        """Fill the window from its last node, whose history is given, with predictions that are foretold."""
        while nodes and len(nodes) < self.workers - self.probing and nodes[-1].index < self.problem.num_steps - 1:
            last = nodes[-1]
            x, stop = last.x, self.spacing.next_node(last.index)
            for index in range(last.index, stop):
                if index > last.index:
                    self.between[index] = x
                x, history = freeze_x0(self.problem, index, x, history, self.spacing.foretold(index))
            nodes.append(Node(stop, x))
        return nodes
