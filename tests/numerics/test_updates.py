"""ROPA and ParaSolver-Turbo against their equations, written out in plain numbers; and the published code of ParaDiGMS.

The trajectory is Euler flow matching with states of one or two numbers, and a model that predicts x0 = g x.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import pytest
import torch

import genrun
from genrun.solvers import FlowProblem, Solution, registry, solve
from tests.numerics.worlds import PROBLEMS, Recorder, stiff
from tests.tiny import build

SIGMAS = (1.0, 0.8, 0.5, 0.2, 0.0)
LONGER = (1.0, 0.8, 0.5, 0.3, 0.2, 0.1, 0.0)


def asked(
    sigmas: Sequence[float], gain: Sequence[float], solver: str, start: Sequence[float] = (1.0,), **options: Any
) -> tuple[Solution, list[dict[int, list[float]]]]:
    """The solution, and the states that each round was asked for, by index."""
    gains = torch.tensor(gain)
    problem = FlowProblem(sigmas, torch.tensor(start))
    recorder = Recorder(problem, lambda x, alpha, sigma: gains * x)
    solution = solve(problem, recorder, solver, **options)
    return solution, [{point.index: point.x.tolist() for point in points} for points in recorder.rounds]


def euler(i: int, x: float, gain: float = 0.5) -> float:
    """S_i on the longer grid: (1 - b) X0 + b noise, from sigma a to sigma b."""
    a, b = LONGER[i], LONGER[i + 1]
    return (1 - b) * gain * x + b * (x - (1 - a) * gain * x) / a


def near(*numbers: float) -> Any:
    return pytest.approx(list(numbers), abs=1e-6)


def test_turbo_sweeps_its_evaluated_states_and_steps_on_with_the_last_prediction() -> None:
    """Eq. (20): x1 = .9 by a step, x2 = .75 and x3 = .6 by H with X0 = .5. Eq. (19): S1(.9) = .73125 and S2(.75) = .525.

    The move of x2, -.01875, is carried on by dH/dX = .2 / .5: x3 = .525 - .0075.
    """
    solution, rounds = asked(SIGMAS, [0.5], "parasolver-turbo", workers=2, tolerance=0.01)
    assert rounds == [
        {0: near(1.0)},
        {1: near(0.9), 2: near(0.75)},
        {2: near(0.73125), 3: near(0.5175)},
    ]
    # The last round: x2 moved on to S2(.73125) = .511875, by .005625 < .01, so that x3 = .5175 and its step to x4 stand.
    assert solution.x.tolist() == near(0.25875)


@pytest.mark.parametrize(("tolerance", "rounds", "skipped", "end"), [(0.1, 2, 1, 0.375), (0.05, 3, 0, 0.25875)])
def test_turbo_skips_linear_states_that_no_longer_change(
    tolerance: float, rounds: int, skipped: int, end: float
) -> None:
    """Line 11: beyond the two evaluated states x3 = .6 became .5175, a change of .0825.

    Within the tolerance it is accepted unevaluated, and eq. (7) steps on to x4 with the X0 = .375 of x2 = .75.
    """
    solution, _ = asked(SIGMAS, [0.5], "parasolver-turbo", workers=2, tolerance=tolerance, mode="skip", window=3)
    assert (solution.rounds, solution.skipped) == (rounds, skipped)
    assert solution.x.tolist() == near(end)


PLAIN: dict[str, Any] = {"adaptive_bandwidth": False, "damping": False, "curvature": False}


def test_ropa_without_its_parts_is_turbos_sweep() -> None:
    _, ours = asked(LONGER, [0.5], "ropa", workers=4, tolerance=0.001, **PLAIN)
    _, theirs = asked(LONGER, [0.5], "parasolver-turbo", workers=4, tolerance=0.001)
    assert ours == theirs


def test_ropa_damps_what_leaves_the_sweep_and_halves_lambda_by_the_gain_ratio() -> None:
    """x1 = .9 and guesses .75, .65, .6 of x2 to x4, since X0 = .5 and noise = 1. lambda = .25, K = 4.

    Residuals: S1(.9) = .73125; S2(.75): X0 = .375, noise = 1.125, so .6; S3(.65): .325, 1.40833.., so .541666...
    r = -.01875, -.05, -.0583333; a2 = .6, a3 = 2/3; d3 = -.05 - .6 x .01875 = -.06125; d4 = -.0583333 - 2/3 x .06125.
    """
    options = {**PLAIN, "damping": True, "initial_damping": 0.25, "workers": 4, "tolerance": 1e-4}
    _, rounds = asked(LONGER, [0.5], "ropa", **options)
    d3, d4 = -0.06125, -0.35 / 6 - 0.06125 / 1.5
    assert rounds[1] == {1: near(0.9), 2: near(0.75), 3: near(0.65), 4: near(0.6)}
    # The state after the front is the scheduler's own step, undamped.
    x2, x3, x4 = 0.73125, 0.65 + d3 / 1.25, 0.6 + d4 / 1.25
    assert {i: rounds[2][i] for i in (2, 3, 4)} == {2: near(x2), 3: near(x3), 4: near(x4)}
    # Takeaway 2.6 over x3 and x4: the decrease over d . (lambda d + r), of the damped moves, is above .5.
    r3, r4 = euler(2, x2) - x3, euler(3, x3) - x4
    moves = d3 / 1.25, d4 / 1.25
    before = (-0.05, -0.35 / 6)
    expected = sum(m * (0.25 * m + r) for m, r in zip(moves, before, strict=True))
    assert (before[0] ** 2 + before[1] ** 2 - r3**2 - r4**2) / expected > 0.5
    # The sweep that showed it was still damped by .25, the next one is by .125.
    assert rounds[3][4] == near(x4 + (r4 + r3 * 2 / 3) / 1.25)
    x3, x4, x5 = (rounds[3][i][0] for i in (3, 4, 5))
    r4, r5 = euler(3, x3) - x4, euler(4, x4) - x5
    assert rounds[4][5] == near(x5 + (r5 + r4 / 2) / 1.125)


def test_ropa_with_a_width_of_one_is_jacobi_iteration() -> None:
    """Eq. (9), w = 1: x3 = S2(.75) = .6 and x4 = S3(.65) = .541666.., with nothing carried on."""
    options = {**PLAIN, "initial_width": 1, "workers": 4, "tolerance": 1e-4}
    _, rounds = asked(LONGER, [0.5], "ropa", **options)
    assert {i: rounds[2][i] for i in (2, 3, 4)} == {2: near(0.73125), 3: near(0.6), 4: near(0.325 / 0.6)}


def test_ropa_widens_where_residuals_are_large_and_narrows_where_they_are_small() -> None:
    """Eq. (13): |r| = .01875, .05, .0583.. have the mean .0424; only the first is below .7 of it, and x2 is the front.

    So x3 and x4 keep w = 2: x4 = S3(x3) + 2/3 r3, and x5 = S4(x4) + a4 r4, without r3.
    """
    options = {**PLAIN, "adaptive_bandwidth": True, "initial_width": 2, "workers": 5, "tolerance": 1e-4}
    _, rounds = asked(LONGER, [0.5], "ropa", **options)
    x = [0.9, 0.75, 0.65, 0.6, 0.55]
    steps = [euler(i + 1, v) for i, v in enumerate(x)]
    r = [step - old for step, old in zip(steps, x[1:], strict=False)]  # of x2 .. x5
    assert rounds[1] == {i + 1: near(v) for i, v in enumerate(x)}
    assert rounds[2][3] == near(x[2] + r[1] + 0.6 * r[0])
    assert rounds[2][4] == near(x[3] + r[2] + r[1] * 2 / 3)
    assert rounds[2][5] == near(x[4] + r[3] + r[2] / 2)


def test_ropa_takes_the_score_out_of_the_gain_by_equation_15() -> None:
    """kappa = 1 / (1 + lambda), 1 without damping, where |cos(r, s)| > gamma: A d = a (d - s s.d), s along alpha X0 - x."""
    gains, start = (0.5, 0.1), (1.0, 2.0)
    options = {**PLAIN, "curvature": True, "curvature_rule": "score", "gamma": 0.0, "workers": 4, "tolerance": 1e-4}
    _, rounds = asked(LONGER, gains, "ropa", start, **options)

    def step(i: int, x: Sequence[float]) -> list[float]:
        return [euler(i, v, g) for g, v in zip(gains, x, strict=True)]

    old = [rounds[1][i] for i in (1, 2, 3, 4)]
    d2 = [new - v for new, v in zip(step(1, old[0]), old[1], strict=True)]
    score = [0.5 * g * v - v for g, v in zip(gains, old[1], strict=True)]  # alpha_2 = .5
    length = sum(v * v for v in score) ** 0.5
    along = sum(s * d for s, d in zip(score, d2, strict=True)) / length
    x3 = [new + 0.6 * (d - along * s / length) for new, d, s in zip(step(2, old[1]), d2, score, strict=True)]
    assert rounds[2][3] == near(*x3)


def test_ropas_secants_are_of_the_last_two_rounds_and_serve_the_sweep_that_finds_them() -> None:
    """Of one number and a model that runs against it, S_i has the slope p_i < a_i, and 1 - kappa_i = p_i / a_i exactly.

    After two evaluations of x3 the sweep is Newton's method there: x4 of round 4 is the sequential one, and x5 is not yet.
    """
    gain = -0.1
    _, rounds = asked(LONGER, [gain], "ropa", **{**PLAIN, "curvature": True, "workers": 4, "tolerance": 1e-6})
    exact = [1.0]
    for i in range(6):
        exact.append(euler(i, exact[-1], gain))
    assert [min(each) for each in rounds[:4]] == [0, 1, 2, 3]
    assert rounds[2][4] != near(exact[4])
    assert rounds[3][4] == near(exact[4])
    assert rounds[3][5] != near(exact[5])


@pytest.mark.parametrize(
    "options",
    [
        {"initial_width": 1, "max_width": 3},
        {"initial_damping": 0.3, "damping_scope": "state"},
        {"damping_rule": "step"},
        {"curvature_rule": "score", "gamma": 0.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", PROBLEMS)
def test_no_option_of_ropa_moves_its_fixed_point(kind: str, options: dict[str, Any]) -> None:
    problem, denoise = PROBLEMS[kind](), stiff()
    expected = solve(problem, Recorder(problem, denoise), "sequential").x
    found = solve(problem, Recorder(problem, denoise), "ropa", workers=6, tolerance=0.0, **options)
    assert torch.equal(found.x, expected)
    assert found.rounds <= problem.num_steps


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial_width": 0}, "initial_width: must be at least 1, got 0"),
        ({"max_width": -1}, "max_width: must be at least 1, got -1"),
        ({"initial_damping": -0.1}, "initial_damping: must be between 0 and 100, got -0.1"),
        ({"damping_rule": "steps"}, "damping_rule: must be gain or step, got 'steps'"),
        ({"damping_scope": "all"}, "damping_scope: must be window or state, got 'all'"),
        ({"curvature_rule": "eq15"}, "curvature_rule: must be secant or score, got 'eq15'"),
    ],
)
def test_wrong_options_of_ropa_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        registry.get("ropa")(**options)


@pytest.mark.parametrize(("kind", "steps", "tolerance"), [("DDIM", 20, 0.1), ("DDPM", 40, 0.3)])
def test_paradigms_in_its_unit_is_the_code_that_its_authors_gave_to_diffusers(
    kind: str, steps: int, tolerance: float
) -> None:
    """As many calls and evaluations, and the same latents: update, window, unit of the tolerance, and noise."""
    diffusers: Any = import_module("diffusers")
    pipe = build("sd2")
    parts = (pipe.vae, pipe.text_encoder, pipe.tokenizer, pipe.unet)
    config = {**pipe.scheduler.config, "timestep_spacing": "trailing", "set_alpha_to_one": True}
    scheduler = getattr(diffusers, f"{kind}ParallelScheduler").from_config(config)
    published = diffusers.StableDiffusionParadigmsPipeline(*parts, scheduler, None, None, requires_safety_checker=False)
    pipe.scheduler = getattr(diffusers, f"{kind}Scheduler").from_config(config)
    call = {"height": 64, "width": 64, "num_inference_steps": steps, "guidance_scale": 5.0, "output_type": "latent"}
    rows: list[int] = []
    hook = pipe.unet.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    theirs = published("a", parallel=6, tolerance=tolerance, generator=torch.Generator().manual_seed(0), **call).images
    hook.remove()
    with genrun.parallelize(pipe, "paradigms", workers=6, tolerance=tolerance, scale="step") as run:
        ours = pipe("a", generator=torch.Generator().manual_seed(0), **call).images
    assert (run.solution.rounds, run.solution.nfe) == (len(rows), sum(rows) / 2)
    assert run.solution.rounds < steps
    assert torch.allclose(ours, theirs, atol=1e-3 * float(theirs.std()))
