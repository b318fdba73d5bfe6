"""What hooks, attention processors and patched methods of a model keep from evaluation to evaluation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

import pytest
import torch

import genrun
from genrun.adapters.errors import RefusedError
from genrun.adapters.scheduler.between_steps import ModelWatch
from tests.tiny import build
from tests.unit.test_loops import arguments, check_exact


def averaging(kept: dict[str, Any], output: Any) -> Any:
    """Take the mean of an output and the one before."""
    before = kept.get("output", output[0])
    kept["output"] = output[0]
    return ((output[0] + before) / 2,)


class Averaging:
    """A processor of attention that remembers."""

    def __init__(self, plain: Any) -> None:
        self.plain, self.last = plain, {}

    def __call__(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        output = self.plain(layer, *args, **kwargs)
        first = averaging(self.last, output)[0]
        return (first, *output[1:])


def put_around_a_hook(pipe: Any) -> None:
    kept: dict[str, Any] = {}
    pipe.transformer.register_forward_hook(lambda _, __, output: averaging(kept, output))


def put_around_a_forward(pipe: Any) -> None:
    plain, kept = pipe.transformer.forward, {}
    pipe.transformer.forward = lambda *args, **kwargs: averaging(kept, plain(*args, **kwargs))


def put_into_a_processor(pipe: Any) -> None:
    attention = pipe.transformer.transformer_blocks[0].attn
    attention.processor = Averaging(attention.processor)


WHERE_KEPT: dict[str, tuple[Callable[[Any], None], str]] = {
    "hook": (put_around_a_hook, r"keeps transformer\._forward_hooks\..*\.kept"),
    "forward": (put_around_a_forward, r"keeps transformer\.forward\.kept"),
    "processor": (put_into_a_processor, r"keeps transformer\.transformer_blocks\.0\.attn\.processor\.last"),
}


@pytest.mark.parametrize("where", WHERE_KEPT)
def test_what_a_model_keeps_beside_its_attributes_is_for_sequential_alone(where: str) -> None:
    put_in, message = WHERE_KEPT[where]
    pipe = build("flux")
    put_in(pipe)
    with genrun.parallelize(pipe, "paradigms", workers=3), pytest.raises(RefusedError, match=message):
        pipe(**arguments("flux"))
    hooks = pipe.transformer._forward_hooks.values()
    assert all(isinstance(hook, FunctionType) for hook in hooks)


def test_a_hook_that_only_looks_on_may_count() -> None:
    pipe, seen = build("flux"), []
    pipe.transformer.register_forward_hook(lambda _, __, output: seen.append(output[0]))
    pipe.transformer.register_forward_pre_hook(
        lambda _, given, by_name: (seen.append(given), given, by_name)[1:], with_kwargs=True
    )
    check_exact(pipe, partial(arguments, "flux"))
    assert all(isinstance(hook, FunctionType) for hook in pipe.transformer._forward_hooks.values())


def test_a_vae_may_count_its_layers_while_it_decodes_between_evaluations() -> None:
    pipe = build("wan21")
    pipe.vae.decode(torch.zeros(1, pipe.vae.config.z_dim, 1, 2, 2))
    watch = ModelWatch(pipe)
    assert not watch.check()
    pipe.vae._conv_idx[0] += 1  # as in the middle of the decoding of the item before, in a thread of its own
    assert watch.check()
