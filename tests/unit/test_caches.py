"""Caches on stock pipelines: they save blocks, never change what they may not, and forget between samples."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache as once
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import genrun
from genrun.adapters.caches import registry
from genrun.adapters.caches.manager import ROUNDS_KEPT, CacheManager
from genrun.adapters.errors import CacheError, RefusedError
from genrun.adapters.pipeline.denoisers import blocks_of, transformer_of
from genrun.adapters.pipeline.denoisers import refusal as attention_refusal
from genrun.registry import UnknownNameError
from genrun.solvers import registry as solvers
from tests.tiny import build as build_anew
from tests.tiny import call_kwargs, generator, latents_of

RATIOS = {"ratios": (1.0, 1.0)}
WAYS: Mapping[str, Mapping[str, Any]] = {
    "first_block": {"threshold": 0.5},
    "pab": {"start": 1001, "stop": -1, "drift": 10.0},
    "faster": {"attention_below": 1001},
    "taylorseer": {"warmup": 2, "interval": 2},
    "mag": {**RATIOS, "warmup": 0.0, "skips": 1},
    "toca": {"drift": 10.0},
    "dbcache": {"threshold": 0.5},
}
"""Options with which each cache saves something on weights of noise."""

NEUTRAL: Mapping[str, Mapping[str, Any]] = {
    "first_block": {"threshold": 0.0},
    "pab": {"spatial": 1, "cross": 1},
    "faster": {"attention": 1, "unconditional": 1},
    "taylorseer": {"interval": 1},
    "mag": {**RATIOS, "threshold": 0.0},
    "toca": {"interval": 1},
    "dbcache": {"threshold": 0.0},
}
"""Options with which each cache computes everything."""

FAMILIES = {
    "flux": "flux",
    "hunyuanvideo": "hunyuanvideo",
    "wan21": "wan21",
    "cogvideox": "cogvideox_ddim",
    "sd3": "sd3",
}
ONE_BLOCK_LISTS = {("dbcache", "hunyuanvideo")}
"""cache-dit counts first blocks in each list, and the tiny one has lists of one block."""
KINDS = [kind for kind in WAYS if kind != "dbcache" or find_spec("cache_dit")]


@once
def build(family: str) -> Any:
    """One pipeline for all tests: each must leave it as it was."""
    return build_anew(family)


@once
def uncached(family: str, solver: str) -> tuple[Tensor, Any]:
    """What a solver of `way` makes without a cache."""
    options = next(options for name, options in map(way, KINDS) if name == solver)
    return sampled(build(family), family, None, solver, **options)


def sampled(pipe: Any, family: str, cache: Any, solver: str = "paradigms", **options: Any) -> tuple[Tensor, Any]:
    call = {**call_kwargs(family), "num_inference_steps": 6, "generator": generator(options.pop("seed", 0))}
    with genrun.parallelize(pipe, solver, cache=cache, **options) as run:
        latents = latents_of(pipe(**call))
    return latents, run


def way(kind: str) -> tuple[str, dict[str, Any]]:
    """The solver to try a cache with: a parallel one, unless it needs order."""
    ordered = registry.get(kind).needs_order
    return ("sequential", {}) if ordered else ("paradigms", {"workers": 4, "tolerance": 0.02})


@pytest.mark.unit_part(family=["flux", "cogvideox_ddim"])
@pytest.mark.parametrize("family", FAMILIES.values())
@pytest.mark.parametrize("kind", KINDS)
def test_it_saves_blocks_and_leaves_the_model_as_it_was(kind: str, family: str) -> None:
    pipe = build(family)
    solver, options = way(kind)
    if transformer_of(type(pipe).__name__) not in registry.get(kind).models:
        with pytest.raises(CacheError, match=f"{kind} does not work on"):
            sampled(pipe, family, {"kind": kind, **WAYS[kind]}, solver, **options)
        return
    plain, run = uncached(family, solver)
    assert run.solution.blocks == run.solution.nfe * len(blocks_of(pipe.transformer)) * calls(pipe)
    cached, run = sampled(pipe, family, {"kind": kind, **WAYS[kind]}, solver, **options)
    done, asked = run.manager.blocks
    assert run.solution.blocks == pytest.approx(done, abs=0.1)
    if (kind, family) not in ONE_BLOCK_LISTS:
        assert done < 0.97 * asked
        assert not torch.equal(cached, plain)
    assert cached.isfinite().all()
    again, _ = sampled(pipe, family, None, solver, **options)
    assert torch.equal(again, plain)


def calls(pipe: Any) -> int:
    """Model calls of an evaluation: cond and uncond apart, or one for both."""
    return 1 if type(pipe).__name__ in ("CogVideoXPipeline", "StableDiffusion3Pipeline") else 2


@pytest.mark.parametrize(
    ("kind", "family"),
    [
        (kind, family)
        for kind in KINDS
        for family, pipeline in (("wan21", "WanPipeline"), ("sd3", "StableDiffusion3Pipeline"))
        if transformer_of(pipeline) in registry.get(kind).models
    ],
)
def test_with_a_threshold_of_zero_the_bits_are_those_of_no_cache(kind: str, family: str) -> None:
    pipe, (solver, options) = build(family), way(kind)
    plain, _ = uncached(family, solver)
    cached, run = sampled(pipe, family, {"kind": kind, **NEUTRAL[kind]}, solver, **options)
    assert torch.equal(cached, plain)
    assert run.manager.blocks[0] == pytest.approx(run.manager.blocks[1])


@pytest.mark.parametrize(("cooldown", "computed"), [(0, {0, 2, 5}), (2, {0, 2, 4, 5}), (9, set(range(6)))])
def test_taylorseer_computes_first_and_last_steps_and_every_nth_between(cooldown: int, computed: set[int]) -> None:
    cache = {"kind": "taylorseer", "lite": True, "interval": 3, "warmup": 1, "cooldown": cooldown}
    _, run = sampled(build("sd3"), "sd3", cache, "sequential")
    done, asked = run.manager.blocks
    assert done == pytest.approx(asked * len(computed) / 6)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_leaks_from_one_sample_to_the_next(kind: str) -> None:
    pipe, (solver, options) = build("wan21"), way(kind)
    cache = {"kind": kind, **WAYS[kind]}
    alone, _ = sampled(pipe, "wan21", cache, solver, seed=1, **options)
    with genrun.parallelize(pipe, solver, cache=cache, **options) as run:
        found = []
        for seed in (0, 1):
            call = {**call_kwargs("wan21"), "num_inference_steps": 6, "generator": generator(seed)}
            found.append(latents_of(pipe(**call)))
            assert not run.manager.contexts
    assert torch.equal(found[1], alone)


def test_contexts_are_of_points_and_branches_and_no_more_than_two_rounds_of_them() -> None:
    pipe, seen = build("wan21"), []
    with genrun.parallelize(pipe, "paradigms", workers=3, tolerance=0.0, cache="first_block") as run:
        inner = pipe.transformer.register_forward_hook(lambda *_: seen.append(run.manager.contexts))
        pipe(**{**call_kwargs("wan21"), "num_inference_steps": 8})
        inner.remove()
    assert {"cond@0", "uncond@0", "cond@5", "uncond@7"} <= set().union(*seen)
    # Forgetting is done when a round is shared out; this round's own points come on top of what is kept.
    assert max(len(contexts) for contexts in seen) <= 2 * ROUNDS_KEPT * 3


def test_in_order_a_context_goes_from_step_to_step() -> None:
    pipe, seen = build("sd3"), set[str]()
    with genrun.parallelize(pipe, "sequential", cache="first_block") as run:
        inner = pipe.transformer.register_forward_hook(lambda *_: seen.update(run.manager.contexts))
        pipe(**call_kwargs("sd3"))
        inner.remove()
    assert seen == {"call0"}


def test_a_step_that_a_solver_takes_back_is_forgotten() -> None:
    """Outputs jump at step 5, so that a gap which reaches beyond was too long."""
    pipe, seen, computed = build("sd3"), list[int](), list[int]()

    def jump(_: object, __: object, output: tuple[Tensor]) -> tuple[Tensor]:
        seen.append(run.scheduler.current.index)
        return (output[0] + 50 * (seen[-1] >= 5),)

    cache = {"kind": "first_block", "threshold": 1e9}
    with genrun.parallelize(pipe, "collocation", cache=cache, workers=1, tolerance=1.0) as run:
        inner = pipe.transformer.transformer_blocks[-1].attn
        hooks = [
            pipe.transformer.register_forward_hook(jump),
            inner.register_forward_hook(lambda *_: computed.append(run.scheduler.current.index)),
        ]
        pipe(**{**call_kwargs("sd3"), "num_inference_steps": 20})
        for hook in hooks:
            hook.remove()
    taken_back = [after for before, after in pairwise(seen) if after <= before]
    assert taken_back
    assert computed == [0, *taken_back]


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "dbcache"])
def test_skip_layer_guidance_may_leave_out_the_layer_that_a_cache_goes_by(kind: str, layer: int) -> None:
    pipe, found = build("sd3"), list[Tensor]()
    call = {**call_kwargs("sd3"), "skip_guidance_layers": [layer], "skip_layer_guidance_stop": 1.0}
    for options in (None, NEUTRAL[kind], WAYS[kind]):
        cache = None if options is None else {"kind": kind, **options}
        with genrun.parallelize(pipe, "sequential", cache=cache):
            found.append(latents_of(pipe(**{**call, "generator": generator(0)})))
    plain, neutral, cached = found
    assert torch.equal(neutral, plain)
    assert cached.isfinite().all()
    assert not torch.equal(cached, plain)


@pytest.mark.parametrize("family", ["sd3", "cogvideox_ddim"])
def test_faster_leaves_calls_without_guidance_whole(family: str) -> None:
    pipe, call = build(family), {**call_kwargs(family), "guidance_scale": 1.0}
    found = []
    for options in (None, NEUTRAL["faster"], WAYS["faster"]):
        cache = None if options is None else {"kind": "faster", **options}
        with genrun.parallelize(pipe, "sequential", cache=cache):
            found.append(latents_of(pipe(**{**call, "generator": generator(0)})))
    plain, neutral, cached = found
    assert torch.equal(neutral, plain)
    assert not torch.equal(cached, plain)


def test_a_point_stays_with_its_rank_and_every_rank_knows() -> None:
    keepers = [
        CacheManager(registry.make({"kind": "first_block"}), build("sd3"), solvers.get("ropa")(workers=4)) for _ in "ab"
    ]
    rounds = [[0], [1, 2, 3, 4], [2, 3, 4, 5], [4, 5, 6, 7], [7, 9, 11, 13]]
    found = [[manager.owners(points, 2, rank) for points in rounds] for rank, manager in enumerate(keepers)]
    assert found[0] == found[1]
    owner: dict[int, int] = {}
    for points, owners in zip(rounds, found[0], strict=True):
        assert all(owner.setdefault(point, rank) == rank for point, rank in zip(points, owners, strict=True))
        assert abs(owners.count(0) - owners.count(1)) <= 1


def test_a_probe_has_no_state_and_goes_to_the_rank_with_least_to_do() -> None:
    manager = CacheManager(
        registry.make({"kind": "first_block"}),
        build("sd3"),
        solvers.get("collocation")(workers=8),
    )
    assert manager.owners([0], 2, 0) == [0]
    first = manager.owners([1, 3, 5, 7, 7, 7, 7], 2, 0)
    assert sorted([first.count(0), first.count(1)]) == [3, 4]
    again = manager.owners([3, 5, 7, 9, 9], 2, 0)
    assert again[:3] == first[1:4]


def test_a_probe_never_takes_what_a_cache_remembers_of_its_step() -> None:
    pipe, seen = build("sd3"), list[set[str]]()
    options = {"workers": 8, "tolerance": 0.1}
    with genrun.parallelize(pipe, "collocation", cache={"kind": "first_block", "threshold": 10.0}, **options) as run:
        inner = pipe.transformer.register_forward_hook(lambda *_: seen.append(run.manager.contexts))
        pipe(**{**call_kwargs("sd3"), "num_inference_steps": 20})
        inner.remove()
    probes = [name for name in set().union(*seen) if "." in name]
    assert len(probes) >= 4
    assert all(1 <= sum(name in contexts for contexts in seen) <= 16 for name in probes)


def test_toca_remembers_no_more_than_it_may() -> None:
    from genrun.adapters.caches.contract import Place
    from genrun.adapters.caches.toca import Toca
    from genrun.adapters.caches.toca_hooks import TocaStates

    pipe = build("wan21")
    sizes = []
    for limit in (1.0, 5e-6):
        place = Place(context="a")
        states = Toca(memory_gb=limit).attach(pipe.transformer, place)
        assert isinstance(states, TocaStates)
        states.select(place)
        pipe.transformer(torch.zeros(1, 16, 3, 4, 4), torch.tensor([500.0]), torch.zeros(1, 16, 16))
        sizes.append(states.size_bytes())
        assert states.size_bytes() <= limit * 1e9
        states.detach()
    assert sizes[1] < sizes[0]


def test_toca_computes_the_share_of_tokens_that_it_says_the_earlier_the_more() -> None:
    from genrun.adapters.caches.toca import Toca

    toca = Toca(ratio=0.2, depth_weight=0.5, step_weight=0.5)
    assert toca.share(0, 0) == pytest.approx(0.2 * 1.5 * 1.5)
    assert toca.share(1, 1) == pytest.approx(0.2 * 0.5 * 0.5)
    assert toca.share(0.5, 0.5) == pytest.approx(0.2)


def test_tocas_scores_find_the_token_that_all_attend_to() -> None:
    from genrun.adapters.caches.toca_tokens import control, influence, spread

    query = torch.randn(1, 8, 16, generator=generator(0))
    key = torch.randn(1, 8, 16, generator=generator(1)) * 0.1
    key[0, 5] = query[0].mean(0) * 20
    query = query + 3 * key[0, 5]
    received = influence(query, key, heads=2)
    assert received.argmax() == 5
    assert received.mean() == pytest.approx(1.0)
    same = control(query, key[:, :1].expand(1, 4, 16), heads=2)
    assert torch.allclose(same, torch.ones(1, 8), atol=1e-5)
    raised = spread(torch.tensor([[1.0, 2.0, 0.5, 0.0, 3.0]]), bonus=0.5)
    assert raised.tolist() == [[1.0, 3.0, 0.5, 0.0, 4.5]]


@pytest.mark.parametrize("kind", ["faster", "taylorseer", "mag"])
def test_what_goes_by_the_order_of_steps_is_refused_on_a_parallel_solver(kind: str) -> None:
    with pytest.raises(CacheError, match=f"{kind} needs evaluations in the order of steps.*Use solver sequential"):
        sampled(build("flux"), "flux", {"kind": kind}, "ropa", workers=8)


def test_mag_without_ratios_is_refused_with_what_to_do() -> None:
    with pytest.raises(CacheError, match="mag needs the ratios of this checkpoint"):
        sampled(build("sd3"), "sd3", "mag", "sequential")


def test_a_unet_is_refused() -> None:
    with pytest.raises(CacheError, match="has a UNet: leave cache out"):
        sampled(build("sd2"), "sd2", "first_block")


def test_a_batch_is_refused() -> None:
    call = {**call_kwargs("sd3"), "num_images_per_prompt": 2}
    pipe = build("sd3")
    with genrun.parallelize(pipe, "ropa", cache="toca"), pytest.raises(RefusedError, match="2 samples of a batch"):
        pipe(**call)


def test_an_unknown_cache_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'first_block'"):
        registry.get("first_blok")


def test_attention_kernels_that_are_missing_name_their_install_line() -> None:
    for kernel, line in (("flash", "pip install flash-attn"), ("sparge", "SpargeAttn.git")):
        assert line in (attention_refusal(kernel, None) or "")
    assert attention_refusal("native", None) is None


def test_attention_that_would_change_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from genrun.adapters.pipeline import denoisers

    monkeypatch.setattr(denoisers, "find_spec", lambda _: object())
    assert "would change nothing" in (attention_refusal("sage", "SD3Transformer2DModel") or "")
    assert attention_refusal("sage", "FluxTransformer2DModel") is None


@pytest.mark.skipif("dbcache" not in KINDS, reason="cache-dit is not installed")
@pytest.mark.parametrize("family", ["flux", "wan21"])
def test_a_cache_after_another_finds_the_model_as_if_it_were_the_first(family: str) -> None:
    cache = {"kind": "first_block", **WAYS["first_block"]}
    first, _ = sampled(build_anew(family), family, cache, "sequential")
    pipe = build_anew(family)
    for kind in KINDS:
        solver, options = way(kind)
        sampled(pipe, family, {"kind": kind, **WAYS[kind]}, solver, **options)
    again, _ = sampled(pipe, family, cache, "sequential")
    assert torch.equal(again, first)


def test_rows_that_a_layer_hands_out_from_memory_are_not_counted() -> None:
    """ToCa hooks linear layers of Flux itself, those of the single block: at ratio 0 it computes none of their tokens."""
    rows = dict.fromkeys((0.0, 1.0), 0.0)
    for ratio in rows:
        cache = {"kind": "toca", **WAYS["toca"], "ratio": ratio, "depth_weight": 0.0, "step_weight": 0.0}
        _, run = sampled(build("flux"), "flux", cache, "sequential")
        rows[ratio] = run.solution.blocks / run.solution.blocks_full
    # Of the six evaluations three compute feed-forward layers for all tokens or none: well above a third of their work.
    assert rows[0.0] < rows[1.0] - 0.5 / 3


def test_a_kernel_of_one_item_is_not_that_of_the_next() -> None:
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    from genrun.adapters.pipeline.denoisers import set_kernel

    pipe = build_anew("flux")
    set_kernel(pipe.transformer, "_native_math")
    kernel = pipe.transformer.transformer_blocks[0].attn.processor._attention_backend
    assert kernel == "_native_math"
    assert _AttentionBackendRegistry.get_active_backend()[0] != kernel


@pytest.mark.parametrize("family", ["flux", "hunyuanvideo", "wan21", "qwenimage", "ltx"])
def test_kernels_without_masks_are_refused_where_a_call_has_one(family: str) -> None:
    from genrun.adapters.pipeline.denoisers import set_kernel, unsuited

    pipe = build_anew(family, torch.bfloat16)
    refused = unsuited("flash", type(pipe.transformer).__name__)
    set_kernel(pipe.transformer, "_native_flash")
    call = {**call_kwargs(family), "num_inference_steps": 2}
    if refused is None:
        assert latents_of(pipe(**call)).isfinite().all()
        return
    assert "knows no masks" in refused
    with pytest.raises(ValueError, match="attn_mask"):
        pipe(**call)
