"""Each method against its paper: the update written out by hand, and the counts that the papers state."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from genrun.solvers import Point, Problem, Solution, VPProblem, drive, registry, solve
from genrun.solvers.chords import PUBLISHED, recursive_times, start_sequence
from genrun.solvers.parataa import Anderson, output_gain
from genrun.solvers.srds import boundaries
from genrun.solvers.window import Acceptance, Scaled, Window, copy_state
from tests.numerics.worlds import PROBLEMS, Denoiser, Recorder, bifurcation, diffusion, flow, mixture, shifted_sigmas


def run(problem: Problem, denoise: Denoiser, solver: str, **options: Any) -> tuple[Solution, Recorder]:
    recorder = Recorder(problem, denoise)
    return solve(problem, recorder, solver, **options), recorder


def asked(recorder: Recorder) -> list[list[tuple[int, list[float]]]]:
    return [[(point.index, point.x.tolist()) for point in points] for points in recorder.rounds]


def reference(problem: Problem, denoise: Denoiser) -> list[Tensor]:
    """x_0 .. x_N of the sequential sampler."""
    solution, recorder = run(problem, denoise, "sequential")
    return [*(points[0].x for points in recorder.rounds), solution.x]


def stepped(problem: Problem, recorder: Recorder, point: Point) -> Tensor:
    """S_i at an evaluated point."""
    return problem.step(point.index, point.x, recorder.output(point), problem.begin())[0]


def epsilon(num_steps: int = 20) -> VPProblem:
    sigmas = [min(s, 0.999) for s in shifted_sigmas(num_steps)]
    x_start = torch.randn(16, generator=torch.Generator().manual_seed(0))
    return VPProblem([(1 - s * s) ** 0.5 for s in sigmas], sigmas, x_start, "epsilon")


@pytest.mark.parametrize("kind", PROBLEMS)
def test_paradigms_is_the_sweep_with_a_equal_to_the_identity(kind: str) -> None:
    """x_{i+1} = x_f + sum_j (S_j(x_j) - x_j), before anything is settled."""
    problem = PROBLEMS[kind]()
    _, recorder = run(problem, mixture(), "paradigms", workers=6, tolerance=0.0)
    before, after = recorder.rounds[0], recorder.rounds[1]
    x = before[0].x
    expected = {}
    for point in before:
        x = x + stepped(problem, recorder, point) - point.x
        expected[point.index + 1] = x
    shared = [point for point in after if point.index in expected]
    assert len(shared) == 6
    assert all(torch.allclose(point.x, expected[point.index], atol=1e-5) for point in shared)


@pytest.mark.parametrize("kind", PROBLEMS)
@pytest.mark.parametrize("tolerance", [0.0, 0.05])
def test_parasolver_without_warmup_and_with_a_copied_tail_is_paradigms(kind: str, tolerance: float) -> None:
    problem, options = PROBLEMS[kind](50), {"workers": 6, "tolerance": tolerance}
    ours, recorder = run(problem, mixture(), "parasolver", warmup=0, tail="copy", **options)
    theirs, expected = run(problem, mixture(), "paradigms", **options)
    assert asked(recorder) == asked(expected)
    assert torch.equal(ours.x, theirs.x)
    assert (ours.fronts, ours.residuals) == (theirs.fronts, theirs.residuals)


def test_parasolver_warms_up_for_m_rounds_and_guesses_with_the_last_x0() -> None:
    problem = flow()
    _, recorder = run(problem, mixture(), "parasolver", workers=5, warmup=3)
    assert [len(points) for points in recorder.rounds[:4]] == [1, 1, 1, 5]
    last = recorder.rounds[2][0]
    x0 = problem.predict_x0(2, last.x, recorder.output(last))
    for left, right in pairwise(recorder.rounds[3]):
        ratio = problem.sigma(right.index) / problem.sigma(left.index)
        assert torch.allclose(right.x, x0 + (left.x - x0) * ratio, atol=1e-5)


@pytest.mark.parametrize("kind", PROBLEMS)
@pytest.mark.parametrize("tolerance", [0.0, 0.05])
def test_parataa_of_order_one_without_acceleration_is_jacobi(kind: str, tolerance: float) -> None:
    problem = PROBLEMS[kind]()
    ours, recorder = run(problem, mixture(), "parataa", workers=6, order=1, history=0, tolerance=tolerance)
    jacobi, expected = Scaled(lambda index: 0.0), Recorder(problem, mixture())

    class Jacobi:
        workers = 6

        def solve(self, problem: Problem) -> Any:
            return Window(problem, 6, jacobi, copy_state, Acceptance(problem, tolerance)).run()

    theirs = drive(Jacobi(), problem, expected)
    assert asked(recorder) == asked(expected)
    assert torch.equal(ours.x, theirs.x)
    assert ours.fronts == theirs.fronts


@pytest.mark.parametrize("order", [1, 2, 3, 6])
@pytest.mark.parametrize("problem", [flow(), diffusion(), epsilon()], ids=["flow", "velocity", "epsilon"])
def test_parataa_composes_the_last_k_steps_at_the_old_outputs(problem: Problem, order: int) -> None:
    """x_{i} is reached from the old x_{i-k}, or the front, with the outputs that were evaluated on the way."""
    _, recorder = run(problem, mixture(), "parataa", workers=6, order=order, history=0, tolerance=0.0)
    before, after = recorder.rounds[1], recorder.rounds[2]
    points = {point.index: point for point in before}
    front = after[0].index
    for point in after:
        if point.index - 1 not in points or point.index == front:
            continue
        first = max(point.index - order, before[0].index)
        x = points[first].x
        for index in range(first, point.index):
            x, _ = problem.step(index, x, recorder.output(points[index]), problem.begin())
        assert torch.allclose(point.x, x, atol=1e-4), point.index


@pytest.mark.parametrize(
    ("problem", "expected"), [(flow(), lambda a, s, b, t: 1), (epsilon(), lambda a, s, b, t: b / a)]
)
def test_gain_at_a_fixed_output_is_that_of_the_scheduler(problem: Problem, expected: Any) -> None:
    """1 for Euler flow matching, where full order is ParaDiGMS; alpha'/alpha for DDIM on noise."""
    for i in range(1, problem.num_steps):
        levels = problem.alpha(i), problem.sigma(i), problem.alpha(i + 1), problem.sigma(i + 1)
        assert output_gain(problem, i) == pytest.approx(expected(*levels), rel=1e-5)


