"""Sizes that count: seconds an evaluation, overhead of a solver, memory and its plan, the VAE in tiles, sweeps, encoding."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import genrun
from genrun.adapters.pipeline.load_options import LoadOptions
from genrun.adapters.pipeline.placement import can_save_memory, saving_memory
from genrun.runner.memory.estimate import MemoryEstimate, MemorySubject, estimates
from genrun.solvers import FlowProblem, Point, drive, registry
from genrun.solvers.analytic import shifted_sigmas
from tests.gpu.contract import CheckFinding, Findings, GpuCheck, at_most, attempt
from tests.gpu.machine import Machine
from tests.gpu.models import SUBJECTS, SizedModel

DTYPE = torch.bfloat16
STEPS = 3
SOLVERS = ("collocation", "ropa")
MOST_OVERHEAD, MOST_APART = 1.0, 10.0
"""Percent: of an evaluation, and between planned and measured memory."""
SWEEP_LATENTS, SWEEP_BYTES, SWEEPS = 64, 30_000_000, 4
ITEMS = 64
"""Items whose prompts are encoded once, for what that saves."""


@dataclass(frozen=True)
class CallCost:
    """What a call cost.

    Attributes:
        evaluation_s: seconds of an evaluation, all calls of the transformer that it takes.
        beside_s: seconds beside the transformer in a round, from the first evaluation to the end of the loop.
        evaluations: how many there were.
        latents: what came out.
        run: genrun's, with a solver.
    """

    evaluation_s: float
    beside_s: float
    evaluations: float
    latents: Tensor
    run: Any = None


def measure(
    machine: Machine, subject: SizedModel, pipe: Any, steps: int, solver: str | None = None, **options: Any
) -> CallCost:
    """The cost of one call, plain or with a solver."""
    moments: list[float] = []

    def note(*_: Any) -> None:
        moments.append(machine.now_s())

    hooks = [pipe.transformer.register_forward_pre_hook(note), pipe.transformer.register_forward_hook(note)]
    call, run = subject.call(pipe, steps, machine.device, tiny=machine.tiny), None
    try:
        with torch.no_grad():
            if solver is None:
                latents = pipe(**call)[0]
            else:
                with genrun.parallelize(pipe, solver, **options) as run:
                    latents = pipe(**call)[0]
    finally:
        for hook in hooks:
            hook.remove()
    end = machine.now_s()
    inside = sum(after - before for before, after in zip(moments[::2], moments[1::2], strict=True))
    evaluations = len(moments) / 2 / subject.calls
    rounds = evaluations if run is None else run.solution.rounds
    return CallCost(inside / evaluations, (end - moments[0] - inside) / rounds, evaluations, latents, run)


def model(machine: Machine, subject: SizedModel) -> Findings:
    """One model: seconds, memory beside the plan, the solver's overhead, the VAE whole and in tiles."""
    machine.begin()
    pipe = machine.watch(subject.make(machine.device, DTYPE, tiny=machine.tiny))
    weights = sum(p.numel() * p.element_size() for m in (pipe.transformer, pipe.vae) for p in m.parameters())
    yield CheckFinding("weights", weights / 1e9, "GB")
    size = subject.size(tiny=machine.tiny)
    yield CheckFinding(
        "size", " x ".join(str(size[name]) for name in ("width", "height", "num_frames") if name in size)
    )
    planned = plan(machine, subject, pipe)
    measure(machine, subject, pipe, 1)
    machine.reset_peak()
    plain = measure(machine, subject, pipe, STEPS)
    yield CheckFinding("evaluation", plain.evaluation_s, "s")
    yield memory(machine, "denoising", planned[0].denoise_bytes)
    yield from attempt("VAE", partial(vae, machine, subject, pipe, planned))
    for solver in SOLVERS:
        yield from attempt(
            solver, partial(overhead, machine, subject, pipe, solver, plain.beside_s, plain.evaluation_s)
        )


def overhead(
    machine: Machine, subject: SizedModel, pipe: Any, solver: str, plain_s: float, evaluation_s: float
) -> Findings:
    """Yield what a round takes with a solver beyond what a step of the plain loop does, in percent of one evaluation."""
    cost = measure(machine, subject, pipe, STEPS, solver, workers=2)
    added_s = max(0.0, cost.beside_s - plain_s)
    yield CheckFinding(f"{solver}: rounds, evaluations", [cost.run.solution.rounds, cost.run.solution.nfe])
    yield at_most(f"{solver}: overhead of a round", 100 * added_s / evaluation_s, MOST_OVERHEAD, "% of an evaluation")


def plan(machine: Machine, subject: SizedModel, pipe: Any) -> list[MemoryEstimate]:
    """Return what `genrun plan --memory` says of the same model, size and steps, from its checkpoint's headers."""
    root = machine.out / "checkpoint"
    shutil.rmtree(root, ignore_errors=True)
    shape = subject.shape(tiny=machine.tiny)
    found = estimates(MemorySubject(subject.checkpoint_folder(pipe, root), LoadOptions("bfloat16"), shape, STEPS))
    shutil.rmtree(root)
    return found


def memory(machine: Machine, what: str, planned_bytes: float) -> CheckFinding:
    """Return the finding of a peak beside its plan; on a CPU, whose processes hold more than models, none is wanted."""
    measured = machine.peak_bytes()
    apart = 100 * (planned_bytes / measured - 1)
    value = {
        "measured_gb": round(measured / 1e9, 2),
        "planned_gb": round(planned_bytes / 1e9, 2),
        "apart_percent": round(apart, 1),
    }
    if not machine.is_gpu or machine.tiny:
        return CheckFinding(f"{what}: memory", value)
    return CheckFinding(f"{what}: memory", value, "", f"plan within {MOST_APART:g} %", abs(apart) <= MOST_APART)


