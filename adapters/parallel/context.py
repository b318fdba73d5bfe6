"""Context parallelism: the tokens of one evaluation split among ranks, by diffusers' own means.

A plan says where a transformer's tokens are split, and where its output is gathered. diffusers knows this of some
(`_cp_plan`); the others' plans are ours, for the forward passes of diffusers 0.42: after the patches and the text have been
embedded, both streams are split along the tokens, each rank keeps its part of either through all blocks, and the last
projection's output is gathered. Attention sees all tokens in the order rank by rank, which only a mask or positions, given
with the tokens, could tell from the usual one.

Sums are taken in another order than on one rank: outputs differ by about 1e-7 in float32.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from genrun.adapters.errors import RefusedError
from genrun.adapters.parallel.slot import Slot
from genrun.adapters.parallel.support import no_ring, uneven
from genrun.adapters.pipeline.denoisers import set_kernel, transformers_of
from genrun.adapters.shapes import Mask


@dataclass(frozen=True)
class ContextPlan:
    """The plan of one class of transformer.

    Attributes:
        modules: a `cp_plan` for `enable_parallelism`, or None for diffusers' own.
        whole: modules that every rank runs on all their tokens; their attention stays as it is.
        masked: lists of blocks, and which of their arguments is a mask over [image, text], to follow the tokens' order.
        direct: its attention processors call `scaled_dot_product_attention` themselves.
    """

    modules: Mapping[str, Any] | None = None
    whole: tuple[str, ...] = ()
    masked: tuple[tuple[str, ...], int] | None = None
    direct: bool = False


def plan_for(transformer: Any) -> ContextPlan:
    """Return the plan for a transformer: ours, or diffusers' own."""
    return _PLANS.get(type(transformer).__name__, ContextPlan)()


