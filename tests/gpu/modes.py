"""Ways to hold and to run a model: offloading, float8, compiled blocks, attention kernels, caches at a real depth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from genrun.adapters.errors import CacheError
from genrun.adapters.pipeline.denoisers import attention_of, refusal
from genrun.adapters.pipeline.load_options import Offload
from genrun.adapters.pipeline.placement import compile_denoisers, place
from genrun.runner.memory.estimate import MODES
from tests.gpu.contract import CheckFinding, Findings, GpuCheck, NotHereError, attempt, equal
from tests.gpu.machine import Machine
from tests.gpu.models import SUBJECTS
from tests.gpu.sizes import DTYPE, CallCost, measure, plan

FLUX = SUBJECTS["flux"]
CUT = {"num_layers": 6, "num_single_layers": 12}
"""A third of Flux, 4 billion parameters: its weights cross the bus in time in every mode."""
STEPS = 2
CACHED_STEPS = 8
CACHES: Mapping[str, Mapping[str, Any]] = {
    "first_block": {"threshold": 5.0},
    "taylorseer": {"interval": 3},
    "pab": {"start": 1000, "stop": 0, "drift": 10.0},
    "toca": {"drift": 10.0},
    "dbcache": {"threshold": 5.0},
}
IN_ORDER = ("taylorseer",)
"""Caches that want steps in order."""
PARALLEL = {"workers": 4}


def offload(machine: Machine) -> Findings:
    """Every mode of offloading: the same bits, seconds, and memory beside the plan."""
    machine.begin()
    expected: list[Tensor] = []
    for mode in MODES:
        yield from attempt(mode, partial(_offloaded, machine, mode, expected))


def _offloaded(machine: Machine, mode: Offload, expected: list[Tensor]) -> Findings:
    pipe = _flux(machine, mode)
    planned = next(each for each in plan(machine, FLUX, pipe) if each.mode == mode and not each.tiled)
    measure(machine, FLUX, pipe, 1)
    machine.reset_peak()
    cost = measure(machine, FLUX, pipe, STEPS)
    yield CheckFinding(f"{mode}: evaluation", cost.evaluation_s, "s")
    measured = {
        "measured_gb": round(machine.peak_bytes() / 1e9, 2),
        "planned_gb": round(planned.denoise_bytes / 1e9, 2),
    }
    yield CheckFinding(f"{mode}: memory", measured)
    expected.append(cost.latents.cpu())
    yield equal(f"{mode}: as without offloading", torch.equal(expected[0], expected[-1]))


def _flux(machine: Machine, mode: Offload = "none") -> Any:
    """Return Flux, cut, held as a mode says."""
    pipe = machine.watch(FLUX.make(machine.device, DTYPE, tiny=machine.tiny, **CUT))
    if machine.is_gpu:
        place(pipe, machine.device, mode)
        return pipe
    # diffusers' and accelerate's hooks run on a CPU too, in the place of a GPU.
    from accelerate import cpu_offload, cpu_offload_with_hook
    from diffusers.hooks.group_offloading import apply_group_offloading

    cpu = torch.device("cpu")
    if mode == "model":
        cpu_offload_with_hook(pipe.transformer, cpu)
    elif mode == "sequential":
        for model in (pipe.transformer, pipe.vae):
            cpu_offload(model, cpu)
    elif mode == "group":
        apply_group_offloading(pipe.transformer, cpu, cpu, offload_type="block_level", num_blocks_per_group=1)
    return pipe


def prefetch(machine: Machine) -> Findings:
    """Group offloading, the next block fetched by a stream meanwhile, where solvers and caches choose what is evaluated."""
    machine.begin()
    held, away = _flux(machine), _flux(machine, "group")
    for solver, cache in (
        ("collocation", None),
        ("ropa", None),
        ("ropa", "first_block"),
        ("sequential", "first_block"),
    ):
        what = f"{solver}{f', {cache}' if cache else ''}"

        def compare(solver: str = solver, cache: str | None = cache, what: str = what) -> Findings:
            options = {**({} if solver == "sequential" else PARALLEL), **({"cache": cache} if cache else {})}
            first = measure(machine, FLUX, held, 4, solver, **options)
            machine.reset_peak()
            second = measure(machine, FLUX, away, 4, solver, **options)
            yield equal(f"{what}: offloaded in groups as held", torch.equal(first.latents.cpu(), second.latents.cpu()))
            yield CheckFinding(
                f"{what}: evaluation, held and offloaded", [first.evaluation_s, second.evaluation_s], "s"
            )

        yield from attempt(what, compare)


def float8(machine: Machine) -> Findings:
    """Weights held in float8, a layer cast when it is used: memory, seconds, distance."""
    machine.begin()
    pipe = _flux(machine)
    measure(machine, FLUX, pipe, 1)
    machine.reset_peak()
    plain, whole = measure(machine, FLUX, pipe, STEPS), machine.peak_bytes()
    pipe.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=DTYPE)
    machine.reset_peak()
    cast = measure(machine, FLUX, pipe, STEPS)
    yield CheckFinding("memory, whole and in float8", [whole / 1e9, machine.peak_bytes() / 1e9], "GB")
    yield CheckFinding("evaluation, whole and in float8", [plain.evaluation_s, cast.evaluation_s], "s")
    yield CheckFinding("distance", distance(cast.latents, plain.latents), "standard deviations")
    held = {str(p.dtype).removeprefix("torch.") for p in pipe.transformer.parameters()}
    yield CheckFinding("held as", sorted(held), "", "float8_e4m3fn among them", "float8_e4m3fn" in held)


def distance(latents: Tensor, reference: Tensor) -> float:
    """The root mean square difference, in units of the reference's standard deviation."""
    return float((latents.float() - reference.float()).square().mean().sqrt() / reference.float().std())


