"""CHORDS: staggered cores, where each slower core rectifies the next faster one.

Han, Ye, Li, Xu, Zou and Ermon, "CHORDS: Diffusion Sampling Accelerator with Multi-core Hierarchical ODE Solvers", 2025,
https://arxiv.org/abs/2507.15260, algorithm 1.

K cores step through the trajectory one step a round each. Core k begins at step i_k, by a jump G from where core k - 1
began; gap_k = i_k - i_{k-1}. When core k - 1 comes to the state s where core k began (or was rectified last), core k is
at s + gap_k, and is told what it should have begun with:

    x_{s+gap} += G'(s, s + gap) - G(s, s + gap),

G' from the slower core's state, G from its own: parareal's correction, at the price of no evaluation. The fastest core
ends after (K - 1) + (N - i_K) rounds: 21, 19, 17 for K = 4, 6, 8 at N = 50.

Beyond the paper, which has no tolerance and hands out the fastest core's result (mode `first_core`): the slowest core,
which takes the scheduler's own steps from x_0, is the front. Where it and the next core agree at s, that core's steps
from s on are as good as its own, and it becomes the front: prefix acceptance, core by core. Where the paper gives no
start sequence, see `start_sequence`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, get_args

from genrun.solvers.contract import History, Point, Problem, Run
from genrun.solvers.trajectory import Trajectory, check_choice, check_options, rms, same_history
from genrun.solvers.window import Acceptance, Scale, leap

if TYPE_CHECKING:
    from genrun.solvers.shapes import Output, State

PUBLISHED_STEPS = 50
PUBLISHED = {4: (0, 8, 16, 32), 6: (0, 3, 6, 12, 24, 36), 8: (0, 2, 4, 8, 16, 24, 32, 40)}
"""The paper's start sequences, by K."""


@dataclass(frozen=True)
class Chords:
    """K staggered cores that step side by side, each rectified by the next slower one.

    `exact` goes on until each core has been found to agree with the next slower one: converges to the sequential
    trajectory in at most N rounds of K evaluations. `first_core` is the paper's and approximate: it returns the fastest
    core's result after (K - 1) + (N - i_K) rounds, whatever the tolerance (but for tolerance 0, which is exact in either
    mode). Holds four states a core.

    Attributes:
        workers: K, cores; fewer where N has no room for them two steps apart.
        tolerance: RMS difference, in the units of `scale`, at which two cores agree on a state; 0 is exact.
        mode: exact or first_core.
        max_rounds: rounds after which the rest is stepped sequentially.
        scale: unit of the tolerance: step (the deviation of one DDPM step), noise (sigma_i), absolute, or rmse (the latents'
            deviation).
    """

    workers: int = 8
    tolerance: float = 0.09
    mode: Literal["exact", "first_core"] = "exact"
    max_rounds: int | None = None
    scale: Scale = "absolute"

    def __post_init__(self) -> None:
        check_options(self.workers, self.tolerance, self.max_rounds)
        check_choice("scale", self.scale, get_args(Scale))
        check_choice("mode", self.mode, ("exact", "first_core"))

    def solve(self, problem: Problem) -> Run:
        """Sample one trajectory."""
        settled = Acceptance(problem, self.tolerance, self.scale)
        return Ensemble(problem, self, start_sequence(self.workers, problem.num_steps), settled).run()


def start_sequence(workers: int, num_steps: int) -> list[int]:
    """Return the steps at which the cores begin, slowest first: i_1 = 0 < i_2 < ..

    The published sequence where there is one, else the recursive rule, scaled to N steps and kept two steps apart, so that
    no two cores ever evaluate the same step; cores without room are left out.
    """
    published = [start / PUBLISHED_STEPS for start in PUBLISHED.get(workers, ())]
    starts = [0]
    for time in (published or recursive_times(workers))[1:]:
        start = max(round(time * num_steps), starts[-1] + 2)
        if start >= num_steps:
            break
        starts.append(start)
    return starts


def recursive_times(workers: int) -> list[float]:
    """Apply theorem 2.5 of the paper, from fast to slow: t_{k-1} = max(t_k / 2, 2 t_k - t_{k+1}), with t_{K+1} = 1.

    It gives the published sequences for K = 4 and 8 but for one start, rounded from 30 to 32. The theorem leaves the
    fastest core's t_K to the user.
    """
    times = [fastest_time(workers), 1.0]
    while len(times) < workers:
        times.insert(0, max(times[0] / 2, 2 * times[0] - times[1]))
    return [0.0, *times[:-1]][:workers]


def fastest_time(workers: int) -> float:
    """Return t_K: between those of the published sequences, and beyond them so that 1 - t_K shrinks as 1 / K."""
    known = {1: 0.0} | {k: starts[-1] / PUBLISHED_STEPS for k, starts in PUBLISHED.items()}
    for (fewer, early), (more, late) in pairwise(known.items()):
        if workers <= more:
            return early + (late - early) * (workers - fewer) / (more - fewer)
    last = max(known)
    return 1 - (1 - known[last]) * last / workers


@dataclass
class Meeting:
    """A state that a core set out from, for the slower core to compare when it comes to that step.

    Attributes:
        index: s.
        stop: s + gap, which the core itself has come to by then.
        x: the state x_s that the core set out from.
        history: the scheduler's memory there.
        jumped: G(s, stop) from it.
    """

    index: int
    stop: int
    x: State
    history: History
    jumped: State


