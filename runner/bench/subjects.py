"""Subjects of a bench, what solvers are measured on: samples of a model, or of closed-form problems."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from genrun.adapters.pipeline.additions import identity_of
from genrun.runner.bench.results import code_of_module
from genrun.runner.errors import UsageError
from genrun.runner.job.errors import Origin
from genrun.runner.job.layers import set_path
from genrun.runner.job.plan import WorkItem, plan
from genrun.runner.job.resolve import check
from genrun.runner.job.tree import Value, dress, shown, unknown
from genrun.runner.store.environment import versions
from genrun.runner.strict_json import canonical

if TYPE_CHECKING:
    from torch import Tensor

    from genrun.adapters.adapter import Adapter
    from genrun.runner.job.resolve import LoadedJob
    from genrun.solvers.contract import Solution, Solver

ANALYTIC = "analytic"
"""All closed-form problems."""

STEPS = 50
"""Steps of a closed-form problem: N of most published comparisons."""

# The first step of a multistep scheduler takes another way than the later ones.
WARM_UP_STEPS = 2

# Demo models know only the captions that they were trained on.
CAPTIONS = {("demo", "video"): "prompts/demo.txt", ("demo", "image"): "prompts/demo-images.txt"}
GENERAL = "prompts/general.txt"

SETTABLE = ("model", "sampling")
"""Sections of a job that `--set` may change."""

DECIDING = ("torch", "diffusers")
"""Packages whose version is part of a bench's settings."""


@dataclass(frozen=True)
class SolvedSample:
    """A sample under a solver: the final state, float32 on the CPU, and its cost."""

    x: Tensor
    solution: Solution


class Subject(Protocol):
    """Samples that any solver can be run on."""

    @property
    def name(self) -> str:
        """Short and fit for a file name."""
        ...

    @property
    def title(self) -> str:
        """Title in a line."""
        ...

    @property
    def count(self) -> int:
        """Number of samples."""
        ...

    @property
    def batch(self) -> int:
        """Samples that are run in one call."""
        ...

    @property
    def num_frames(self) -> int | None:
        """Frames asked for, which tell the layout of video latents; None for anything else."""
        ...

    def run(self, solver: Solver, indices: Sequence[int], cache: Mapping[str, Any] | None = None) -> list[SolvedSample]:
        """Sample the given ones, at most `batch`, in one call; `cache` is a kind and its options."""
        ...

    def warm_up(self) -> None:
        """Do what only the first call does, so that it is not timed."""
        ...

    def close(self) -> None:
        """Let go of the model."""
        ...


@dataclass(frozen=True)
class AnalyticSubject:
    """A closed-form problem of `genrun.solvers.analytic`, one sample per seed."""

    name: str
    num_steps: int
    count: int
    seed: int = 0
    batch: int = 1
    num_frames: None = None

    @property
    def title(self) -> str:
        """Description of the problem."""
        return self._world.title

    @cached_property
    def _world(self) -> Any:
        from genrun.solvers.analytic import WORLDS

        return WORLDS[self.name]

    @cached_property
    def _denoise(self) -> Any:
        return self._world.denoiser()

    def run(self, solver: Solver, indices: Sequence[int], cache: Mapping[str, Any] | None = None) -> list[SolvedSample]:
        """Solve one problem per index; there are no blocks to cache."""
        from genrun.solvers import drive
        from genrun.solvers.analytic import evaluator

        problems = [self._world.problem(self.num_steps, self.seed + index) for index in indices]
        solutions = [drive(solver, problem, evaluator(problem, self._denoise)) for problem in problems]
        return [SolvedSample(solution.x, solution) for solution in solutions]

    def warm_up(self) -> None:
        """Solve a problem once."""
        from genrun.solvers import registry

        self.run(registry.get("sequential")(), [0])

    def close(self) -> None:
        """Do nothing: there is no model to let go of."""


@dataclass(frozen=True)
class SampleInput:
    """The prompt and seed of one sample."""

    prompt: str
    negative_prompt: str | None
    seed: int


