"""Run by ranks of test_slots.py: evaluations shared by two gloo ranks, beside one rank that makes them alone."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

import genrun
from genrun.adapters.errors import RefusedError
from genrun.adapters.parallel.enable import enable_parallelism
from genrun.adapters.parallel.exchange import Exchange, GroupExchange
from genrun.adapters.parallel.slot import BrokenSlotError, FailureBarrier, Slot
from genrun.adapters.parallel.support import AXES
from tests.tiny import build, call_kwargs, latents_of

CONTEXT = ("flux", "flux2", "wan21", "hunyuanvideo", "cogvideox_dpm", "sd3", "qwenimage", "flux2_klein")
TWICE = ("flux", "wan22", "hunyuanvideo", "qwenimage", "flux2_klein", "wan22_i2v", "flux_kontext", "hunyuanvideo_i2v")
DOUBLED = ("sd3", "cogvideox_ddim", "sd2", "ltx", "cogvideox15_i2v", "mochi", "sana")
CACHES = ({"kind": "first_block", "threshold": 0.5}, {"kind": "toca", "drift": 10.0})
MODELS = ("transformer", "transformer_2", "unet")


def sample(pipe: Any, family: str, exchange: Exchange | None = None, **changes: Any) -> Tensor:
    """Latents of a short call under a parallel solver that stops early."""
    with genrun.parallelize(pipe, "paradigms", exchange=exchange, workers=4, tolerance=0.05):
        return latents_of(pipe(**{**call_kwargs(family), **changes})).float()


def distance(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, in units of the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def wrapped(pipe: Any, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put something around the forward of each model of a pipeline."""
    for name in MODELS:
        model = getattr(pipe, name, None)
        if model is not None:
            model.forward = wraps(model.forward)(around(model.forward))


def counted(pipe: Any) -> list[int]:
    """Counts the rows that the pipeline's models evaluate."""
    rows = [0]

    def around(plain: Any) -> Any:
        def forward(*args: Any, **kwargs: Any) -> Any:
            first = args[0] if args else kwargs["hidden_states"]
            rows[0] += len(first)
            return plain(*args, **kwargs)

        return forward

    wrapped(pipe, around)
    return rows


def tokens_seen(pipe: Any) -> list[int]:
    """Counts the image tokens that the first block is given."""
    blocks = getattr(pipe.transformer, "blocks", None) or pipe.transformer.transformer_blocks
    seen: list[int] = []
    last = blocks[-1]
    plain = last.forward

    @wraps(plain)
    def forward(*args: Any, **kwargs: Any) -> Any:
        seen.append((args[0] if args else kwargs["hidden_states"]).shape[1])
        return plain(*args, **kwargs)

    last.forward = forward
    return seen


def halves_in_turn(pipe: Any) -> None:
    """One rank evaluates a doubled batch as two ranks do: half by half."""

    def around(plain: Any) -> Any:
        def forward(*args: Any, **kwargs: Any) -> Any:
            halves = [({}, []), ({}, [])]
            rows = len(args[0] if args else kwargs["hidden_states"])
            for number, (named, unnamed) in enumerate(halves):
                named.update({key: half(value, rows, number) for key, value in kwargs.items()})
                unnamed.extend(half(value, rows, number) for value in args)
            return (torch.cat([plain(*unnamed, **named)[0] for named, unnamed in halves]),)

        return forward

    wrapped(pipe, around)


def half(value: Any, rows: int, number: int) -> Any:
    """Half of what is as long as the batch. The tiny models have nothing else of two rows."""
    is_batch = isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == rows
    return value.chunk(2)[number] if is_batch else value


def context(family: str, slot: Slot, points: Any) -> dict[str, Any]:
    """One rank's latents against those of time 2 x ulysses 2."""
    pipe = build(family)
    seen = tokens_seen(pipe)
    alone = sample(pipe, family)
    of_all = seen[-1]
    enable_parallelism(pipe, slot)
    return {"distance": distance(sample(pipe, family, GroupExchange(points)), alone), "share": seen[-1] / of_all}


def guidance(family: str, dtype: torch.dtype, slot: Slot, points: Any) -> dict[str, Any]:
    """One rank's latents against those of time 2 x cfg 2, and the rows evaluated by either."""
    pipe = build(family, dtype)
    rows = counted(pipe)
    alone, of_one = sample(pipe, family), rows[0]
    enable_parallelism(pipe, slot)
    found = {"distance": distance(both := sample(pipe, family, GroupExchange(points)), alone)}
    if family in DOUBLED:
        other = build(family, dtype)
        halves_in_turn(other)
        found["distance of halves"] = distance(both, sample(other, family))
    return {**found, "share": (rows[0] - of_one) / of_one}