@dataclass
class Core:
    """A core on its way through the trajectory.

    Attributes:
        gap: steps between its meetings with the next slower core; 0 for the slowest.
        index: the step that it evaluates next.
        x: its state there.
        history: the scheduler's memory there.
        meeting: the next of its meetings.
        rectification: G' - G from one in this round.
        agreed: the step at which it last met the slower core, if they agreed there.
    """

    gap: int
    index: int
    x: State
    history: History
    meeting: Meeting | None = None
    rectification: State | None = None
    agreed: int | None = None


@dataclass
class Ensemble:
    """All cores on one sample.

    Attributes:
        problem: the trajectory.
        options: the solver's.
        starts: where the cores begin.
        settled: the acceptance test.
        cores: slowest first; the first is the front.
        launched: how many have begun.
        verified: the step from which on the front is exact.
        residual: largest RMS difference of two cores that met in this round.
    """

    problem: Problem
    options: Chords
    starts: list[int]
    settled: Acceptance
    cores: list[Core] = field(default_factory=list)
    launched: int = 1
    verified: int = 0
    residual: float = 0.0

    def run(self) -> Run:
        """Sample the trajectory, one round a turn, in at most N rounds."""
        at = Trajectory(self.problem, self.options.max_rounds)
        self.cores = [Core(0, 0, at.x, at.history)]
        first_core = self.options.mode == "first_core" and self.options.tolerance > 0
        while not at.done and not at.spent:
            active = [core for core in self.cores if core.index < self.problem.num_steps]
            outputs = yield from at.ask([Point(core.index, core.x) for core in active])
            self._advance(active, outputs)
            if not first_core:
                self._promote()
            front = self.cores[0]
            if first_core and self._fastest_ended():
                front, at.converged_by = self.cores[-1], "first_core"
            at.accept(front.index, front.x, front.history, self.residual)
        return (yield from at.finish())

    def _fastest_ended(self) -> bool:
        everyone = self.launched == len(self.starts) > 1
        return everyone and self.cores[-1].index == self.problem.num_steps

    def _advance(self, active: list[Core], outputs: list[Output]) -> None:
        """Take one step of every core, then the rectifications that came of it."""
        self.residual = 0.0
        for k, core in enumerate(active):
            output = outputs.pop(0)
            self._branch(k, core, output)
            core.x, core.history = self.problem.step(core.index, core.x, output, core.history)
            core.index += 1
        for core in self.cores:
            if core.rectification is not None and bool(core.rectification.any()):
                core.x = self.problem.hold(core.index, core.x + core.rectification)
                core.history = self.problem.moved(core.index, core.history, core.rectification)
            core.rectification = None

    def _branch(self, k: int, core: Core, output: Output) -> None:
        """Use an evaluation for all else it is good for: meet the faster core, prepare a meeting, launch a new core."""
        meeting = self.cores[k + 1].meeting if k + 1 < len(self.cores) else None
        meets = meeting is not None and meeting.index == core.index
        begins = core.gap > 0 and core.meeting is None and core.rectification is None
        start = self._next_start(core)
        if not meets and not begins and start is None:
            return
        x0 = self.problem.predict_x0(core.index, core.x, output)
        self.settled.learn(x0)
        if meets:
            self._meet(core, self.cores[k + 1], x0)
        if begins:
            stop = min(core.index + core.gap, self.problem.num_steps)
            jumped, _ = self._leap(core, stop, x0)
            core.meeting = Meeting(core.index, stop, core.x, core.history, jumped)
        if start is not None:
            self._launch(core, start, x0)

    def _meet(self, core: Core, faster: Core, x0: State) -> None:
        """Compare the two cores where the faster one began, and rectify it by what it should have begun with."""
        meeting = faster.meeting
        assert meeting is not None
        difference = core.x - meeting.x
        self.residual = max(self.residual, rms(difference))
        agree = self.settled(meeting.index, difference)
        if agree and self.options.tolerance == 0:  # from equal states, steps differ where their histories do
            agree = same_history(core.history, meeting.history)
        faster.agreed = meeting.index if agree else None
        faster.rectification = self._leap(core, meeting.stop, x0)[0] - meeting.jumped
        faster.meeting = None

    def _next_start(self, core: Core) -> int | None:
        """Return the step at which the next core begins, if `core` is the newest and evaluates its own start."""
        newest = core is self.cores[-1] and core.index == self.starts[self.launched - 1]
        return self.starts[self.launched] if newest and self.launched < len(self.starts) else None

    def _launch(self, core: Core, start: int, x0: State) -> None:
        self.launched += 1
        self.cores.append(Core(start - core.index, start, *self._leap(core, start, x0)))

    def _leap(self, core: Core, stop: int, x0: State) -> tuple[State, History]:
        return leap(self.problem, core.index, stop, core.x, core.history, x0)

    def _promote(self) -> None:
        """Make the fastest core that is known to agree the front, and drop those whose end no core will confirm."""
        while len(self.cores) > 1:
            agreed = self.cores[1].agreed
            if agreed is None or agreed < self.verified:
                break
            self.verified = agreed
            del self.cores[0]
            self.cores[0].gap, self.cores[0].meeting = 0, None  # no slower core is left to meet
        # A core that ended without agreeing, and has no meeting to come, is never confirmed; nor are the faster ones.
        for k, core in enumerate(self.cores[1:], 1):
            if core.index == self.problem.num_steps and core.meeting is None and core.agreed is None:
                del self.cores[k:]
                break
