"""SRDS: pipelined parareal over sqrt(N) blocks of the trajectory.

Selvam, Merchant and Ermon, "Self-Refining Diffusion Samplers: Enabling Parallelization via Parareal Iterations", NeurIPS
2024, https://arxiv.org/abs/2412.08292.

With block boundaries b_0 = 0 < b_1 < .. < b_B = N, sweep p + 1 is

    X_{j+1}^{p+1} = F(X_j^p) + G(X_j^{p+1}) - G(X_j^p),      X_{j+1}^0 = G(X_j^0),

where the fine solver F takes every step of block j, and the coarse solver G takes the block in one stride from one
evaluation: that of F's own first step, so that G is for free. X_j^p is exact from p = j on, and all is after B sweeps.

No sweep waits for the one before: F(X_j^p) is a chain of evaluations that begins as soon as X_j^p is known, and a round
holds the next one of each of up to K chains, those nearest to the front first. The chain that is known to be exact is the
front, and always among them.

Here acceptance goes by prefix: where an exact boundary state agrees, to within the tolerance, with one that a chain ahead
began with, that chain becomes the front. G of a multistep or stochastic scheduler is its steps with the x0-prediction frozen
(`leap`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isqrt
from typing import TYPE_CHECKING, get_args

from genrun.solvers.contract import History, Point, Problem, Run
from genrun.solvers.trajectory import Trajectory, check_choice, check_options, rms, same_history
from genrun.solvers.window import Acceptance, Scale, leap

if TYPE_CHECKING:
    from genrun.solvers.shapes import Output, State


@dataclass(frozen=True)
class Srds:
    """Parareal over sqrt(N) blocks, pipelined: fine chains of all sweeps advance side by side, K a round.

    Converges to the sequential trajectory; at most N rounds of K evaluations. Holds three states a chain, of which there
    are about as many as blocks.

    Attributes:
        workers: K, chains that advance in a round.
        tolerance: RMS change of a block's first state, in the units of `scale`, below which it is settled; 0 is exact.
        blocks: number of blocks (default: the square root of N, rounded up).
        max_rounds: rounds after which the rest is stepped sequentially.
        scale: unit of the tolerance: step (the deviation of one DDPM step), noise (sigma_i), absolute, or rmse (the latents'
            deviation).
    """

    workers: int = 8
    tolerance: float = 0.09
    blocks: int | None = None
    max_rounds: int | None = None
    scale: Scale = "absolute"

    def __post_init__(self) -> None:
        check_options(self.workers, self.tolerance, self.max_rounds)
        check_choice("scale", self.scale, get_args(Scale))
        if self.blocks is not None and self.blocks < 1:
            raise ValueError(f"blocks: must be at least 1, got {self.blocks}")

    def solve(self, problem: Problem) -> Run:
        """Sample one trajectory."""
        settled = Acceptance(problem, self.tolerance, self.scale)
        return Pipeline(problem, self, boundaries(problem.num_steps, self.blocks), settled).run()


def boundaries(num_steps: int, blocks: int | None = None) -> list[int]:
    """Return b_0 = 0 .. b_B = N, evenly spaced: B = ceil(sqrt(N)) unless given, and at most N."""
    count = min(blocks or isqrt(num_steps - 1) + 1, num_steps)
    return [j * num_steps // count for j in range(count + 1)]


@dataclass
class Chain:
    """F(X_j^p) on its way: the fine steps of a block from one of its first states.

    Attributes:
        block: j.
        sweep: p.
        start: X_j^p.
        before: the scheduler's memory there.
        index: the next step to evaluate; b_{j+1} when done.
        x: the state there, in the end F(X_j^p).
        history: the scheduler's memory there.
        coarse: G(X_j^p), once the first evaluation is made.
    """

    block: int
    sweep: int
    start: State
    before: History
    index: int
    x: State
    history: History
    coarse: State | None = None


@dataclass
class Pipeline:
    """The chains of one sample.

    Attributes:
        problem: the trajectory.
        options: the solver's.
        edges: b_0 .. b_B.
        settled: the acceptance test.
        chains: by block, in each the oldest first.
        residual: largest RMS change of this round between two states that a block begins with.
    """

    problem: Problem
    options: Srds
    edges: list[int]
    settled: Acceptance
    chains: list[list[Chain]] = field(default_factory=list)
    residual: float = 0.0

    def run(self) -> Run:
        """Sample the trajectory, one round a turn, in at most N rounds."""
        at = Trajectory(self.problem, self.options.max_rounds)
        self.chains = [[] for _ in self.edges[1:]]
        front = self._begin(0, at.x, at.history)
        while not at.done and not at.spent:
            chosen = self._choose(front)
            outputs = yield from at.ask([Point(chain.index, chain.x) for chain in chosen])
            self.residual = 0.0
            for chain in chosen:
                self._advance(chain, outputs.pop(0))
            self._correct()
            front = self._move(front)
            at.accept(front.index, front.x, front.history, self.residual)
        return (yield from at.finish())

    def _begin(self, block: int, start: State, history: History) -> Chain:
        """Begin a chain from a new first state of a block, in the place of one that has not been evaluated yet."""
        chains = self.chains[block]
        if chains and chains[-1].coarse is None:
            chains.pop()
        sweep = chains[-1].sweep + 1 if chains else 0
        chain = Chain(block, sweep, start, history, self.edges[block], start, history)
        chains.append(chain)
        return chain

    def _choose(self, front: Chain) -> list[Chain]:
        """Return the chains to advance: the front, then by block and sweep, no two at the same step."""
        waiting = [c for chains in self.chains for c in chains if c is not front and not self._done(c)]
        chosen = {front.index: front}
        for chain in sorted(waiting, key=lambda c: (c.block, c.sweep)):
            if len(chosen) < self.options.workers:
                chosen.setdefault(chain.index, chain)
        return list(chosen.values())

    def _advance(self, chain: Chain, output: Output) -> None:
        """Take one fine step; with the first of a block, its coarse stride."""
        problem, end = self.problem, self.edges[chain.block + 1]
        if chain.coarse is None:
            x0 = problem.predict_x0(chain.index, chain.x, output)
            self.settled.learn(x0)
            chain.coarse, history = leap(problem, chain.index, end, chain.x, chain.history, x0)
            if chain.sweep == 0 and end < problem.num_steps:
                self._begin(chain.block + 1, chain.coarse, history)
        chain.x, chain.history = problem.step(chain.index, chain.x, output, chain.history)
        chain.index += 1

    def _correct(self) -> None:
        """Apply parareal's rule to every chain that is done: begin the next block from its end, corrected by G - G."""
        for chains in self.chains[:-1]:
            while len(chains) > 1 and self._done(chains[0]):
                done, later = chains[:2]
                if done.coarse is None or later.coarse is None:
                    break
                x, history, correction = done.x, done.history, later.coarse - done.coarse
                if bool(correction.any()):  # else they are those of the fine steps, to the last bit
                    x = self.problem.hold(done.index, x + correction)
                    history = self.problem.moved(done.index, history, correction)
                self._begin(done.block + 1, x, history)
                del chains[0]

    def _move(self, front: Chain) -> Chain:
        """Return the front after this round: gone on into the next block, or a chain ahead that began where it now is."""
        while self._done(front) and front.index < self.problem.num_steps:
            self.chains[front.block].clear()
            front = self._adopt(front.block + 1, front.x, front.history)
        chains = self.chains[front.block]
        # A chain that is not ahead of the front, which is exact, has nothing to add to it.
        chains[:] = [c for c in chains if c is front or c.index > front.index]
        return front

    def _adopt(self, block: int, x: State, history: History) -> Chain:
        """Return the chain furthest ahead in a block that began with its exact first state; a new one if there is none."""
        for chain in self.chains[block]:
            change = x - chain.start
            agree = self.settled(chain.index, change)
            if self.options.tolerance == 0:  # from equal states, steps differ where their histories do
                agree = agree and same_history(history, chain.before)
            if agree:
                return chain
            self.residual = max(self.residual, rms(change))
        return self._begin(block, x, history)

    def _done(self, chain: Chain) -> bool:
        return chain.index == self.edges[chain.block + 1]