def test_anderson_solves_an_affine_state_once_its_history_spans_it() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = 0.5 * torch.randn(3, 3, generator=generator, dtype=torch.float64)
    shift = torch.randn(3, generator=generator, dtype=torch.float64)
    solution = torch.linalg.solve(torch.eye(3, dtype=torch.float64) - matrix, shift)
    anderson, x = Anderson(depth=3, ridge=1e-14), torch.zeros(3, dtype=torch.float64)
    for _ in range(4):
        anderson.begin(0)
        x = anderson.accelerate(1, x, matrix @ x + shift)
    assert torch.allclose(x, solution, atol=1e-6)


def test_anderson_is_triangular() -> None:
    """What later states do changes no earlier one; what earlier ones do changes the later."""

    def third_round(early: float, late: float) -> list[Tensor]:
        generator, anderson, out = torch.Generator().manual_seed(1), Anderson(depth=2, ridge=1e-4), []
        for _ in range(3):
            anderson.begin(0)
            states = [torch.randn(8, generator=generator) for _ in range(6)]
            out = [
                anderson.accelerate(i + 1, states[2 * i], states[2 * i + 1] * f) for i, f in enumerate([1, early, late])
            ]
        return out

    plain, other_late, other_early = third_round(1, 1), third_round(1, 5), third_round(5, 1)
    assert torch.equal(plain[0], other_late[0])
    assert torch.equal(plain[1], other_late[1])
    assert not torch.equal(plain[2], other_early[2])


def test_anderson_saves_rounds_in_a_wide_window() -> None:
    problem, options = flow(50), {"workers": 25, "order": 1, "tolerance": 0.02}
    plain, _ = run(problem, mixture(), "parataa", history=0, **options)
    accelerated, _ = run(problem, mixture(), "parataa", history=1, **options)
    assert accelerated.rounds < plain.rounds


@pytest.mark.parametrize(("workers", "rounds"), [(4, 21), (6, 19), (8, 17)])
@pytest.mark.parametrize("kind", PROBLEMS)
def test_the_fastest_core_of_chords_ends_after_the_published_rounds(kind: str, workers: int, rounds: int) -> None:
    solution, recorder = run(PROBLEMS[kind](50), mixture(), "chords", workers=workers, mode="first_core")
    assert solution.rounds == rounds == workers - 1 + 50 - PUBLISHED[workers][-1]
    assert solution.converged_by == "first_core"
    assert solution.nfe == sum(map(len, recorder.rounds))


