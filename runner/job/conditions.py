"""Conditions: all that the error of an item depends on besides its solver, words and seed.

A certificate holds for one set of them. The prompts of a cell may have several: those with a picture and those without,
those with a negative prompt, those with a sampling of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.adapters.pipeline.additions import identity_of
from genrun.runner.job import certificates
from genrun.runner.strict_json import canonical

if TYPE_CHECKING:
    from genrun.runner.job.cell import Cell
    from genrun.runner.job.files import Inputs
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.job.prompt_files import Prompt
    from genrun.runner.job.resolve import LoadedJob

SHOWN = 5
"""Differences, or lines, that a message has room for."""


def identity_of_model(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of an item's model changes the pixels."""
    # Fields that are new since the first version only where they are set, so that ids stay what they were.
    changes = {key: model[key] for key in ("compile", "quantization", "variant") if model.get(key)}
    if (model.get("vae") or {}).get("tiling"):
        changes["tiling"] = True
    return {**{key: model[key] for key in ("adapter", "fingerprint", "dtype")}, **changes, **identity_of(model)}


def conditions_of_cell(cell: Cell, model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the conditions of a cell's items whose prompts have none of their own.

    Args:
        cell: the cell.
        model: of its items.
    """
    job = cell.job
    return {
        "model": identity_of_model(model),
        "call": dict(cell.adapter.call),
        "sampling": dict(cell.sampling),
        "cache": {} if job.cache.kind == "none" else {"kind": job.cache.kind, **job.cache.options},
        "attention": job.attention,
    }


def own_conditions(cell: Cell, prompt: Prompt, files: Inputs) -> dict[str, Any]:
    """Return what a prompt's items have besides, or in place of, the conditions of their cell; mostly nothing."""
    from genrun.runner.job.cell import sampling_of

    own: dict[str, Any] = {}
    if prompt.row and (sampling := sampling_of(cell.sampling, prompt)) != cell.sampling:
        own["sampling"] = sampling
    # A picture, and a second one, makes another call of the pipeline, or another pipeline.
    if counts := {field: len(each) for field, each in files.items() if each}:
        own["inputs"] = counts
    # Some pipelines evaluate a second branch only where there is a negative prompt.
    if prompt.negative_prompt is not None and "negative_prompt" not in cell.sampling:
        own["negative_prompt"] = True
    return own


def by_conditions(cell: Cell, model: Mapping[str, Any]) -> list[tuple[dict[str, Any], Cell]]:
    """Return each set of conditions that a cell's prompts have, with the cell as if it had those prompts alone."""
    shared, parts = conditions_of_cell(cell, model), {}
    for prompt, files in zip(cell.prompts, cell.inputs, strict=True):
        own = own_conditions(cell, prompt, files)
        _, prompts, inputs = parts.setdefault(canonical(own) if own else b"", (own, [], []))
        prompts.append(prompt)
        inputs.append(files)
    return [
        ({**shared, **own}, replace(cell, prompts=tuple(prompts), inputs=tuple(inputs)))
        for own, prompts, inputs in parts.values()
    ]


def hash_of_prompts(cell: Cell) -> str:
    """Return what identifies the prompts of a cell, their pictures and clips included."""
    files = (file.sha256 for inputs in cell.inputs for each in inputs.values() for file in each)
    negatives = (f"-{prompt.negative_prompt}" for prompt in cell.prompts if prompt.negative_prompt is not None)
    return certificates.hash_of([*(prompt.text for prompt in cell.prompts), *negatives, *files])


def promised(loaded: LoadedJob, models: Sequence[Mapping[str, Any]], items: Sequence[WorkItem]) -> list[str]:
    """Say what is promised of a job's items, and why certificates that are there are not for them.

    Args:
        loaded: the job.
        models: of its cells, as `plan.models_of` returns them.
        items: its plan.
    """
    lines = [certificates.sentence(str(item.solver["kind"]), item.promise) for item in items if item.promise]
    known: dict[Path, list[certificates.Certificate]] = {}
    for cell, model in zip(loaded.cells, models, strict=True):
        solver, runs = {"kind": cell.job.solver.kind, **cell.job.solver.options}, Path(cell.job.output.dir)
        if certificates.can_be_calibrated(solver) and cell.job.solver.confidence != 0:
            found = known[runs] if runs in known else known.setdefault(runs, certificates.all_of(runs))
            lines += _why_not(cell, model, solver, found) if found else ()
    lines = list(dict.fromkeys(lines))
    return lines if len(lines) <= 2 * SHOWN else [*lines[: 2 * SHOWN], f"and {len(lines) - 2 * SHOWN} more such lines"]


def _why_not(
    cell: Cell, model: Mapping[str, Any], solver: Mapping[str, Any], known: Sequence[certificates.Certificate]
) -> Iterator[str]:
    """Yield what keeps the nearest certificate from being taken, for each set of a cell's conditions that has none."""
    asked = cell.job.solver.confidence
    for conditions, _ in by_conditions(cell, model):
        subject = certificates.subject_of(conditions, solver)
        own = next((each for each in known if each.subject == subject), None)
        if own is not None:
            if own.confidence < (asked or 0.0):
                least = f"{100 * own.confidence:g} %, and {100 * (asked or 0.0):g} % are asked for"
                yield f"{solver['kind']}: certificate {certificates.key_of(subject)} is for {least}"
            continue
        apart = [(each, [*certificates.differences(subject, each.subject)]) for each in known]
        apart = [pair for pair in apart if ("solver", "kind") not in [path for path, _ in pair[1]]]
        if not apart:
            continue
        nearest, found = min(apart, key=lambda pair: len(pair[1]))
        # Without a confidence nobody asked for a promise: what differs in more than one section is another job's.
        if asked is None and len({path[:2] if path[0] == "cell" else path[:1] for path, _ in found}) > 1:
            continue
        told = ", ".join(text for _, text in found[:SHOWN]) + (" ..." if len(found) > SHOWN else "")
        yield f"{solver['kind']}: certificate {certificates.key_of(nearest.subject)} is not for these items: {told}"
