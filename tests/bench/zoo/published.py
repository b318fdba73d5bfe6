"""What the papers' authors published, run on a model of the zoo; only the call of the model is adapted.

The parallel methods are imported from clones, folders named as their repositories: ParaSolver (Jianrong-Lu),
ParaTAA-Diffusion (TZW1998) and CHORDS (hanjq17); ParaDiGMS is in diffusers, cache-dit a package. Each sample runs the
authors' own loop in a thread of its own; where it calls the model, it waits until every other sample does, and all are
evaluated in one batch. What ParaSolver, ParaTAA and ParaDiGMS published steps DDIM alone, so that they are not run on flow
matching; a U-Net has no list of blocks for cache-dit.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from genrun.solvers.contract import Point

from .models import stack_of
from .sampling import Pair, Sampler
from .train import predict


@dataclass(frozen=True)
class Made:
    """A sample, and what it cost: rounds, or with a cache evaluations, which are computed blocks over those of the model."""

    x: Tensor
    rounds: float


@dataclass(frozen=True)
class Setting:
    """Options of a method, and the tolerances to try.

    Attributes:
        kind: of `KINDS`.
        workers: K.
        options: the authors' own.
        first: the tolerance to begin with, over the mean error that is wanted.
        grid: tolerances from loose to tight, where the error does not follow them smoothly.
        counted: they are whole numbers, so that nothing between two of them is to be had.
    """

    kind: str
    workers: int
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    first: float = 1.0
    grid: tuple[float, ...] = ()
    counted: bool = False

    def __str__(self) -> str:
        return "-".join([self.kind, f"K{self.workers}", *(f"{key}{value}" for key, value in self.options.items())])


Ask = Callable[[Sequence[Point]], list[Tensor]]
"""Guided outputs at points of one sample: a round."""
Method = Callable[[Sampler, Tensor, Ask], Tensor]
"""One sample from its initial noise."""


def settings(kind: str, sampler: Sampler, workers: int) -> list[Setting]:
    """Return what to try of a method with K workers, or nothing where it does not support the model."""
    ddim, blocks = "DDIM" in type(sampler.scheduler).__name__, hasattr(sampler.pipe, "transformer")
    if kind == "cache-dit":
        dynamic, tried = (0.27, 0.18, 0.12, 0.08, 0.05, 0.03), [(1, 2, -1), (1, 4, -1), (2, 4, -1), (0, 4, -1)]
        limited, more = (0.9, 0.35, 0.2), [(1, 2, most) for most in (9, 7, 5, 4, 3, 2)]
        given = [(dynamic, each) for each in tried] + [(limited, each) for each in more]
        return [
            Setting(kind, 1, {"taylor": order, "warmup": warmup, "most": most}, grid=thresholds)
            for thresholds, (order, warmup, most) in given
            if workers == 1 and blocks
        ]
    if kind == "published-chords":  # which can leave workers idle
        tried = [each for each in STARTS if 1 < each.count("-") + 1 <= workers]
        return [Setting(kind, each.count("-") + 1, {"starts": each}, grid=(0, 1, 2, 3), counted=True) for each in tried]
    if workers == 1 or not ddim:
        return []
    if kind == "published-parataa":  # its memory is to be 2 to 5
        return [Setting(kind, workers, {"order": workers, "memory": m}, first=0.5) for m in (2, 3)]
    if kind == "published-parasolver":
        return [Setting(kind, workers, {"preconditioning": 1}, first=5.0)]
    return [Setting(kind, workers, first=2.5)]


def sample(setting: Setting, sampler: Sampler, pairs: Sequence[Pair], tolerance: float, clones: Path) -> list[Made]:
    """Sample every pair by the authors' code."""
    if setting.kind == "cache-dit":
        return cache_dit(sampler, pairs, tolerance, **setting.options)
    # They time themselves, and print.
    with mock.patch("torch.cuda.Event"), mock.patch("torch.cuda.synchronize"), quiet():
        made = PUBLISHED[setting.kind](clones, setting.workers, tolerance, **setting.options)
        return together(sampler, pairs, made)