@dataclass
class ModelSubject:
    """A diffusers pipeline, loaded when it is first run.

    Attributes:
        name: of the model, fit for a file name.
        title: one line.
        adapter: of the model.
        model: checkpoint, revision, dtype and device, as of a WorkItem.
        sampling: the resolved section.
        inputs: prompt and seed of each sample.
        batch: samples that one pipeline call makes.
    """

    name: str
    title: str
    adapter: Adapter
    model: Mapping[str, Any]
    sampling: Mapping[str, Any]
    inputs: Sequence[SampleInput]
    batch: int = 1
    _open: ExitStack = field(default_factory=ExitStack)

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(self.inputs)

    @property
    def num_frames(self) -> int | None:
        """Frames asked for."""
        return self.sampling.get("num_frames")

    def run(self, solver: Solver, indices: Sequence[int], cache: Mapping[str, Any] | None = None) -> list[SolvedSample]:
        """Make samples in one pipeline call, as the plain pipeline would; nothing is decoded."""
        return self._run(solver, indices, self.sampling, cache)

    def warm_up(self) -> None:
        """Load the model, and sample a few steps."""
        from genrun.solvers import registry

        few = {**self.sampling, "steps": WARM_UP_STEPS}
        self._run(registry.get("sequential")(), range(min(self.batch, self.count)), few)

    def close(self) -> None:
        """Free the model's memory."""
        self._open.close()
        self.__dict__.pop("_pipe", None)

    def _run(
        self,
        solver: Solver,
        indices: Sequence[int],
        sampling: Mapping[str, Any],
        cache: Mapping[str, Any] | None = None,
    ) -> list[SolvedSample]:
        from genrun.adapters.caches import registry
        from genrun.adapters.sampling.call import SamplingRequest
        from genrun.adapters.sampling.generate import sample, sample_batch

        inputs = [self.inputs[index] for index in indices]
        requests = [SamplingRequest(each.prompt, each.seed, sampling, each.negative_prompt) for each in inputs]
        if len(requests) == 1:
            made = registry.make(dict(cache)) if cache else None
            sampled = [sample(self._pipe, self.adapter, requests[0], solver, cache=made)]
        else:
            sampled = sample_batch(self._pipe, self.adapter, requests, solver)
        return [SolvedSample(each.latents.detach().float().cpu(), each.solution) for each in sampled]

    @cached_property
    def _pipe(self) -> Any:
        from genrun.adapters.pipeline.additions import Additions
        from genrun.adapters.pipeline.encoders import encode_once
        from genrun.adapters.pipeline.load_options import LoadOptions
        from genrun.adapters.pipeline.loading import load
        from genrun.runner.worker.rank import choose_device

        quieten()
        device = choose_device(self.model["device"])
        checkpoint, revision = self.model["checkpoint"], self.model["revision"]
        held = LoadOptions(self.model["dtype"], variant=self.model.get("variant"), additions=Additions.of(self.model))
        pipe = load(self.adapter, checkpoint, dtype=None, device=device, revision=revision, load_options=held)
        self._open.enter_context(encode_once(pipe))
        return pipe


