"""Caches on transformers whose weights wait elsewhere: diffusers' hooks for it run on a CPU too, in the place of a GPU."""

from __future__ import annotations

from functools import cache, wraps
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, cpu_offload_with_hook
from diffusers.hooks.group_offloading import apply_group_offloading
from torch import Tensor

from tests.tiny import build
from tests.unit.test_caches import KINDS, WAYS, sampled, way

CPU = torch.device("cpu")


def offloaded(family: str, how: str) -> Any:
    """A pipeline whose transformer is held as `model.offload` says."""
    pipe: Any = build(family)
    if how == "model":
        cpu_offload_with_hook(pipe.transformer, CPU)
    elif how == "sequential":
        cpu_offload(pipe.transformer, CPU)
    elif how == "group":
        apply_group_offloading(pipe.transformer, CPU, CPU, offload_type="block_level", num_blocks_per_group=1)
    return pipe


@cache
def latents(family: str, kind: str, how: str) -> tuple[Tensor, float]:
    """What a cache makes, and the blocks that it computes. On Flux its calls are counted by what would share them out."""
    pipe, calls = offloaded(family, how), [0]
    plain = pipe.transformer.forward

    @wraps(plain)
    def counted(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        return plain(*args, **kwargs)

    if family == "flux":
        pipe.transformer.forward = counted
    solver, options = way(kind)
    found, run = sampled(pipe, family, {"kind": kind, **WAYS[kind]}, solver, **options)
    if family == "flux":
        assert calls[0] == 2 * run.solution.nfe
        assert pipe.transformer.forward is counted
    return found, run.solution.blocks


@pytest.mark.unit_part(family=["flux"], how=["model"])
@pytest.mark.parametrize("how", ["model", "sequential", "group"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["flux", "wan21"])
def test_a_cache_leaves_out_the_same_wherever_the_weights_wait_and_stays_within_what_shares_a_call_out(
    family: str, kind: str, how: str
) -> None:
    (held, of_held), (away, of_away) = latents(family, kind, "none"), latents(family, kind, how)
    assert torch.equal(held, away)
    assert of_held == of_away