def _two_streams(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Split the tokens of image and text before the first block, (B, S, C), and gather the output."""
    from diffusers.models._modeling_parallel import ContextParallelInput, ContextParallelOutput

    tokens = ContextParallelInput(split_dim=1, expected_dims=3)
    first = {"hidden_states": tokens, "encoder_hidden_states": tokens}
    return {**extra, "transformer_blocks.0": first, "proj_out": ContextParallelOutput(gather_dim=1, expected_dims=3)}


def _hunyuanvideo() -> ContextPlan:
    """Split positions that `rope` makes, (S, D) each; the text refiner sees the whole text on every rank."""
    from diffusers.models._modeling_parallel import ContextParallelInput

    positions = ContextParallelInput(split_dim=0, expected_dims=2, split_output=True)
    blocks = ("transformer_blocks", "single_transformer_blocks")
    return ContextPlan(_two_streams({"rope": {0: positions, 1: positions}}), ("context_embedder",), (blocks, 3))


def _cogvideox() -> ContextPlan:
    """Split positions given as an argument, (S, D) each; the patch embedding takes text and image together."""
    from diffusers.models._modeling_parallel import ContextParallelInput

    positions = ContextParallelInput(split_dim=0, expected_dims=2)
    return ContextPlan(_two_streams({"": {"image_rotary_emb": [positions, positions]}}), direct=True)


def _sd3() -> ContextPlan:
    """Split no positions: they are in the patch embedding already."""
    return ContextPlan(_two_streams({}), direct=True)


_PLANS = {
    "CogVideoXTransformer3DModel": _cogvideox,
    "HunyuanVideoTransformer3DModel": _hunyuanvideo,
    "SD3Transformer2DModel": _sd3,
}


RING_BACKEND = "_native_flash"
"""diffusers' name of an attention that comes with torch and returns its log-sum-exp; its default one does not."""


def share_tokens(pipe: Any, slot: Slot) -> None:
    """Share the tokens of every evaluation out among the ring x ulysses ranks of a slot.

    Raises:
        RefusedError: this device, or the model's number of heads, does not allow it.
    """
    for model in transformers_of(pipe):
        _check(model, slot, torch.device(pipe._execution_device).type)
        _share_tokens_of(model, plan_for(model), slot)


def _check(model: Any, slot: Slot, device: str) -> None:
    of_ring = no_ring(device, str(model.dtype).removeprefix("torch.")) if slot.ring > 1 else None
    if of_ring is not None:
        raise RefusedError(f"parallel.ring {of_ring}")
    wrong = uneven(type(model).__name__, model.config.num_attention_heads, slot.ulysses)
    if wrong is not None:
        raise RefusedError(f"parallel.ulysses: {wrong}")


def _share_tokens_of(model: Any, plan: ContextPlan, slot: Slot) -> None:
    from diffusers.models._modeling_parallel import ContextParallelConfig

    if plan.direct:
        dispatch_all(model)
    if slot.ring > 1:
        set_kernel(model, RING_BACKEND)
    # Numbers of tokens that cannot be divided equally (SD3 has 333 of text) are only known by one of the two at a time.
    config = ContextParallelConfig(
        ring_degree=slot.ring,
        ulysses_degree=slot.ulysses,
        ulysses_anything=slot.ring == 1,
        ring_anything=slot.ulysses == 1,
        mesh=slot.mesh,
    )
    with _counting_a_device():
        model.enable_parallelism(config=config, cp_plan=dict(plan.modules) if plan.modules else None)
    for name in plan.whole:
        for module in model.get_submodule(name).modules():
            if getattr(getattr(module, "processor", None), "_parallel_config", None) is not None:
                module.processor._parallel_config = None
    if plan.masked:
        blocks, position = plan.masked
        MaskOrder(slot.ulysses, position).watch(model, blocks)


@contextmanager
def _counting_a_device() -> Iterator[None]:
    """Let diffusers count one accelerator on a machine that has only its CPU: it divides by their number."""
    count = torch.accelerator.device_count
    if count():
        yield
        return
    torch.accelerator.device_count = lambda: 1
    try:
        yield
    finally:
        torch.accelerator.device_count = count


class MaskOrder:
    """Gives each block its mask over [image, text] in the order in which attention sees the tokens: rank by rank.

    Args:
        ranks: that share the tokens.
        position: of the mask among a block's arguments.
    """

    def __init__(self, ranks: int, position: int) -> None:
        self._ranks, self._position, self._text = ranks, position, 0

    def watch(self, model: Any, blocks: Sequence[str]) -> None:
        """Follow every evaluation of a transformer whose lists of blocks have these names."""
        model.register_forward_pre_hook(self._note, with_kwargs=True)
        for name in blocks:
            for block in model.get_submodule(name):
                block.register_forward_pre_hook(self._reorder)

    def _note(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        bound = inspect.signature(model.forward).bind(*args, **kwargs)
        self._text = bound.arguments["encoder_hidden_states"].shape[1]

    def _reorder(self, block: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        del block
        before, mask, after = args[: self._position], args[self._position], args[self._position + 1 :]
        return (*before, rank_by_rank(mask, mask.shape[-1] - self._text, self._ranks), *after)


def rank_by_rank(mask: Mask, image: int, ranks: int) -> Mask:
    """Reorder a mask over [image, text] tokens, (..., S), to [image of rank 0, text of rank 0, image of rank 1, ...]."""
    of_image, of_text = mask.split([image, mask.shape[-1] - image], dim=-1)
    parts = zip(of_image.tensor_split(ranks, dim=-1), of_text.tensor_split(ranks, dim=-1), strict=True)
    return torch.cat([part for pair in parts for part in pair], dim=-1)


class _Dispatch(TorchFunctionMode):
    """Sends `scaled_dot_product_attention`, (B, H, S, D), through diffusers' dispatch, (B, S, H, D), which knows ranks."""

    def __init__(self, processor: Any) -> None:
        super().__init__()
        self._processor = processor

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        from diffusers.models.attention_dispatch import dispatch_attention_fn

        # Torch leaves the mode while this runs, so that the attention that it ends in is torch's.
        processor, tensors = self._processor, [tensor.transpose(1, 2) for tensor in args]
        attended = dispatch_attention_fn(
            *tensors, **kwargs, backend=processor._attention_backend, parallel_config=processor._parallel_config
        )
        return attended.transpose(1, 2)


@cache
def dispatching(stock: type) -> type:
    """Return a subclass of a processor whose attention goes through diffusers' dispatch, like that of newer models."""

    @wraps(stock.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with _Dispatch(self):
            return stock.__call__(self, *args, **kwargs)

    members = {"__call__": call, "_attention_backend": None, "_parallel_config": None}
    return type(f"Dispatching{stock.__name__}", (stock,), members)


def dispatch_all(transformer: Any) -> None:
    """Have each processor of a transformer do so, once: modules may share one, and newer models' do it by themselves."""
    for module in transformer.modules():
        processor = getattr(module, "processor", None)
        if processor is not None and not hasattr(processor, "_parallel_config"):
            processor.__class__ = dispatching(type(processor))