def together(sampler: Sampler, pairs: Sequence[Pair], method: Method) -> list[Made]:
    """Run a method on every pair, each in its own thread, and evaluate together what all of them ask for."""
    sampler.scheduler.set_timesteps(sampler.steps)
    asked: queue.SimpleQueue[tuple[int, Sequence[Point] | Tensor | BaseException]] = queue.SimpleQueue()
    answers: list[queue.SimpleQueue[list[Tensor]]] = [queue.SimpleQueue() for _ in pairs]

    def run(number: int, pair: Pair) -> None:
        def ask(points: Sequence[Point]) -> list[Tensor]:
            asked.put((number, points))
            return answers[number].get()

        try:
            with torch.no_grad():
                asked.put((number, method(sampler, sampler.start(pair), ask)))
        except BaseException as fault:
            asked.put((number, fault))

    for number, pair in enumerate(pairs):
        threading.Thread(target=run, args=(number, pair), daemon=True).start()
    found: dict[int, Tensor] = {}
    waiting: dict[int, Sequence[Point]] = {}
    rounds = [0] * len(pairs)
    while len(found) < len(pairs):
        number, what = asked.get()
        if isinstance(what, BaseException):
            raise what
        if isinstance(what, Tensor):
            found[number] = what.float()
        else:
            waiting[number] = what
            rounds[number] += 1
        if len(waiting) + len(found) == len(pairs):
            with torch.no_grad():
                points = [(point, pairs[number].caption) for number, each in waiting.items() for point in each]
                outputs = iter(sampler.evaluate(points))
            for number, each in waiting.items():
                answers[number].put([next(outputs) for _ in each])
            waiting.clear()
    return [Made(found[number], rounds[number]) for number in range(len(pairs))]


class AskedModel(nn.Module):
    """Stands where a pipeline has its U-Net; guided already, so that both halves of a guided row are alike."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, sampler: Sampler, ask: Ask, guided: bool) -> None:
        super().__init__()
        frozen = import_module("diffusers.configuration_utils").FrozenDict
        self.config = frozen({"time_cond_proj_dim": None, **sampler.denoiser.config})
        self.index = {int(timestep): place for place, timestep in enumerate(sampler.scheduler.timesteps)}
        self.ask, self.copies = ask, 2 if guided else 1

    def forward(self, rows: Tensor, timesteps: Tensor, **_: Any) -> tuple[Tensor]:
        """Ask for the rows, of which guidance takes two for one point, side by side."""
        own = rows[:: self.copies]
        times = timesteps.expand(len(rows))[:: self.copies].tolist()
        outputs = self.ask([Point(self.index[int(at)], x[None]) for at, x in zip(times, own, strict=True)])
        return (torch.cat(outputs).repeat_interleave(self.copies, dim=0),)


def paradigms(clones: Path, workers: int, tolerance: float) -> Method:
    """ParaDiGMS: StableDiffusionParadigmsPipeline with DDIMParallelScheduler, by its authors; guidance is in the outputs."""
    df: Any = import_module("diffusers")

    def method(sampler: Sampler, x: Tensor, ask: Ask) -> Tensor:
        pipe = _pipeline(df.StableDiffusionParadigmsPipeline, df.DDIMParallelScheduler, sampler, ask, guided=False)
        given = {"num_inference_steps": sampler.steps, "parallel": workers, "tolerance": tolerance}
        return pipe(**given, guidance_scale=1.0, latents=x, prompt_embeds=NO_TEXT, output_type="latent").images

    return method


def parasolver(clones: Path, workers: int, tolerance: float, preconditioning: int) -> Method:
    """ParaSolver: `parasolver_forward` of its DDIM pipeline, N subintervals, one process."""
    with importing(clones / "ParaSolver"):
        module: Any = import_module("sd_parasolver.stablediffusion_parasolver_ddim_mp")
        scheduler = import_module("sd_parasolver.paraddim_scheduler").ParaDDIMScheduler

    def method(sampler: Sampler, x: Tensor, ask: Ask) -> Tensor:
        pipe = _pipeline(module.ParaSolverDDIMStableDiffusionPipeline, scheduler, sampler, ask, guided=True)
        # It hands on neither latents nor embeddings.
        given = {"latents": x, "prompt_embeds": NO_TEXT, "negative_prompt_embeds": NO_TEXT}
        pipe.preparation_for_diffusion = partial(pipe.preparation_for_diffusion, **given)
        found, _ = pipe.parasolver_forward(
            num_inference_steps=sampler.steps,
            num_time_subintervals=sampler.steps,
            num_preconditioning_steps=preconditioning,
            parallel=workers,
            tolerance=tolerance,
            output_type="latent",
            device="cpu",
            generator=torch.Generator(),
            num_consumers=1,
        )
        return found.images

    return method


def parataa(clones: Path, workers: int, tolerance: float, order: int, memory: int) -> Method:
    """ParaTAA: `ParallelDDIM`, a window of K steps; memory 1 is its plain fixed-point iteration."""
    # It imports torchvision to save pictures.
    with (
        importing(clones / "ParaTAA-Diffusion"),
        mock.patch.dict(sys.modules, {"torchvision": ModuleType("torchvision"), "torchvision.utils": mock.Mock()}),
    ):
        module: Any = import_module("parallel_sd")

    def method(sampler: Sampler, x: Tensor, ask: Ask) -> Tensor:
        own = sampler.scheduler
        # Its last step goes to timestep 0, which is none of the model's: the scheduler's last level is put there.
        levels = own.alphas_cumprod.clone()
        levels[0] = own.final_alpha_cumprod
        scheduler = SimpleNamespace(
            timesteps=own.timesteps, alphas_cumprod=levels, scale_model_input=own.scale_model_input
        )
        index = {int(timestep): place for place, timestep in enumerate(own.timesteps)}
        flat = x[0].flatten(1, -2)
        module.torch = _Shaped(flat.shape)
        given = {"window_size": workers, "order": order, "memory_size": memory, "tol1": tolerance, "tol2": tolerance}
        solver = module.ParallelDDIM(sampler.steps, scheduler, **given, device="cpu", use_fp16=False)
        noise = torch.zeros(sampler.steps + 1, *flat.shape, dtype=torch.float64)
        noise[-1] = flat
        solver.initialize(noise)
        solver.set_prompt_emebds((NO_TEXT, NO_TEXT))
        while not solver.is_finished():
            local, whole = solver.prepare_model_kwargs(0, 1)
            rows, times = local["sample"].chunk(2)[0], local["timestep"].chunk(2)[0].tolist()
            points = [Point(index[at], row.reshape(x.shape)) for at, row in zip(times, rows, strict=True)]
            solver.step(torch.stack([output.reshape(flat.shape) for output in ask(points)]), whole)
        return solver.get_last_sample().reshape(x.shape)

    return method


class _Shaped:
    """torch, but a state of 4 x 64 x 64, which ParaTAA writes out, has the model's own shape."""

    def __init__(self, shape: torch.Size) -> None:
        self._shape = shape

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def zeros(self, *size: int, **options: Any) -> Tensor:
        own = (*size[:-3], *self._shape) if size[-3:] == (4, 64, 64) else size
        return torch.zeros(*own, **options)