@pytest.mark.parametrize("workers", range(2, 17))
@pytest.mark.parametrize("num_steps", [3, 20, 50, 75, 1000])
def test_the_fastest_core_of_chords_ends_after_its_start_and_its_steps(workers: int, num_steps: int) -> None:
    starts = start_sequence(workers, num_steps)
    assert starts[0] == 0
    assert starts[-1] < num_steps
    assert len(starts) <= workers
    assert all(later - earlier >= 2 for earlier, later in pairwise(starts))
    if num_steps <= 75:
        solution, recorder = run(flow(num_steps), bifurcation(), "chords", workers=workers, mode="first_core")
        assert solution.rounds == len(starts) - 1 + num_steps - starts[-1]
        assert max(map(len, recorder.rounds)) <= workers


def test_start_sequences_are_the_published_ones_and_scale_with_the_steps() -> None:
    assert start_sequence(4, 50) == [0, 8, 16, 32]
    assert start_sequence(6, 50) == [0, 3, 6, 12, 24, 36]
    assert start_sequence(8, 50) == [0, 2, 4, 8, 16, 24, 32, 40]
    assert start_sequence(8, 100) == [0, 4, 8, 16, 32, 48, 64, 80]
    assert start_sequence(1, 50) == [0]


def test_the_recursive_rule_gives_the_published_sequences() -> None:
    """Up to what was rounded by hand: 30 to 32 for K = 8, and 22 to 24 for K = 6, whose slower starts follow from it."""
    assert [50 * t for t in recursive_times(4)] == pytest.approx([0, 8, 16, 32])
    assert [50 * t for t in recursive_times(8)[-2:]] == pytest.approx([30, 40])
    assert [50 * t for t in recursive_times(6)] == pytest.approx([0, 2.75, 5.5, 11, 22, 36])


@pytest.mark.parametrize("problem", [flow(50), diffusion(50)], ids=PROBLEMS)
def test_chords_jumps_and_rectifies_as_written(problem: Problem) -> None:
    """Core 2 begins with a jump over 8 steps, and after 8 steps of its own is told F - G + G'."""
    _, recorder = run(problem, mixture(), "chords", workers=4, mode="first_core")
    at = [{point.index: point for point in points} for points in recorder.rounds]

    def jump(point: Point, stop: int) -> Tensor:
        x0 = problem.predict_x0(point.index, point.x, recorder.output(point))
        ratio = problem.sigma(stop) / problem.sigma(point.index)
        return point.x * ratio + x0 * (problem.alpha(stop) - problem.alpha(point.index) * ratio)

    assert torch.allclose(at[1][8].x, jump(at[0][0], 8), atol=1e-4)
    assert torch.allclose(at[2][16].x, jump(at[1][8], 16), atol=1e-4)
    fine = stepped(problem, recorder, at[8][15])
    rectified = fine - jump(at[1][8], 16) + jump(at[8][8], 16)
    assert torch.allclose(at[9][16].x, rectified, atol=1e-4)
    assert (fine - rectified).abs().max() > 1e-3


def test_chords_goes_on_until_the_cores_agree() -> None:
    """The tighter the tolerance the closer the result and the later it comes, up to the sequential one."""
    problem, denoise = flow(50), mixture(guidance=6.0)
    expected = reference(problem, denoise)[-1]
    options = [{"mode": "first_core"}, {"tolerance": 0.05}, {"tolerance": 0.0}]
    found = [run(problem, denoise, "chords", workers=4, **option)[0] for option in options]
    errors = [float((solution.x - expected).square().mean().sqrt()) for solution in found]
    assert errors[0] > errors[1] > errors[2] == 0
    assert found[0].rounds < found[1].rounds <= found[2].rounds <= 50


def test_chords_ends_with_its_fastest_core_where_no_core_has_an_error() -> None:
    """A model that always predicts the same x0: every jump is right, so that all cores agree where they meet."""
    problem = flow(50)
    solution, _ = run(problem, lambda x, alpha, sigma: torch.ones_like(x), "chords", workers=8, tolerance=1e-4)
    assert solution.rounds == 17
    assert solution.converged_by == "tolerance"


def test_first_core_at_tolerance_zero_is_exact() -> None:
    problem, denoise = flow(50), mixture()
    solution, _ = run(problem, denoise, "chords", mode="first_core", tolerance=0.0)
    assert torch.equal(solution.x, reference(problem, denoise)[-1])