def cached(family: str, slot: Slot, cache: dict[str, Any]) -> dict[str, Any]:
    """One rank's latents under a cache against those of cfg 2 x ulysses 2, and the blocks that either left out."""
    found, pipe = [], build(family)
    for is_shared in (False, True):
        if is_shared:
            enable_parallelism(pipe, slot)
        with genrun.parallelize(pipe, "paradigms", cache=cache, workers=4, tolerance=0.05) as run:
            latents = latents_of(pipe(**call_kwargs(family))).float()
        found.append((latents, run.solution))
    (alone, of_one), (both, of_all) = found
    blocks = {name: [s.blocks, s.blocks_full] for name, s in (("alone", of_one), ("blocks", of_all))}
    return {"distance": distance(both, alone), **blocks}


def refusal(family: str, slot: Slot, **changes: Any) -> str:
    """What is said of a call that has nothing to share."""
    pipe = build(family)
    enable_parallelism(pipe, slot)
    try:
        sample(pipe, family, **changes)
    except RefusedError as refused:
        return str(refused)
    return "nothing"


@contextmanager
def breaking(pipe: Any, here: bool, error: Exception) -> Iterator[None]:
    """The third call of the last block fails on one rank."""
    calls = [0]

    def broken(*_: Any) -> None:
        calls[0] += 1
        if here and calls[0] == 3:
            raise error

    handle = pipe.transformer.transformer_blocks[-1].register_forward_pre_hook(broken)
    yield
    handle.remove()


def failure(slot: Slot, alarm: FailureBarrier, points: Any, culprits: tuple[int, ...]) -> str:
    """What becomes of this rank when some ranks' evaluations fail."""
    pipe = build("flux")
    enable_parallelism(pipe, slot)
    try:
        with breaking(pipe, dist.get_rank() in culprits, MemoryError("no memory left")):
            sample(pipe, "flux", GroupExchange(points))
    except Exception as error:
        try:
            alarm.wait(error)
        except BrokenSlotError as broken:
            return str(broken)
        return type(error).__name__
    return "nothing"


def main() -> None:
    """Write this rank's findings."""
    from torch.distributed.device_mesh import init_device_mesh

    dist.init_process_group("gloo")
    tokens = init_device_mesh("cpu", (1, 2, 1, 1, 2), mesh_dim_names=AXES)
    branches = init_device_mesh("cpu", (1, 2, 2, 1, 1), mesh_dim_names=AXES)
    points = tokens.get_group("time")
    two, guided = Slot(tokens, ulysses=2), Slot(branches, cfg=2)
    found: dict[str, Any] = {"context": {}, "guidance": {}}
    for family in CONTEXT:
        found["context"][family] = context(family, two, points)
    for family in TWICE + DOUBLED:
        for dtype in (torch.float32, torch.bfloat16) if family in TWICE[:2] else (torch.float32,):
            name = f"{family} {dtype}".replace("torch.", "")
            found["guidance"][name] = guidance(family, dtype, guided, points)
    square = Slot(init_device_mesh("cpu", (1, 1, 2, 1, 2), mesh_dim_names=AXES), cfg=2, ulysses=2)
    found["cached"] = {
        f"{family} {cache['kind']}": cached(family, square, cache) for family in ("sd3", "wan21") for cache in CACHES
    }
    found["nothing to share"] = [
        refusal("flux", guided, true_cfg_scale=1.0),
        refusal("sd3", guided, guidance_scale=1.0),
    ]
    slots: list[Any] = [dist.new_group([0, 1]), dist.new_group([2, 3])]
    alarm = FailureBarrier(slots[dist.get_rank() // 2], grace_s=1.0)
    found["all fail"] = failure(two, alarm, points, (0, 1, 2, 3))
    file = Path(os.environ["FOUND"], f"{dist.get_rank()}.json")
    file.write_text(json.dumps(found))
    dist.barrier()
    found["one fails"] = failure(two, alarm, points, (3,))
    file.write_text(json.dumps(found))
    if dist.get_rank() == 3:
        sys.exit(3)
    dist.barrier()