STARTS = (
    "0-2-4-8-16-24-32-40",
    "0-2-4-8-16-26-36-46",
    "0-2-4-8-16-25-33-42",
    "0-2-4-7-12-19-27-36",
    "0-8-16-32",
    "0-8-24-40",
    "0-6-14-28",
    "0-4-10-20",
    "0-16",
    "0-12",
    "0-8",
    "0-1-2-3-4-6-8-10-12-16-20-24-28-32-36-40",
)
"""Where CHORDS' cores begin at N = 50: of 8 the first is its authors', the others are in their manner."""


def chords(clones: Path, workers: int, core: float, starts: str) -> Method:
    """CHORDS: the `core`-th result, with the steps of its SD3 or of its CogVideoX pipeline; 0 leaps to the end."""
    with importing(clones / "CHORDS"):
        solver = import_module("algorithms.chords").CHORDS
        steps: Any = import_module("snippets.scheduler")

    def method(sampler: Sampler, x: Tensor, ask: Ask) -> Tensor:
        scheduler = sampler.scheduler
        stride = scheduler.config.num_train_timesteps // sampler.steps

        def euler(x: Tensor, output: Tensor, at: int, to: int) -> Tensor:
            return steps.custom_step_Euler(scheduler, output, at, to, x, return_dict=False)[0]

        def ddim(x: Tensor, output: Tensor, at: int, to: int) -> Tensor:
            time = scheduler.timesteps[at]
            return steps.custom_step_DDIM(scheduler, output, time, time - stride * (to - at), x, return_dict=False)[0]

        step = ddim if "DDIM" in type(scheduler).__name__ else euler
        stop = {"criterion": "core_index", "index": int(core), "threshold": None}
        cores = solver(sampler.steps, x, workers, step, starts, stop)
        while points := cores.get_allocation():
            outputs = ask([Point(at, state) for at, _, state in points])
            cores.update_scores([(at, k, output) for (at, k, _), output in zip(points, outputs, strict=True)])
            cores.update_states(len(points))
            arrived, done = cores.schedule_cores()
            if done or (core == 0 and cores.hits):
                break
            left = cores.cur_core_to_compute[len(points) :]
            cores.cur_core_to_compute = [each for each in left if each not in arrived] if arrived else left
        return cores.get_last_x_and_hittime()[1][-1]

    return method