def parareal(problem: Problem, denoise: Denoiser, edges: list[int], sweeps: int) -> list[list[Tensor]]:
    """X_j^p by [p][j], the algorithm as written: all of one sweep before the next."""
    recorder = Recorder(problem, denoise)

    def coarse(x: Tensor, start: int, stop: int) -> Tensor:
        x0 = problem.predict_x0(start, x, recorder.output(Point(start, x)))
        ratio = problem.sigma(stop) / problem.sigma(start)
        return x * ratio + x0 * (problem.alpha(stop) - problem.alpha(start) * ratio)

    def fine(x: Tensor, start: int, stop: int) -> Tensor:
        for index in range(start, stop):
            x = stepped(problem, recorder, Point(index, x))
        return x

    blocks = list(pairwise(edges))
    found = [[problem.x_start]]
    for start, stop in blocks:
        found[0].append(coarse(found[0][-1], start, stop))
    for _ in range(sweeps):
        old, new = found[-1], [problem.x_start]
        for j, (start, stop) in enumerate(blocks):
            new.append(fine(old[j], start, stop) + coarse(new[j], start, stop) - coarse(old[j], start, stop))
        found.append(new)
    return found


@pytest.mark.parametrize("kind", PROBLEMS)
def test_srds_is_parareal_and_exact_after_as_many_sweeps_as_blocks(kind: str) -> None:
    """Chains begin with X_j^0, X_j^1, .., X_j^j, and X_j^j is sequential to the last bit: all is after sqrt(N) sweeps."""
    problem, denoise = PROBLEMS[kind](25), mixture(guidance=6.0)
    edges = boundaries(25)
    assert edges == [0, 5, 10, 15, 20, 25]
    solution, recorder = run(problem, denoise, "srds", workers=25, tolerance=0.0)
    expected, exact = parareal(problem, denoise, edges, sweeps=5), reference(problem, denoise)
    begun = {j: [p.x for points in recorder.rounds for p in points if p.index == edge] for j, edge in enumerate(edges)}
    for j in range(5):
        assert len(begun[j]) == j + 1
        assert all(torch.allclose(x, expected[p][j], atol=1e-3) for p, x in enumerate(begun[j]))
        assert torch.equal(begun[j][j], exact[edges[j]])
    assert not torch.allclose(begun[4][0], exact[20], atol=1e-3)
    assert torch.equal(solution.x, exact[25])
    assert torch.allclose(expected[5][5], exact[25], atol=1e-3)


def test_srds_is_pipelined() -> None:
    """X_j^p begins p L + j - p rounds in: sweeps follow each other at the length of a block, not of the trajectory."""
    _, recorder = run(flow(25), mixture(guidance=6.0), "srds", workers=25, tolerance=0.0)
    for j in range(5):
        begins = [number for number, indices in enumerate(recorder.indices) if 5 * j in indices]
        assert begins == [5 * p + j - p for p in range(j + 1)]


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_srds_fills_its_rounds(workers: int) -> None:
    """No worker idles while a chain waits: with fewer workers than chains, rounds are full until the end comes near."""
    _, recorder = run(flow(50), mixture(guidance=6.0), "srds", workers=workers, tolerance=0.0)
    sizes = [len(indices) for indices in recorder.indices]
    assert max(sizes) == workers
    assert all(size == workers for size in sizes[workers:25])


def test_srds_settles_blocks_before_the_last_sweep() -> None:
    problem, denoise = flow(50), mixture()
    exact, _ = run(problem, denoise, "srds", tolerance=0.0)
    settled, _ = run(problem, denoise, "srds", tolerance=0.05)
    assert settled.rounds <= exact.rounds // 2
    assert settled.nfe < exact.nfe


@pytest.mark.parametrize("num_steps", [1, 2, 3, 10, 50, 1000])
def test_blocks_cover_the_trajectory(num_steps: int) -> None:
    edges = boundaries(num_steps)
    assert (edges[0], edges[-1]) == (0, num_steps)
    assert (len(edges) - 2) ** 2 < num_steps <= (len(edges) - 1) ** 2
    assert all(later > earlier for earlier, later in pairwise(edges))
    assert len(boundaries(num_steps, 4)) == min(4, num_steps) + 1


@pytest.mark.parametrize(
    ("solver", "options", "message"),
    [
        ("parasolver", {"tail": "guess"}, "tail: must be frozen_x0 or copy, got 'guess'"),
        ("parasolver", {"warmup": -1}, "warmup: must not be negative, got -1"),
        ("parataa", {"order": 0}, "order: must be at least 1, got 0"),
        ("parataa", {"history": -1}, "history: must not be negative, got -1"),
        ("parataa", {"ridge": 0.0}, "ridge: must be finite and positive, got 0"),
        ("parataa", {"warmup": -1}, "warmup: must not be negative, got -1"),
        ("chords", {"mode": "fast"}, "mode: must be exact or first_core, got 'fast'"),
        ("srds", {"blocks": 0}, "blocks: must be at least 1, got 0"),
    ],
)
def test_wrong_options_are_named(solver: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        registry.get(solver)(**options)
