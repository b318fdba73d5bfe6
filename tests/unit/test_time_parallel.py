"""Solvers on unmodified stock pipelines: at tolerance 0 the difference to the plain pipeline is exactly 0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import genrun
from tests.tiny import FAMILIES, OF_EACH_LOOP, SCHEDULERS, build, build_scheduler, call_kwargs, generator, latents_of
from tests.tiny.loops import EACH_WAY, EXACT, FEW


def sampled(pipe: Any, solver: str, options: dict[str, Any], **call: Any) -> tuple[Tensor, Any]:
    with genrun.parallelize(pipe, solver, **options) as run:
        latents = latents_of(pipe(**call))
    return latents, run.solution


@pytest.mark.parametrize(
    ("dtype", "solvers"),
    [
        pytest.param(torch.float32, FEW, id="float32"),
        pytest.param(torch.bfloat16, EXACT, id="bfloat16", marks=pytest.mark.e2e),
    ],
)
@pytest.mark.unit_part(family=OF_EACH_LOOP)
@pytest.mark.parametrize("family", FAMILIES)
def test_solvers_at_tolerance_zero_differ_by_exactly_zero(
    family: str, dtype: torch.dtype, solvers: dict[str, dict[str, Any]]
) -> None:
    pipe = build(family, dtype)
    plain = latents_of(pipe(**call_kwargs(family)))
    for solver, options in solvers.items():
        latents, solution = sampled(pipe, solver, options, **call_kwargs(family))
        assert latents.dtype == plain.dtype
        assert torch.equal(latents, plain), f"{solver}: {(latents.float() - plain.float()).abs().max()}"
        assert solution.rounds <= 6


def sensible(output: Any) -> Tensor:
    """The latents that a scheduler of the tiny pipelines makes, once they are known to be such."""
    latents = latents_of(output)
    assert latents.isfinite().all()
    assert 0.05 < latents.std() < 50
    return latents


@pytest.mark.unit_part(name=["ddim", "dpm-2m-sde", "heun"])
@pytest.mark.parametrize("name", SCHEDULERS["diffusion"])
def test_every_diffusion_scheduler_is_replayed_exactly(name: str) -> None:
    """One-step, multistep, second-order and stochastic: history and noise included."""
    pipe = build("sd2")
    pipe.scheduler = build_scheduler(name)
    plain = sensible(pipe(**call_kwargs("sd2")))
    for solver, options in FEW.items():
        latents, _ = sampled(pipe, solver, options, **call_kwargs("sd2"))
        assert torch.equal(latents, plain), solver


@pytest.mark.parametrize("family", ["wan21", "sd3"])
@pytest.mark.parametrize("name", SCHEDULERS["flow"])
def test_every_flow_scheduler_is_replayed_exactly(name: str, family: str) -> None:
    pipe = build(family)
    pipe.scheduler = build_scheduler(name)
    plain = sensible(pipe(**call_kwargs(family)))
    for solver, options in FEW.items() if family == "wan21" else ():
        latents, _ = sampled(pipe, solver, options, **call_kwargs(family))
        assert torch.equal(latents, plain), solver


@pytest.mark.parametrize("solver", EACH_WAY)
def test_noise_depends_on_seed_and_step_alone(solver: str) -> None:
    """A stochastic sampler under any K draws what the plain pipeline draws at each step."""
    pipe = build("ddpm")
    call = {**call_kwargs("ddpm"), "num_inference_steps": 12}
    plain = latents_of(pipe(**{**call, "generator": generator(3)}))
    for workers in (1, 5, 12):
        options = {**EXACT[solver], **({"workers": workers} if EXACT[solver] else {})}
        latents, _ = sampled(pipe, solver, options, **{**call, "generator": generator(3)})
        assert torch.equal(latents, plain)


def test_without_a_generator_the_global_noise_is_drawn_as_the_plain_pipeline_does() -> None:
    pipe = build("sd2")
    pipe.scheduler = build_scheduler("ddpm")
    call = {**call_kwargs("sd2"), "generator": None}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        plain = latents_of(pipe(**call))
        torch.manual_seed(11)
        latents, _ = sampled(pipe, "paradigms", EXACT["paradigms"], **call)
    assert torch.equal(latents, plain)


@pytest.mark.parametrize("solver", EACH_WAY)
def test_samples_of_a_batch_are_controlled_apart(solver: str) -> None:
    """Each sample of a batch takes the rounds, and ends where, it does alone."""
    pipe = build("sd3")
    seeds = (4, 5)
    call = {**call_kwargs("sd3"), "num_inference_steps": 12, "num_images_per_prompt": 2}
    options: dict[str, Any] = {} if solver == "sequential" else {"workers": 8}
    with genrun.parallelize(pipe, solver, **options) as run:
        together = latents_of(pipe(**{**call, "generator": [generator(seed) for seed in seeds]}))
    solutions = run.solutions
    for row, seed in enumerate(seeds):
        alone = {**call, "num_images_per_prompt": 1, "generator": generator(seed)}
        latents, solution = sampled(pipe, solver, options, **alone)
        assert solutions[row].fronts == solution.fronts
        assert torch.allclose(together[row], latents[0], atol=1e-4)


def test_the_pipeline_is_left_as_it_was(tmp_path: Path) -> None:
    pipe = build("sd3")
    scheduler, kind = pipe.scheduler, type(pipe)
    with genrun.parallelize(pipe, "ropa"):
        pipe(**call_kwargs("sd3"))
        pipe.save_config(tmp_path)
    assert pipe.scheduler is scheduler
    assert type(pipe) is kind
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["scheduler"] == ["diffusers", "FlowMatchEulerDiscreteScheduler"]
    assert index["_class_name"] == "StableDiffusion3Pipeline"


def test_three_lines_for_a_diffusers_user() -> None:
    pipe = build("sd3")
    with genrun.parallelize(pipe, solver="ropa", workers=8) as run:
        images = pipe(**{**call_kwargs("sd3"), "output_type": "pil"}).images
    assert len(images) == 1
    assert 1 <= run.solution.rounds <= 6


def test_asking_for_the_solution_before_a_call_says_so() -> None:
    with (
        genrun.parallelize(build("sd3"), "ropa") as run,
        pytest.raises(RuntimeError, match="call the pipeline inside the with block"),
    ):
        _ = run.solution


def test_progress_is_told_after_every_round() -> None:
    pipe, seen = build("sd3"), []
    with genrun.parallelize(pipe, "paradigms", workers=8, on_round=seen.append) as run:
        pipe(**call_kwargs("sd3"))
    assert [p.rounds for p in seen] == list(range(1, run.solution.rounds + 1))
    assert [p.front for p in seen] == list(run.solution.fronts)
    assert seen[-1].nfe == run.solution.nfe
    assert seen[-1].num_steps == 6


def test_the_bar_counts_steps_rounds_and_evaluations(capsys: pytest.CaptureFixture[str]) -> None:
    pipe = build("sd3")
    pipe.set_progress_bar_config(disable=False, mininterval=0, ascii=True)
    with genrun.parallelize(pipe, "paradigms", workers=4) as run:
        pipe(**call_kwargs("sd3"))
    last = capsys.readouterr().err.replace("\r", "\n").strip().splitlines()[-1]
    assert "6/6" in last
    assert f"rounds={run.solution.rounds}" in last
    assert f"evaluations={run.solution.nfe}" in last
    assert "progress_bar" not in vars(pipe)


@pytest.mark.parametrize(("options", "k"), [({}, 1), ({"workers": "auto"}, 1), ({"workers": 3}, 3)])
def test_in_one_process_there_is_one_worker_unless_told(options: dict[str, Any], k: int) -> None:
    with genrun.parallelize(build("sd3"), "ropa", **options) as run:
        assert run.scheduler.solver.workers == k