def quieten() -> None:
    """Hide the libraries' own progress bars, which would tear genrun's apart."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


@dataclass(frozen=True)
class Asked:
    """The subjects of a bench.

    Attributes:
        subjects: one for each model or problem.
        settings: everything that decides the numbers, but solvers, workers and tolerances.
        samples: one line for each.
    """

    subjects: Sequence[Subject]
    settings: Mapping[str, Any]
    samples: Sequence[str]


@dataclass(frozen=True)
class ModelQuestion:
    """The options of `genrun bench --model`; None is the model's own.

    Attributes:
        model: name, folder or hub id.
        samples: how many; prompts are taken in turn, each sample with another seed.
        seed: of the first sample.
        steps: N.
        scheduler: name of a diffusers scheduler class.
        guidance: scale.
        prompts: file of prompts.
        batch: samples of one pipeline call.
        sets: "a.b=value", for anything else in the sections model and sampling of a job.
    """

    model: str
    samples: int = 16
    seed: int = 0
    steps: int | None = None
    scheduler: str | None = None
    guidance: float | None = None
    prompts: str | None = None
    batch: int = 1
    sets: Sequence[str] = ()


def ask_model(question: ModelQuestion) -> Asked:
    """Read what to sample of a model, without loading it.

    Raises:
        JobFileError: the model, scheduler, prompts or another value is wrong; each with its option.
        UsageError: an option of the job is set that a bench does not have.
    """
    from genrun.adapters import registry

    for text in question.sets:
        if set_path(text.partition("=")[0].strip())[0] not in SETTABLE:
            raise UsageError(
                f"--set {shown(text)}: a bench has the sections {' and '.join(SETTABLE)} of a job.",
                remedy="Solvers, prompts and seeds have options of their own: genrun bench --help.",
            )
    loaded = check(_document(question, registry.names()), Path("bench"), question.sets)
    items, adapter = plan(loaded), loaded.cells[0].adapter
    if own := next((item for item in items if item.own), None):
        said = f"--prompts {shown(question.prompts)}: {shown(own.prompt)} has pictures or fields of its own."
        raise UsageError(said, remedy="Submit a job with a matrix of solvers instead, and compare its cells.")
    inputs = [_input(loaded, items, index, question.seed) for index in range(question.samples)]
    first = items[0]
    name, title = adapter.name, adapter.title
    if name == "auto":
        name, title = Path(first.model["checkpoint"]).name, first.model["checkpoint"]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:80] or "model"
    subject = ModelSubject(name, title, adapter, first.model, first.sampling, inputs, question.batch)
    lines = [f"seed {each.seed}: {each.prompt}" for each in inputs]
    return Asked((subject,), _model_settings(question, first, adapter, inputs), lines)


def ask_problem(name: str, samples: int, seed: int, steps: int | None) -> Asked:
    """Read which closed-form problems to solve. Raises UsageError."""
    from genrun.solvers.analytic import WORLDS

    known = (ANALYTIC, *WORLDS)
    if name not in known:
        raise UsageError(f"--problem {name}: {unknown(name, known, 'problem')}")
    steps = STEPS if steps is None else steps
    names = tuple(WORLDS) if name == ANALYTIC else (name,)
    settings = {
        "kind": "closed form",
        "code": code_of_module("genrun.solvers.analytic"),
        "steps": steps,
        "samples": {"count": samples, "seed": seed},
        "versions": {"torch": versions().get("torch", "")},
    }
    subjects = tuple(AnalyticSubject(each, steps, samples, seed) for each in names)
    return Asked(subjects, settings, [f"seed {seed + index}" for index in range(samples)])


def _document(question: ModelQuestion, adapters: Sequence[str]) -> Value:
    """Write the job that makes the samples, each value with the option it comes from."""
    sampling = {
        "steps": _given("steps", question.steps),
        "guidance_scale": _given("guidance", question.guidance),
        "scheduler": _given("scheduler", question.scheduler),
    }
    here = Origin("genrun bench")
    file = _given("prompts", question.prompts) or dress(_usual_prompts(question.model, adapters), here)
    sections = {
        "name": Value("bench", here),
        "model": _given("model", question.model),
        "prompts": Value({"file": file, "limit": Value(question.samples, here)}, here),
        "seeds": Value([_given("seed", question.seed)], here),
        "sampling": Value({key: value for key, value in sampling.items() if value is not None}, here),
    }
    return Value(sections, here)


def _given(option: str, data: Any) -> Value | None:
    if data is None:
        return None
    return Value(data, Origin(f"--{option} {data if isinstance(data, int | float) else shown(data)}"))


def _usual_prompts(model: str, adapters: Sequence[str]) -> str:
    from genrun.adapters import registry

    if model not in adapters:
        return GENERAL
    adapter = registry.get(model)
    return CAPTIONS.get((adapter.captions or "", adapter.kind or ""), GENERAL)


def _input(loaded: LoadedJob, items: Sequence[WorkItem], index: int, seed: int) -> SampleInput:
    """Return sample `index`: prompts in turn; a prompt's own seed where it has one, moved on when its turn comes again."""
    turn, place = divmod(index, len(items))
    item, own = items[place], loaded.cells[0].prompts[place].seed
    return SampleInput(item.prompt, item.negative_prompt, seed + index if own is None else own + turn)


def _model_settings(
    question: ModelQuestion, item: WorkItem, adapter: Adapter, inputs: Sequence[SampleInput]
) -> dict[str, Any]:
    from genrun.runner.worker.rank import choose_device

    found = versions()
    listed = canonical([[each.prompt, each.negative_prompt, each.seed] for each in inputs])
    deciding = ("adapter", "fingerprint", "dtype", "variant")
    model = {**{key: item.model[key] for key in deciding if key in item.model}, **identity_of(item.model)}
    return {
        "kind": "model",
        "model": {**model, "device": choose_device(item.model["device"]).partition(":")[0]},
        "call": dict(adapter.call),
        "sampling": item.sampling,
        "samples": {"count": len(inputs), "seed": question.seed, "prompts": hashlib.sha256(listed).hexdigest()[:12]},
        "batch": question.batch,
        "versions": {name: found.get(name, "") for name in DECIDING},
    }
