"""Stock attention processors that call torch's attention themselves, made to work on the ranks of a slot."""

from __future__ import annotations

from functools import cache, wraps
from typing import Any

import torch.nn.functional as F
from torch.overrides import TorchFunctionMode


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
    """A subclass of a processor whose attention goes through diffusers' dispatch, like that of the newer models."""

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
