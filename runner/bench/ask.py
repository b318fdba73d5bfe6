"""From a command line to what is measured: samples of a model, or closed-form problems, and what decides their numbers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.runner.bench.code import code_of_module
from genrun.runner.bench.subjects import AnalyticSubject, Ask, ModelSubject, Subject
from genrun.runner.errors import UsageError
from genrun.runner.job.errors import Origin
from genrun.runner.job.layers import set_path
from genrun.runner.job.plan import WorkItem, canonical, plan
from genrun.runner.job.resolve import check
from genrun.runner.job.tree import Value, dress, shown, unknown
from genrun.runner.store.environment import versions

if TYPE_CHECKING:
    from genrun.adapters.adapter import Adapter
    from genrun.runner.job.resolve import LoadedJob

ANALYTIC = "analytic"
"""All closed-form problems."""
STEPS = 50
CAPTIONS = {("demo", "video"): "prompts/demo.txt", ("demo", "image"): "prompts/demo-images.txt"}
"""Prompts of models that know only some captions."""
GENERAL = "prompts/general.txt"
SETTABLE = ("model", "sampling")
DECIDING = ("torch", "diffusers")
"""Packages whose version is part of a bench's settings."""


@dataclass(frozen=True)
class Asked:
    """What a bench is about.

    Attributes:
        subjects: what solvers are run on.
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
    """Check a question about a model, without loading it.

    Raises:
        JobFileError: the model, scheduler, prompts or another value is wrong; each with its option.
        UsageError: an option of the job is set that a bench does not have.
    """
    from genrun.adapters import registry

    _check_sets(question.sets)
    loaded = check(_document(question, registry.names()), Path("bench"), question.sets)
    items, adapter = plan(loaded), loaded.cells[0].adapter
    asks = [_ask(loaded, items, index, question.seed) for index in range(question.samples)]
    first = items[0]
    name = _slug(adapter.name if adapter.name != "auto" else Path(first.model["checkpoint"]).name)
    title = adapter.title if adapter.name != "auto" else first.model["checkpoint"]
    subject = ModelSubject(name, title, adapter, first.model, first.sampling, asks, question.batch)
    lines = [f"seed {ask.seed}: {ask.prompt}" for ask in asks]
    return Asked((subject,), _model_settings(question, first, adapter, asks), lines)


def ask_problem(name: str, samples: int, seed: int, steps: int | None) -> Asked:
    """Check a question about closed-form problems. Raises UsageError."""
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


def _check_sets(sets: Sequence[str]) -> None:
    for text in sets:
        head = set_path(text.partition("=")[0].strip())[0]
        if head not in SETTABLE:
            raise UsageError(
                f"--set {shown(text)}: a bench has the sections {' and '.join(SETTABLE)} of a job.",
                remedy="Solvers, prompts and seeds have options of their own: genrun bench --help.",
            )


def _document(question: ModelQuestion, adapters: Sequence[str]) -> Value:
    """The job that makes the samples, each value with the option it comes from."""
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


def _ask(loaded: LoadedJob, items: Sequence[WorkItem], index: int, seed: int) -> Ask:
    """Sample `index`: prompts in turn; a prompt's own seed where it has one, moved on when its turn comes again."""
    turn, place = divmod(index, len(items))
    item, own = items[place], loaded.cells[0].prompts[place].seed
    return Ask(item.prompt, item.negative_prompt, seed + index if own is None else own + turn)


def _model_settings(question: ModelQuestion, item: WorkItem, adapter: Adapter, asks: Sequence[Ask]) -> dict[str, Any]:
    from genrun.runner.worker.device import choose_device

    found = versions()
    listed = canonical([[ask.prompt, ask.negative_prompt, ask.seed] for ask in asks])
    deciding = ("adapter", "fingerprint", "dtype", "variant")
    model = {key: item.model[key] for key in deciding if key in item.model}
    return {
        "kind": "model",
        "model": {**model, "device": choose_device(item.model["device"]).partition(":")[0]},
        "call": dict(adapter.call),
        "sampling": item.sampling,
        "samples": {"count": len(asks), "seed": question.seed, "prompts": hashlib.sha256(listed).hexdigest()[:12]},
        "batch": question.batch,
        "versions": {name: found.get(name, "") for name in DECIDING},
    }


def _slug(text: str) -> str:
    """A name for files."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:80] or "model"
