"""The closed-form worlds: what they claim to know is true, and they are fit to judge solvers with."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from torch import Tensor

from genrun.solvers import solve
from genrun.solvers.analytic import (
    WORLDS,
    MakeProblem,
    alternating,
    diffusion,
    evaluator,
    flow,
    linear,
    mixture,
    shifted_sigmas,
)

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


@pytest.mark.parametrize("make", [flow, diffusion])
def test_steps_converge_to_the_exact_linear_flow_at_first_order(make: MakeProblem) -> None:
    """Halving the step halves the distance to the closed form, for Euler flow matching and for DDIM."""
    errors = []
    for num_steps in (200, 400, 800):
        problem, denoise = make(num_steps), linear()
        start = (problem.alpha(0), problem.sigma(0))
        exact = denoise.exact(problem.x_start, start, (problem.alpha(num_steps), problem.sigma(num_steps)))
        found = solve(problem, evaluator(problem, denoise), "sequential").x
        errors.append(float((found - exact).abs().max()))
    assert errors[0] < 0.05
    assert [errors[0] / errors[1], errors[1] / errors[2]] == pytest.approx([2, 2], abs=0.25)


def test_the_ten_lines_of_the_api_page_run_with_a_denoiser_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (lines,) = [block for block in blocks if "FlowProblem" in block]
    denoise = mixture()

    def my_model(x: Tensor, sigma: float) -> Tensor:
        return (x - denoise(x, 1 - sigma, sigma)) / sigma

    exec(compile(lines, str(PAGE), "exec"), {"my_model": my_model})
    rounds, error = capsys.readouterr().out.replace("tensor(", "").replace(")", "").split()
    assert 1 <= int(rounds) < 25
    assert 0 <= float(error) < 0.1


def test_bifurcation_ends_in_one_of_two_modes_by_the_sign_of_the_start() -> None:
    world, mode, ends = WORLDS["bifurcation"], alternating(16), set()
    for seed in range(6):
        problem = world.problem(50, seed)
        x = solve(problem, evaluator(problem, world.denoiser()), "sequential").x
        side = float((problem.x_start * mode).sum().sign())
        assert (x - side * mode).abs().max() < 0.1
        ends.add(side)
    assert ends == {-1.0, 1.0}


def test_grids_fall_from_pure_noise_to_nothing() -> None:
    sigmas = shifted_sigmas(10)
    assert (sigmas[0], sigmas[-1], len(sigmas)) == (1.0, 0.0, 11)
    assert sigmas == sorted(sigmas, reverse=True)
    problem = diffusion(10)
    assert all(problem.alpha(i) ** 2 + problem.sigma(i) ** 2 == pytest.approx(1) for i in range(11))


def test_importing_solvers_and_their_analytic_problems_does_not_import_torch() -> None:
    code = "import sys, genrun.solvers.analytic, genrun.solvers.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