def compiled(machine: Machine) -> Findings:
    """`compile: regional`: seconds until the first item, gain after it, distance."""
    machine.begin()
    pipe = _flux(machine)
    measure(machine, FLUX, pipe, 1)
    plain = measure(machine, FLUX, pipe, STEPS)
    compile_denoisers(pipe, "regional")
    with _without_a_compiler(machine):
        started = machine.now_s()
        measure(machine, FLUX, pipe, STEPS)
        yield CheckFinding("first item of two steps", machine.now_s() - started, "s")
        fast = measure(machine, FLUX, pipe, STEPS)
    yield CheckFinding("evaluation, plain and compiled", [plain.evaluation_s, fast.evaluation_s], "s")
    yield CheckFinding("gain", plain.evaluation_s / fast.evaluation_s, "times as fast")
    yield CheckFinding("distance", distance(fast.latents, plain.latents), "standard deviations")
    blocks = sum(module._compiled_call_impl is not None for module in pipe.transformer.modules())
    yield CheckFinding("compiled blocks", blocks, "", "some", blocks > 0)


@contextmanager
def _without_a_compiler(machine: Machine) -> Iterator[None]:
    """Run compiled blocks as they are on a CPU, where making kernels takes minutes and tells nothing of a GPU's."""
    if machine.is_gpu:
        yield
        return
    torch.compiler.set_stance("force_eager")
    try:
        yield
    finally:
        torch.compiler.set_stance("default")


def attention(machine: Machine) -> Findings:
    """Attention kernels of a job that are installed, beside torch's own."""
    machine.begin()
    pipe = _flux(machine)
    measure(machine, FLUX, pipe, 1)
    native: list[CallCost] = []
    for kernel in ("native", "flash", "sage"):

        def one(kernel: str = kernel) -> Findings:
            reason = refusal(kernel, type(pipe.transformer).__name__)
            if reason:
                raise NotHereError(reason)
            with attention_of(pipe, kernel):
                measure(machine, FLUX, pipe, 1)
                cost = measure(machine, FLUX, pipe, STEPS)
            native.append(cost)
            yield CheckFinding(f"{kernel}: evaluation", cost.evaluation_s, "s")
            yield CheckFinding(f"{kernel}: distance", distance(cost.latents, native[0].latents), "standard deviations")

        yield from attempt(kernel, one)


def caches(machine: Machine) -> Findings:
    """Caches on a model of real depth: blocks and seconds saved, in steps and under a solver.

    Weights are random and thresholds wide, so that how much is left out is not what a trained model would see; what that
    saves is.
    """
    machine.begin()
    pipe = machine.watch(FLUX.make(machine.device, DTYPE, tiny=machine.tiny))
    measure(machine, FLUX, pipe, 1)
    # At tolerance 0 points are evaluated again and again, which is what caches under a solver live on.
    for solver, options in (("sequential", {}), ("ropa", {**PARALLEL, "tolerance": 0.0})):
        plain = measure(machine, FLUX, pipe, CACHED_STEPS, solver, **options)
        yield CheckFinding(f"{solver}, no cache", plain.evaluation_s, "s an evaluation")
        for kind in CACHES:
            if kind in IN_ORDER and solver != "sequential":
                continue
            yield from attempt(f"{solver}, {kind}", partial(_cached, machine, pipe, solver, options, kind, plain))


def _cached(
    machine: Machine, pipe: Any, solver: str, options: Mapping[str, Any], kind: str, plain: CallCost
) -> Findings:
    try:
        cost = measure(machine, FLUX, pipe, CACHED_STEPS, solver, cache={"kind": kind, **CACHES[kind]}, **options)
    except CacheError as error:
        if "not installed" in str(error):
            raise NotHereError(str(error)) from error
        raise
    solution = cost.run.solution
    what = f"{solver}, {kind}"
    left_out = 100 * (1 - solution.blocks / solution.blocks_full)
    yield CheckFinding(f"{what}: blocks left out", left_out, "%", "some", left_out > 0)
    yield CheckFinding(
        f"{what}: seconds of an evaluation saved", 100 * (1 - cost.evaluation_s / plain.evaluation_s), "%"
    )
    finite = bool(torch.isfinite(cost.latents).all())
    yield CheckFinding(
        f"{what}: distance", distance(cost.latents, plain.latents), "standard deviations", "finite", finite
    )


CHECKS = (
    GpuCheck("modes.offload", "offloading: none, model, group, sequential", 30, offload),
    GpuCheck("modes.prefetch", "group offloading with prefetching streams under a solver", 20, prefetch),
    GpuCheck("modes.caches", "caches at a real depth", 28, caches),
    GpuCheck("modes.compile", "`compile: regional`", 32, compiled),
    GpuCheck("modes.float8", "weights in float8, layer by layer", 8, float8),
    GpuCheck("modes.attention", "attention kernels", 8, attention),
)
