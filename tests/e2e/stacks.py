"""Run by ranks of test_stacks.py: caches and solvers on two gloo ranks that share an item, beside one rank alone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor

import genrun
from genrun.adapters.caches import registry
from genrun.adapters.errors import RefusedError
from genrun.adapters.parallel.enable import enable_parallelism
from genrun.adapters.parallel.exchange import GroupExchange
from genrun.adapters.parallel.slot import Slot
from genrun.adapters.parallel.support import AXES, MASKED
from genrun.adapters.pipeline.denoisers import transformer_of
from genrun.runner.parallel.mesh import Mesh
from genrun.solvers import SolverError
from tests.tiny import build, call_kwargs, latents_of
from tests.unit.test_caches import WAYS

STEPS = 6
FAMILIES = {
    "sd3": ("time", "cfg", "ulysses", "ring"),
    "cogvideox_ddim": ("cfg", "ulysses"),
    "flux": ("time", "cfg", "ulysses", "ring"),
    "flux embedded": ("time", "ulysses"),
    "wan21": ("time", "cfg", "ulysses"),
    "hunyuanvideo": ("ulysses",),
}
"""Guidance in one call: the first two; in two calls: flux, wan21 and hunyuanvideo; and embedded, in one row."""

ORDERED, PARALLEL = ("sequential", {}), ("paradigms", {"workers": 4, "tolerance": 0.02})
SOLVERS = ("parataa", "parasolver", "parasolver-turbo", "ropa", "chords", "srds", "collocation")
"""The others, with one cache."""


@dataclass(frozen=True)
class Case:
    """What is sampled."""

    family: str
    cache: Mapping[str, Any] | None
    solver: str
    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What the test calls it."""
        return f"{self.family} | {'none' if self.cache is None else self.label} | {self.solver}"

    @property
    def label(self) -> str:
        """The cache, and its mode."""
        assert self.cache is not None
        return self.cache["kind"] + (" lite" if self.cache.get("lite") else "")


def caches() -> Iterator[Mapping[str, Any]]:
    """Each cache with options with which it saves something on weights of noise."""
    for kind, options in WAYS.items():
        if kind != "dbcache" or find_spec("cache_dit"):
            yield {"kind": kind, **options}
    yield {"kind": "taylorseer", "lite": True, **WAYS["taylorseer"]}


def cases(family: str) -> Iterator[Case]:
    """All caches on a family, and on the first of them all solvers."""
    for solver in (ORDERED, PARALLEL):
        yield Case(family, None, *solver)
    for cache in caches():
        for solver in (ORDERED, PARALLEL):
            if solver is ORDERED or not registry.get(cache["kind"]).needs_order:
                yield Case(family, cache, *solver)
    if family == "sd3":
        for solver in SOLVERS:
            yield Case(family, {"kind": "first_block", "threshold": 0.3}, solver, {"workers": 4})


def call(family: str) -> dict[str, Any]:
    """Arguments of a pipeline call, guided unless the guidance is to be embedded alone."""
    arguments = {**call_kwargs(family.removesuffix(" embedded")), "num_inference_steps": STEPS}
    return {**arguments, "true_cfg_scale": 1.0} if family.endswith("embedded") else arguments


def sample(pipe: Any, case: Case, points: Any = None) -> tuple[Tensor, list[float]]:
    """Latents, and the blocks computed and in full."""
    exchange = None if points is None else GroupExchange(points)
    with genrun.parallelize(pipe, case.solver, cache=case.cache, exchange=exchange, **case.options) as run:
        latents = latents_of(pipe(**call(case.family))).float()
    return latents, [run.solution.blocks, run.solution.blocks_full]


def flash_on_a_cpu(ctx: Any, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **_: Any) -> tuple[Tensor, Tensor]:
    """Torch's flash attention for CPUs in place of that for GPUs, which a ring takes for its log-sum-exp."""
    moved = (x.transpose(1, 2).contiguous() for x in (query, key, value))
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*moved, scale=rest[3])
    return out.transpose(1, 2).contiguous(), lse.transpose(1, 2).contiguous()


@contextmanager
def a_ring_of_cpus() -> Iterator[None]:
    """Let a ring go over CPUs."""
    kernel = "diffusers.models.attention_dispatch._native_flash_attention_forward_op"
    with patch(kernel, flash_on_a_cpu), patch("genrun.adapters.parallel.context._check"):
        yield


def equipped(family: str, axis: str, slots: Mapping[str, Slot]) -> Any:
    """A pipeline on two ranks."""
    pipe = build(family.removesuffix(" embedded"))
    if axis in slots:
        enable_parallelism(pipe, slots[axis])
    return pipe


def walk(axis: str, family: str, slots: Mapping[str, Slot], alone: Mapping[str, Any]) -> dict[str, Any]:
    """What each case gives on two ranks: its distance to one rank alone, or why it is refused."""
    found: dict[str, Any] = {}
    points = dist.group.WORLD if axis == "time" else None
    with a_ring_of_cpus() if axis == "ring" else nullcontext():
        pipe = equipped(family, axis, slots)
        for case in cases(family):
            if case.name not in alone:
                continue
            latents, blocks = alone[case.name]
            try:
                ours, of_ours = sample(pipe, case, points)
            except (SolverError, RefusedError) as refused:
                found[case.name] = str(refused)
                continue
            distance = float((ours - latents).abs().max() / latents.abs().max())
            found[case.name] = {"distance": distance, "blocks": of_ours, "alone": blocks}
    return found


def made_alone(family: str, rank: int, size: int) -> dict[str, Any]:
    """Latents of every case that one rank can make by itself; the ranks share the cases out."""
    mine: dict[str, Any] = {}
    pipe = build(family.removesuffix(" embedded"))
    for number, case in enumerate(cases(family)):
        if number % size == rank and _fits(case, pipe):
            mine[case.name] = sample(pipe, case)
    everyone: list[Any] = [None] * size
    dist.all_gather_object(everyone, mine)
    return {name: made for part in everyone for name, made in part.items()}


def _fits(case: Case, pipe: Any) -> bool:
    """Whether the cache goes with the pipeline."""
    return case.cache is None or transformer_of(type(pipe).__name__) in registry.get(case.cache["kind"]).models


def main() -> None:
    """Write what the first rank found."""
    from torch.distributed.device_mesh import init_device_mesh

    dist.init_process_group("gloo")
    rank = dist.get_rank()
    slots: dict[str, Slot] = {}
    for axis in ("cfg", "ring", "ulysses"):
        mesh = Mesh(1, 1, **{axis: 2})
        devices = init_device_mesh("cpu", mesh.shape, mesh_dim_names=AXES)
        slots[axis] = Slot(devices, mesh.cfg, mesh.ring, mesh.ulysses)
    found: dict[str, Any] = {}
    for family, axes in FAMILIES.items():
        alone = made_alone(family, rank, dist.get_world_size())
        for axis in axes:
            assert axis != "ring" or type(build(family.removesuffix(" embedded"))).__name__ not in MASKED
            found |= {f"{axis} | {name}": result for name, result in walk(axis, family, slots, alone).items()}
    Path(os.environ["FOUND"], f"{rank}.json").write_text(json.dumps(found, indent=1))
    dist.destroy_process_group()
