"""What the scheduler's coroutine and the solvers cost beside a model of real width, in processor time.

    python -m tests.bench.overhead --layers 1 --steps 8

Stock pipelines whose denoiser has the real architecture's width, heads and latents at random weights, and few of its layers
(all of them with --layers 0, on a GPU). Times are of this process alone, so that other work on the machine does not count.
For each solver: the model's own seconds an evaluation, what plain diffusers spends beside it, and what genrun adds, as a
share of the model's time here and at the real depth.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

import genrun
from tests.tiny import build
from tests.tiny.images import FOUR_LEVELS
from tests.tiny.text import WIDTH

df: Any = import_module("diffusers")
SOLVERS: dict[str, dict[str, Any]] = {
    "sequential": {},
    "ropa": {"workers": 8},
    "collocation": {"workers": 8},
    "parataa": {"workers": 8},
}
PROMPT = "a red circle moving left"


@dataclass(frozen=True)
class Subject:
    """A pipeline to measure.

    Attributes:
        make: the pipeline with so many layers; 0 for all.
        call: arguments of its call.
        depth: layers of the real one.
    """

    make: Callable[[int], Any]
    call: dict[str, Any]
    depth: int


def flux(layers: int) -> Any:
    """FLUX.1: 24 heads of 128, 19 and 38 layers."""
    pipe = build("flux")
    pipe.transformer = df.FluxTransformer2DModel(
        num_layers=layers or 19,
        num_single_layers=2 * (layers or 19),
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=True,
    )
    pipe.vae = df.AutoencoderKL(**{**FOUR_LEVELS, "latent_channels": 16}, shift_factor=0.1, use_quant_conv=False)
    return pipe


def wan(layers: int) -> Any:
    """Wan 2.1 1.3B: 12 heads of 128, 30 layers."""
    pipe = build("wan21")
    pipe.transformer = df.WanTransformer3DModel(
        num_layers=layers or 30, num_attention_heads=12, ffn_dim=8960, text_dim=WIDTH
    )
    return pipe


def hunyuanvideo(layers: int) -> Any:
    """HunyuanVideo: 24 heads of 128, 20 and 40 layers."""
    pipe = build("hunyuanvideo")
    pipe.transformer = df.HunyuanVideoTransformer3DModel(
        num_layers=layers or 20,
        num_single_layers=2 * (layers or 20),
        text_embed_dim=WIDTH,
        pooled_projection_dim=WIDTH,
    )
    return pipe


SUBJECTS = {
    "flux": Subject(flux, {"height": 256, "width": 256, "max_sequence_length": 64}, 19),
    "wan2.1": Subject(
        wan, {"height": 128, "width": 128, "num_frames": 17, "guidance_scale": 1.0, "max_sequence_length": 64}, 30
    ),
    "hunyuanvideo": Subject(
        hunyuanvideo, {"height": 128, "width": 128, "num_frames": 17, "max_sequence_length": 64}, 20
    ),
}


@dataclass(frozen=True)
class Cost:
    """Processor seconds of one call.

    Attributes:
        model_s: in the denoiser.
        other_s: from its first evaluation to the end of the loop, without it.
        evaluations: of the denoiser.
    """

    model_s: float
    other_s: float
    evaluations: int


def measure(pipe: Any, call: dict[str, Any], solver: str | None, clock: Callable[[], float]) -> Cost:
    """The cost of one call, plain or with a solver."""
    moments: list[float] = []
    handles = [
        pipe.transformer.register_forward_pre_hook(lambda *_: moments.append(clock())),
        pipe.transformer.register_forward_hook(lambda *_: moments.append(clock())),
    ]
    options = SOLVERS.get(solver or "", {})
    with nullcontext() if solver is None else genrun.parallelize(pipe, solver, **options):
        pipe(prompt=PROMPT, output_type="latent", generator=torch.Generator(pipe.device).manual_seed(0), **call)
    end = clock()
    for handle in handles:
        handle.remove()
    inside = sum(after - before for before, after in zip(moments[::2], moments[1::2], strict=True))
    return Cost(inside, end - moments[0] - inside, len(moments) // 2)


def clock_of(device: str) -> Callable[[], float]:
    """Processor time; on a GPU, wall time once all its work is done."""
    if device == "cpu":
        return time.process_time

    def clock() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return clock


def main() -> None:
    """Print a line for each model and solver."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(SUBJECTS))
    parser.add_argument("--solvers", default=",".join(SOLVERS))
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--steps", type=int, default=8)
    chosen = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for name in chosen.models.split(","):
        subject = SUBJECTS[name]
        pipe = subject.make(chosen.layers).to(device, dtype)
        pipe.set_progress_bar_config(disable=True)
        call = {**subject.call, "num_inference_steps": chosen.steps}
        measure(pipe, {**call, "num_inference_steps": 1}, None, clock_of(device))
        plain = measure(pipe, call, None, clock_of(device))
        beside = plain.other_s / plain.evaluations
        print(
            f"{name}: plain {plain.model_s / plain.evaluations:.3f} s an evaluation, {1000 * beside:.2f} ms beside it"
        )
        for solver in chosen.solvers.split(","):
            cost = measure(pipe, call, solver, clock_of(device))
            added = cost.other_s / cost.evaluations - beside
            share = added / (cost.model_s / cost.evaluations)
            real = share * (chosen.layers or subject.depth) / subject.depth
            print(
                f"  {solver:12} {cost.evaluations:3} evaluations, adds {1000 * added:6.2f} ms to each: "
                f"{100 * share:6.3f} % here, {100 * real:6.3f} % at the real depth",
                flush=True,
            )


if __name__ == "__main__":
    main()
