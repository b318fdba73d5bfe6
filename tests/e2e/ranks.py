"""Run by ranks of test_ranks.py: one item on groups of 1, 2 and 4 gloo ranks, and the ways in which it can fail."""

from __future__ import annotations

import itertools
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import genrun
from genrun.adapters.parallel.exchange import Exchange, ExchangeError, GroupExchange, LocalExchange
from genrun.solvers import NonFiniteError
from tests.tiny import FAMILIES, WITH_PICTURE, build, call_kwargs, latents_of

CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("sd3", "paradigms", {}),
    ("sd3", "collocation", {}),
    ("sd3_jumping", "collocation", {}),
    ("wan21", "ropa", {}),
    ("hunyuanvideo", "parasolver-turbo", {}),
    ("cogvideox_dpm", "ropa", {}),
    ("sd3", "collocation", {"kind": "first_block", "threshold": 0.3}),
    ("wan21", "chords", {"kind": "toca", "drift": 10.0}),
    ("wan22_i2v", "chords", {"kind": "toca", "drift": 10.0}),
    *((family, "collocation", {}) for family in (*FAMILIES[FAMILIES.index("z_image") :], *WITH_PICTURE)),
]
SLOW = ("qwenimage_edit", "qwenimage_edit_first")
"""Those that encode a picture of a million pixels, whatever its size."""
LONG = ("sd3", "wan21", "hunyuanvideo", "cogvideox_dpm", "wan22_i2v")
"""Those with more steps than workers, so that a window moves; the others show that their models are followed."""


def steps_of(family: str) -> int:
    """Steps of a call."""
    return 3 if family in SLOW else 12 if family in LONG else 20 if family == "sd3_jumping" else 6


@lru_cache(maxsize=1)
def pipeline(family: str) -> Any:
    """The pipeline of the last case: built once for all numbers of ranks."""
    if family == "sd3_jumping":
        pipe: Any = build("sd3")
        pipe.transformer.register_forward_hook(jump, with_kwargs=True)
        return pipe
    return build(family, torch.bfloat16 if family == "hunyuanvideo" else torch.float32)


def jump(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
    """Predict 0 and then 40 everywhere: a gap between nodes that reaches beyond the jump is rejected."""
    sigma = kwargs["timestep"].view(-1, 1, 1, 1) / 1000
    return ((kwargs["hidden_states"] - 40 * (sigma < 0.3)) / sigma,)


def digest(family: str, solver: str, exchange: Exchange, cache: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a rank ends with."""
    pipe = pipeline(family)
    calls = count_calls(pipe)
    workers = 4 if family == "sd3_jumping" else 8
    with genrun.parallelize(pipe, solver, exchange=exchange, workers=workers, cache=cache) as run:
        output = pipe(**{**call_kwargs(family.partition("_jumping")[0]), "num_inference_steps": steps_of(family)})
    made = [latents_of(output), *([output.audio] if "audio" in output else [])]
    bits = "".join(latents.float().numpy().tobytes().hex() for latents in made)
    solution = run.solution
    return {
        "bits": hash_of(bits),
        "rounds": solution.rounds,
        "nfe": solution.nfe,
        "calls": calls[0],
        "fronts": solution.fronts,
    }


def hash_of(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


def count_calls(pipe: Any) -> list[int]:
    """Counts the calls of the transformer, or UNet."""
    calls = [0]

    def count(*_: Any) -> None:
        calls[0] += 1

    model = pipe.transformer if hasattr(pipe, "transformer") else pipe.unet
    model.register_forward_pre_hook(count)
    return calls


def fail_on(rank: int, exchange: Exchange, error: Exception | None, call: int = 3) -> str:
    """One rank's model raises, or returns NaN, at one of its calls; returns the name of the error seen here."""
    pipe: Any = build("sd3")
    calls = itertools.count(1)  # no number that is kept around the hook, which would be refused

    def break_it(module: Any, args: Any, output: Any) -> Any:
        if next(calls) == call and exchange.rank == rank:
            if error is not None:
                raise error
            return (output[0] * float("nan"),)
        return output

    pipe.transformer.register_forward_hook(break_it)
    try:
        with genrun.parallelize(pipe, "paradigms", exchange=exchange, tolerance=0.0):
            pipe(**{**call_kwargs("sd3"), "num_inference_steps": 12})
    except (ExchangeError, NonFiniteError, MemoryError) as seen:
        return type(seen).__name__
    return "nothing"


def main() -> None:
    """Write this rank's findings."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    pair = dist.new_group([0, 1])
    found: dict[str, Any] = {"cases": {}}
    for family, solver, cache in CASES:
        sizes = {"1": digest(family, solver, LocalExchange(), cache)} if rank == 0 else {}
        dist.barrier()
        if rank < 2:
            sizes["2"] = digest(family, solver, GroupExchange(pair), cache)
        sizes["4"] = digest(family, solver, GroupExchange(), cache)
        found["cases"][" ".join([family, solver, *map(str, cache.values())])] = sizes
    found["raised"] = fail_on(2, GroupExchange(), MemoryError("no memory left"))
    found["raised first"] = fail_on(1, GroupExchange(), MemoryError("no memory at all"), call=1)
    found["nan"] = fail_on(0, GroupExchange(), None)
    found["nan guess"] = fail_on(2, GroupExchange(), None)
    found["after"] = digest("sd3", "ropa", GroupExchange())["bits"]
    Path(os.environ["FOUND"], f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()