def vae(machine: Machine, subject: SizedModel, pipe: Any, planned: Sequence[MemoryEstimate]) -> Findings:
    """Yield seconds and memory of decoding, whole and in tiles; both planned with the transformer in memory, as it is."""
    wanted = subject.shape(tiny=machine.tiny)
    for tiled in (False, True):
        how = "in tiles" if tiled else "whole"

        def decode(tiled: bool = tiled, how: str = how) -> Findings:
            latents = subject.latents(pipe, tiny=machine.tiny)
            machine.reset_peak()
            with saving_memory(pipe, can_save_memory(pipe) if tiled else ()), torch.no_grad():
                started = machine.now_s()
                pixels = pipe.vae.decode(latents).sample
            yield CheckFinding(f"VAE {how}", machine.now_s() - started, "s")
            # Tiles of a few pixels do not come out even, those of models that count must.
            whole = [wanted.height, wanted.width]
            holds = None if machine.tiny else list(pixels.shape[-2:]) == whole
            yield CheckFinding(
                f"VAE {how}: pixels", list(pixels.shape), "", f"{whole}" if holds is not None else "", holds
            )
            yield memory(machine, f"VAE {how}", planned[1 if tiled else 0].decode_bytes)

        yield from attempt(f"VAE {how}", decode)


class _EnoughError(Exception):
    """Ends a sample once enough sweeps were timed."""


def sweep(machine: Machine) -> Findings:
    """Time what a solver does between two rounds, with 64 latents of 30 MB in its window."""
    machine.begin()
    numbers = 1024 if machine.tiny else SWEEP_BYTES // 4
    sigmas = shifted_sigmas(SWEEP_LATENTS + 8)
    for name in [name for name in registry.names() if name != "sequential"]:
        yield from attempt(name, partial(_sweeps, machine, name, sigmas, numbers))


def _sweeps(machine: Machine, name: str, sigmas: list[float], numbers: int) -> Findings:
    machine.reset_peak()
    problem = FlowProblem(sigmas, torch.randn(1, numbers, device=machine.device))
    spent: list[float] = []
    left: list[float] = []

    def evaluate(points: Sequence[Point]) -> list[Tensor]:
        came = machine.now_s()
        if left:
            spent.append(came - left[-1])
        if len(spent) == SWEEPS:
            raise _EnoughError
        outputs = [problem.from_x0(p.index, p.x, torch.tanh(3.0 * p.x)) for p in points]
        left.append(machine.now_s())
        return outputs

    with suppress(_EnoughError):
        drive(registry.get(name)(workers=SWEEP_LATENTS, tolerance=0.0), problem, evaluate)
    if not spent:
        yield CheckFinding(f"{name}: between two rounds", "there is one round")
        return
    yield CheckFinding(f"{name}: between two rounds", max(spent), "s, the longest")
    yield CheckFinding(f"{name}: memory", machine.peak_bytes() / 1e9, "GB")


def encode(machine: Machine) -> Findings:
    """Encode a prompt with the encoders of Flux, a CLIP and a T5 of 4.8 billion parameters, as the encoding stage does."""
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    from genrun.adapters.adapter import Adapter
    from genrun.adapters.sampling.call import SamplingRequest
    from genrun.adapters.sampling.embeddings import encode as encode_prompt
    from genrun.adapters.sampling.embeddings import pack
    from tests.tiny import PROMPT, build

    machine.begin()
    pipe: Any = build("flux", DTYPE)
    if not machine.tiny:
        t5 = T5Config(d_model=4096, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu")
        clip = CLIPTextConfig(
            hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=12, vocab_size=49408
        )
        pipe.text_encoder = _encoder(lambda: CLIPTextModel(clip), machine.device)
        pipe.text_encoder_2 = _encoder(lambda: T5EncoderModel(t5), machine.device)
    machine.watch(pipe.to(machine.device))
    options = {} if not machine.tiny else {"max_sequence_length": 16}
    request = SamplingRequest(PROMPT, 0, {"steps": 1, "height": 32, "width": 32, "options": options})
    adapter = Adapter("auto", "any")
    encode_prompt(pipe, adapter, request)
    started = machine.now_s()
    encodings = encode_prompt(pipe, adapter, request)
    seconds = machine.now_s() - started
    held = sum(p.numel() * p.element_size() for m in (pipe.text_encoder, pipe.text_encoder_2) for p in m.parameters())
    yield CheckFinding("encoding of a prompt", seconds, "s")
    yield CheckFinding(f"saved over {ITEMS} items of a prompt", (ITEMS - 1) * seconds, "s")
    yield CheckFinding("memory of the encoders, not held while sampling", held / 1e9, "GB")
    yield CheckFinding("encodings in the run folder", len(pack(encodings)) / 1e6, "MB", "some", bool(encodings))


def _encoder(make: Callable[[], nn.Module], device: str) -> nn.Module:
    before = torch.get_default_dtype()
    torch.set_default_dtype(DTYPE)
    try:
        with torch.device(device):
            return make().eval()
    finally:
        torch.set_default_dtype(before)


BUDGETS = {"flux": 18, "sd35": 18, "hunyuanvideo": 36, "wan14b": 36, "wan1b": 20, "cogvideox": 22}
CHECKS = (
    *(
        GpuCheck(f"sizes.{name}", f"{SUBJECTS[name].title}", budget_s, partial(model, subject=SUBJECTS[name]))
        for name, budget_s in BUDGETS.items()
    ),
    GpuCheck("sizes.sweep", "sweeps over 64 latents of 30 MB", 10, sweep),
    GpuCheck("sizes.encode", "prompts encoded once", 12, encode),
)
