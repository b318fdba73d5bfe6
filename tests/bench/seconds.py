"""Seconds of a pipeline call in one process: plain diffusers beside solvers, call by call in turn.

    python -m tests.bench.seconds demo-video demo-image

prints a table for each model: median seconds of a call to the final latents (no decoding), the median ratio to the plain
call of the same prompt and seed, rounds, evaluations, and the RMSE of the latents in units of their standard deviation.
Seconds are processor time of one thread: what a call takes on an idle core, and hardly changed by other work.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

import genrun
from genrun.adapters import registry
from genrun.runner.job.files import JOBS

CASES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "`sequential`": ("sequential", {}),
    "`collocation`, workers 1": ("collocation", {"workers": 1}),
    "`collocation`, workers 2": ("collocation", {"workers": 2}),
    "`collocation`, workers 8": ("collocation", {"workers": 8}),
    "`ropa`, workers 8": ("ropa", {"workers": 8}),
}
PROMPTS = {"demo-video": "demo.txt", "demo-image": "demo-images.txt"}


@dataclass
class Measured:
    """What the calls of one case took, one entry a prompt."""

    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    nfe: list[int] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)


def measure(model: str, prompts: Sequence[str]) -> tuple[float, dict[str, Measured]]:
    """Return the median seconds of the plain call, and what each case took."""
    adapter = registry.get(model)
    pipe: Any = DiffusionPipeline.from_pretrained(str(adapter.checkpoint))
    pipe.set_progress_bar_config(disable=True)
    defaults = dict(adapter.defaults)
    arguments = {"num_inference_steps": defaults.pop("steps"), **defaults, **adapter.call, "output_type": "latent"}

    def call(prompt: str, seed: int) -> tuple[float, torch.Tensor]:
        start = time.process_time()
        latents = pipe(prompt, generator=torch.Generator().manual_seed(seed), **arguments)[0]
        return time.process_time() - start, latents

    call(prompts[0], 0)  # the first call of a process is slower
    plain: list[float] = []
    found = {name: Measured() for name in CASES}
    for seed, prompt in enumerate(prompts):
        for name, (solver, options) in CASES.items():
            usual, reference = call(prompt, seed)
            plain.append(usual)
            with genrun.parallelize(pipe, solver=solver, **options) as run:
                seconds, latents = call(prompt, seed)
            case = found[name]
            case.seconds.append(seconds)
            case.ratios.append(seconds / usual)
            case.rounds.append(run.solution.rounds)
            case.nfe.append(run.solution.nfe)
            case.errors.append(float((latents - reference).square().mean().sqrt() / reference.std()))
    return statistics.median(plain), found


def main() -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="+", choices=PROMPTS)
    parser.add_argument("--prompts", type=int, default=12)
    wanted = parser.parse_args()
    torch.set_num_threads(1)  # several would add up in the processor time
    for model in wanted.models:
        lines = (JOBS / "prompts" / PROMPTS[model]).read_text(encoding="utf-8").splitlines()
        prompts = [line for line in lines if line and not line.startswith("#")][: wanted.prompts]
        usual, found = measure(model, prompts)
        print(f"\n| {model} | seconds | of plain | rounds | NFE | RMSE, mean / max |\n|---|---|---|---|---|---|")
        print(f"| plain diffusers | {usual:.2f} | 1 | 50 | 50 | 0 |")
        for name, case in found.items():
            rounds, nfe = statistics.mean(case.rounds), statistics.mean(case.nfe)
            error = f"{statistics.mean(case.errors):.3f} / {max(case.errors):.3f}"
            seconds, ratio = statistics.median(case.seconds), statistics.median(case.ratios)
            print(f"| {name} | {seconds:.2f} | {ratio:.2f} | {rounds:.1f} | {nfe:.1f} | {error} |")


if __name__ == "__main__":
    main()
