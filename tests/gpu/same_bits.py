"""The same bits on the device: plain calls beside genrun's, one rank beside two, points one by one beside together."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import genrun
from genrun.solvers import registry
from tests.gpu.contract import CheckFinding, Findings, GpuCheck, attempt, equal
from tests.gpu.machine import Machine
from tests.gpu.models import SUBJECTS
from tests.tiny import FAMILIES, build, call_kwargs, latents_of

DTYPES = (torch.float32, torch.bfloat16)
STEPS = 4
TINY = {"sequential": ("sd3", "wan21", "hunyuanvideo", "cogvideox_dpm"), "solvers": ("sd3", "wan21")}
"""Families on a machine without a GPU, where other tests have all of them."""
RANKED = (("sd3", "paradigms"), ("wan21", "collocation"), ("hunyuanvideo", "ropa"))
POINTS = 4


def sampled(pipe: Any, family: str, solver: str | None = None, **options: Any) -> Tensor:
    """The final latents of a short call, plain or with a solver."""
    call = {**call_kwargs(family), "num_inference_steps": STEPS}
    with torch.no_grad():
        if solver is None:
            return latents_of(pipe(**call))
        with genrun.parallelize(pipe, solver, **options):
            return latents_of(pipe(**call))


def families(machine: Machine, part: str) -> Sequence[str]:
    return FAMILIES if machine.is_gpu else TINY[part]


def sequential(machine: Machine) -> Findings:
    """`sequential` through genrun beside the plain call, made twice to tell whether kernels repeat themselves."""
    machine.begin(deterministic=True)
    for dtype in DTYPES:
        for family in families(machine, "sequential"):
            yield from attempt(f"{family}, {dtype}", lambda dtype=dtype, family=family: _pair(machine, family, dtype))


def _pair(machine: Machine, family: str, dtype: torch.dtype) -> Findings:
    pipe = build(family, dtype).to(machine.device)
    plain, ours, again = sampled(pipe, family), sampled(pipe, family, "sequential"), sampled(pipe, family)
    if not torch.equal(plain, again):
        yield CheckFinding(f"{family}, {dtype}: plain call twice", "not equal", "", "equal bits", False)
    yield equal(f"{family}, {dtype}", torch.equal(plain, ours))


def solvers(machine: Machine) -> Findings:
    """Every solver at tolerance 0 beside the plain call."""
    machine.begin(deterministic=True)
    names = [name for name in registry.names() if name != "sequential"]
    for dtype in reversed(DTYPES):
        for family in families(machine, "solvers"):

            def compare(family: str = family, dtype: torch.dtype = dtype) -> Findings:
                pipe = build(family, dtype).to(machine.device)
                plain = sampled(pipe, family)
                other = [n for n in names if not torch.equal(plain, sampled(pipe, family, n, workers=4, tolerance=0.0))]
                yield equal(f"{family}, {dtype}", not other, f"{len(names) - len(other)} of {len(names)} solvers")
                if other:
                    yield CheckFinding(f"{family}, {dtype}: not equal", ", ".join(other))

            yield from attempt(f"{family}, {dtype}", compare)


def ranks(machine: Machine) -> Findings:
    """An item on one rank and on two of this device, whose outputs gloo carries: NCCL wants a card for each."""
    context = multiprocessing.get_context("fork")
    folder = machine.out / "ranks"
    folder.mkdir(exist_ok=True)
    (folder / "store").unlink(missing_ok=True)
    members = [context.Process(target=_rank, args=(rank, folder, machine)) for rank in range(2)]
    for member in members:
        member.start()
    for member in members:
        member.join()
    if any(member.exitcode for member in members):
        codes = [member.exitcode for member in members]
        yield CheckFinding("two ranks", holds=False, error=f"ended with {codes}; bits.ranks.log has the reason")
        return
    found = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    for case, one in found[0]["one"].items():
        two = [each["two"][case] for each in found]
        yield equal(f"{case}: two ranks as one", one["bits"] == two[0]["bits"] == two[1]["bits"])
        made = [each["calls"] for each in two]
        yield CheckFinding(f"{case}: calls of each rank", made, "", "shared", max(made) < one["calls"])
    yield CheckFinding(
        "device of what a rank got", found[0]["device"], "", machine.device, found[0]["device"] == machine.device
    )


def _rank(rank: int, folder: Path, machine: Machine) -> None:
    import torch.distributed as dist

    from genrun.adapters.parallel.exchange import Exchange, GroupExchange, LocalExchange
    from tests.e2e.ranks import count_calls, hash_of

    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    machine.begin(deterministic=True)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2)
    found: dict[str, Any] = {"one": {}, "two": {}}

    def digest(family: str, solver: str, exchange: Exchange) -> dict[str, Any]:
        pipe = build(family, torch.bfloat16).to(machine.device)
        calls = count_calls(pipe)
        latents = sampled(pipe, family, solver, workers=4, tolerance=0.0, exchange=exchange)
        found["device"] = str(latents.device)
        return {"bits": hash_of(latents.float().cpu().numpy().tobytes().hex()), "calls": calls[0]}

    for family, solver in RANKED if not machine.tiny else RANKED[:2]:
        if rank == 0:
            found["one"][f"{family}, {solver}"] = digest(family, solver, LocalExchange())
        found["two"][f"{family}, {solver}"] = digest(family, solver, GroupExchange())
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def points(machine: Machine) -> Findings:
    """K points evaluated one by one, and the same inputs in one call of the transformer: how far, and how much faster."""
    machine.begin()
    for family, dtype in (("sd3", torch.float32), ("sd3", torch.bfloat16), ("wan21", torch.bfloat16)):

        def tiny(family: str = family, dtype: torch.dtype = dtype) -> Findings:
            pipe = build(family, dtype).to(machine.device)
            sample = partial(sampled, pipe, family, "paradigms", workers=POINTS)
            yield from _together(machine, f"{family}, {dtype}", pipe, sample, calls=2 if family == "wan21" else 1)

        yield from attempt(f"{family}, {dtype}", tiny)

    def flux() -> Findings:
        model = SUBJECTS["flux"]
        pipe = model.make(machine.device, torch.bfloat16, tiny=machine.tiny, num_layers=6, num_single_layers=12)

        def sample() -> None:
            with torch.no_grad(), genrun.parallelize(pipe, "paradigms", workers=POINTS):
                pipe(**model.call(pipe, POINTS, machine.device, tiny=machine.tiny))

        yield from _together(machine, "a third of Flux", pipe, sample, calls=1)

    yield from attempt("a third of Flux", flux)


def _together(machine: Machine, what: str, pipe: Any, sample: Callable[[], object], *, calls: int) -> Findings:
    """Yield how far the outputs at the last points of a sample are when they are made in one call, and how much faster."""
    made: list[dict[str, Any]] = []
    hook = pipe.transformer.register_forward_pre_hook(lambda _, args, kwargs: made.append(kwargs), with_kwargs=True)
    sample()
    hook.remove()
    machine.watch(pipe)
    each = made[-POINTS * calls :: calls]
    joined = {
        name: torch.cat([call[name] for call in each]) if _is_batched(name, value) else value
        for name, value in each[0].items()
    }
    alone, alone_s = evaluated(machine, pipe.transformer, each)
    together, together_s = evaluated(machine, pipe.transformer, [joined])
    apart = (torch.cat(alone).float() - together[0].float()).abs().max() / together[0].float().abs().max()
    yield CheckFinding(f"{what}: {POINTS} points together, largest difference", float(apart), "of the largest value")
    yield CheckFinding(f"{what}: {POINTS} points together", alone_s / together_s, "times as fast as one by one")


def _is_batched(name: str, value: Any) -> bool:
    """Tell a tensor of samples from positions, which all of them share."""
    return isinstance(value, Tensor) and not name.endswith("_ids")


def evaluated(machine: Machine, model: Any, calls: Sequence[dict[str, Any]]) -> tuple[list[Tensor], float]:
    """The outputs of a model's calls, and the seconds of all of them, a call before them not counted."""
    with torch.no_grad():
        model(**calls[0])
        started = machine.now_s()
        outputs = [model(**{**call, "return_dict": False})[0] for call in calls]
        return outputs, machine.now_s() - started


CHECKS = (
    GpuCheck("bits.sequential", "`sequential` through genrun is the plain call", 25, sequential),
    GpuCheck("bits.ranks", "two ranks on one card, gloo, are one", 16, ranks),
    GpuCheck("bits.solvers", "every solver at tolerance 0 is the plain call", 35, solvers),
    GpuCheck("bits.points", "points evaluated together: distance and speed", 12, points),
)