PUBLISHED: dict[str, Callable[..., Method]] = {
    "published-parasolver": parasolver,
    "published-chords": chords,
    "published-parataa": parataa,
    "published-paradigms": paradigms,
}
KINDS = ("cache-dit", *PUBLISHED)
NO_TEXT = torch.zeros(1, 1, 1)


@torch.no_grad()
def cache_dit(
    sampler: Sampler, pairs: Sequence[Pair], threshold: float, taylor: int, warmup: int, most: int = -1
) -> list[Made]:
    """DBCache of cache-dit, F1B0, sample by sample, both halves of guidance in one call as their pipelines make it.

    Args:
        sampler: the model, a transformer.
        pairs: samples.
        threshold: `residual_diff_threshold`.
        taylor: the order of its TaylorSeer; 0 is without.
        warmup: steps that are computed in full at the start.
        most: cached steps in a row; -1 is any number.
    """
    logging.getLogger("CACHE_DIT").setLevel(logging.ERROR)
    package: Any = import_module("cache_dit")
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(("CACHE_DIT", "cache_dit")):
            logging.getLogger(name).setLevel(logging.ERROR)
    denoiser = copy.deepcopy(sampler.denoiser)
    computed: list[nn.Module] = []
    blocks = stack_of(denoiser)
    for block in blocks:
        block.register_forward_pre_hook(lambda block, _: computed.append(block))
    pattern = package.ForwardPattern.Pattern_1 if "SD3" in type(denoiser).__name__ else package.ForwardPattern.Pattern_3
    package.enable_cache(
        package.BlockAdapter(transformer=denoiser, blocks=blocks, forward_pattern=pattern),
        cache_config=package.DBCacheConfig(
            Fn_compute_blocks=1,
            Bn_compute_blocks=0,
            residual_diff_threshold=threshold,
            max_warmup_steps=warmup,
            max_continuous_cached_steps=most,
            enable_separate_cfg=False,
        ),
        # Its calibrator of the text's states fails on SD3, whose last block returns none.
        calibrator_config=package.TaylorSeerCalibratorConfig(taylorseer_order=taylor, enable_encoder_calibrator=False)
        if taylor
        else None,
    )
    made: list[Made] = []
    for pair in pairs:
        package.refresh_context(denoiser, num_inference_steps=sampler.steps)
        computed.clear()
        x = sampler.start(pair)
        text = sampler.text([sampler.captions, pair.caption])
        sampler.scheduler.set_timesteps(sampler.steps)
        for timestep in sampler.scheduler.timesteps:
            empty, said = predict(denoiser, torch.cat([x, x]), timestep.expand(2), text).split(1)
            x = sampler.scheduler.step(empty + sampler.guidance * (said - empty), timestep, x).prev_sample
        made.append(Made(x, len(computed) / len(blocks)))
    return made


def _pipeline(pipeline: Any, scheduler: Any, sampler: Sampler, ask: Ask, *, guided: bool) -> Any:
    """Return an author's pipeline whose U-Net is asked for, with the model's own scheduler's configuration."""
    model = AskedModel(sampler, ask, guided)
    parts = (sampler.pipe.vae, None, None, model, scheduler.from_config(sampler.scheduler.config), None, None)
    made = pipeline(*parts, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


@contextlib.contextmanager
def importing(clone: Path) -> Iterator[None]:
    """Import from a clone of a repository that is no package."""
    sys.path.insert(0, str(clone))
    try:
        yield
    finally:
        sys.path.remove(str(clone))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Print nothing."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
