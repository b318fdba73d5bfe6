"""Pipelines that share models or a scheduler with one that is under a solver, and copies of it, are plain diffusers."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import genrun
from genrun.adapters.errors import RefusedError
from tests.tiny import build, call_kwargs, latents_of
from tests.unit.test_caches import KINDS, WAYS, way

LOOSE: dict[str, Any] = {"workers": 2, "tolerance": 0.5}
"""Options of a solver whose pictures are others than the plain loop's."""


def made(pipe: Any, family: str = "sd3") -> Tensor:
    return latents_of(pipe(**call_kwargs(family)))


@cache
def plain(family: str = "sd3") -> Tensor:
    return made(build(family), family)


def sharing(pipe: Any, kind: type) -> Any:
    """Another pipeline of the same components."""
    other = kind(**pipe.components)
    other.set_progress_bar_config(disable=True)
    return other


@pytest.mark.parametrize("family", ["sd3", "wan21"])
def test_a_pipeline_made_of_one_that_is_under_a_solver_is_plain(family: str) -> None:
    pipe = build(family)
    kind, scheduler = type(pipe), pipe.scheduler
    with genrun.parallelize(pipe, "paradigms", **LOOSE):
        others = [sharing(pipe, kind), kind.from_pipe(pipe), copy.copy(pipe), copy.deepcopy(pipe)]
        assert not torch.equal(made(pipe, family), plain(family))
        others.append(copy.deepcopy(pipe))
        for other in others:
            assert torch.equal(made(other, family), plain(family))
    for other in others:
        assert type(other) is kind
        assert type(other.scheduler) is type(scheduler)
        assert torch.equal(made(other, family), plain(family))


def test_whoever_is_given_the_scheduler_itself_has_the_real_one_outside_calls() -> None:
    pipe, other = build("sd3"), build("sd3")
    with genrun.parallelize(pipe, "paradigms", **LOOSE) as run:
        other.scheduler = pipe.scheduler
        under = made(pipe)
        assert torch.equal(made(other), plain())
        assert run.solution.rounds
        assert torch.equal(made(pipe), under)
    assert torch.equal(made(other), plain())


@pytest.mark.parametrize("kind", KINDS)
def test_a_cache_is_at_work_in_its_own_pipelines_calls_alone(kind: str) -> None:
    family, (solver, options) = "wan21", way(kind)
    pipe = build(family)
    other = sharing(pipe, type(pipe))
    with genrun.parallelize(pipe, solver, cache={"kind": kind, **WAYS[kind]}, **options):
        assert torch.equal(made(other, family), plain(family))
        cached = made(pipe, family)
        assert torch.equal(made(other, family), plain(family))
        assert torch.equal(made(pipe, family), cached)
    assert not torch.equal(cached, plain(family))


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_cache_on_a_model_is_refused(kind: str) -> None:
    pipe = build("wan21")
    other, (solver, options) = sharing(pipe, type(pipe)), way(kind)
    with (
        genrun.parallelize(pipe, solver, cache={"kind": kind, **WAYS[kind]}, **options),
        pytest.raises(RefusedError, match="transformer has a cache in use already"),
        genrun.parallelize(other, "sequential", cache="first_block"),
    ):
        pass
    assert torch.equal(made(other, "wan21"), plain("wan21"))


@pytest.mark.skipif("dbcache" not in KINDS, reason="cache-dit is not installed")
def test_a_model_that_cache_dit_caches_by_itself_is_refused_by_parallel_solvers() -> None:
    import cache_dit

    pipe = build("wan21")
    cache_dit.enable_cache(pipe.transformer, cache_config=cache_dit.DBCacheConfig(Fn_compute_blocks=1))
    with pytest.raises(RefusedError, match="has a cache of its own in use"), genrun.parallelize(pipe, "ropa"):
        pass
    cache_dit.disable_cache(pipe.transformer)
    with genrun.parallelize(pipe, "ropa", tolerance=0.0):
        assert torch.equal(made(pipe, "wan21"), plain("wan21"))


def test_a_second_solver_on_a_pipeline_is_refused() -> None:
    pipe = build("sd3")
    with genrun.parallelize(pipe, "ropa", tolerance=0.0):
        with pytest.raises(RefusedError, match="under a solver already"), genrun.parallelize(pipe, "sequential"):
            pass
        assert torch.equal(made(pipe), plain())
    assert torch.equal(made(pipe), plain())
