"""Checks of what is written and scored: formats, sound, folders; metrics, limits that could not fail or pass."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from genrun.adapters.checkpoint.integrity import check_component
from genrun.adapters.files import is_folder, is_there, unusable
from genrun.adapters.pipeline.families import fps_asked
from genrun.registry import did_you_mean
from genrun.runner.job.cell import Draft
from genrun.runner.job.checkpoint import locate_part
from genrun.runner.job.errors import JobProblem
from genrun.runner.job.field_types import PERCENT_PATTERN
from genrun.runner.job.files import HOME, expanded, problem_of
from genrun.runner.job.options import RegistryLike, checked
from genrun.runner.job.schema import AUDIT, COSTS, OutputSpec
from genrun.runner.job.tree import Path as TreePath
from genrun.runner.job.tree import Value, got, repeated, unknown

LONGEST = "/".join(("x" * 80, "2026-01-31T02-00-00-0000", "latents", "00", f".{'0' * 20}.00000000.tmp.safetensors"))
"""A path as long as the longest that a run has below the folder of runs."""


TINY, TINY_CHANNELS = "AutoencoderTiny", 4
"""Class of the decoders of previews, and their channels where config.json says nothing."""


def check_format(cell: Draft) -> Iterator[JobProblem]:
    """Refuse `output.format` where the model is known not to make it."""
    if cell.sampling is None:
        return
    at = ("output", "format")
    kind = getattr(cell.adapter, "kind", None)
    message = format_problem(cell.root.text(at), kind, cell.sampling.get("num_frames"))
    if message:
        label = getattr(cell.adapter, "label", cell.adapter.name)
        yield cell.root.problem(at, f"{label} {message}.")


def format_problem(wanted: Any, kind: str | None, num_frames: int | None) -> str:
    """Say what is wrong with a format for a model that makes clips or pictures; return "" for nothing."""
    if wanted == "png" and kind == "video" and num_frames != 1:
        return "makes clips, and a PNG holds one picture. Use mp4, leave the format out, or set sampling.num_frames: 1"
    if wanted == "mp4" and kind == "image":
        return "makes pictures, not clips. Use png, or leave the format out"
    return ""


OF_CLIPS = ("fps", "crf")
"""Keys of `output` that say how a clip is written."""


def check_clip_keys(cell: Draft) -> Iterator[JobProblem]:
    """Refuse keys of clips of a model that makes pictures; a default, as it is stored or the user's, says nothing."""
    if getattr(cell.adapter, "kind", None) != "image" or any(axis.split(".")[0] == "model" for axis in cell.axes):
        return
    label = getattr(cell.adapter, "label", cell.adapter.name)
    for name in OF_CLIPS:
        value = cell.root.find(("output", name))
        if value is None or value.wrong or value.origin.of_user:
            continue
        if value.data not in (None, OutputSpec.model_fields[name].default):
            message = f"does nothing: {label} makes pictures, and this is for clips. Leave it out."
            yield cell.root.problem(("output", name), message, key=True)


def check_sound(cell: Draft) -> Iterator[JobProblem]:
    """Refuse sound of a model that is known to make none, and frames at another pace than their sound is made for."""
    adapter = cell.adapter
    if cell.sampling is None or cell.job is None or not (adapter.pipeline or getattr(adapter, "loads", None)):
        return
    output, pace = cell.job.output, fps_asked(cell.sampling) or getattr(adapter, "fps", None)
    for name, message in sound_problems(output.sound, output.fps, pace, makes=getattr(adapter, "sound", False)):
        yield cell.root.problem(("output", name), f"{getattr(adapter, 'label', adapter.name)} {message}.")


def sound_problems(
    wanted: bool | None, fps: float | None, pace: float | None, *, makes: bool
) -> Iterator[tuple[str, str]]:
    """List what is wrong with the sound that a section `output` asks for: (field, message).

    Args:
        wanted: output.sound.
        fps: output.fps.
        pace: frames a second that the model is told, or is made for.
        makes: whether it makes sound.
    """
    if wanted and not makes:
        yield "sound", "makes no sound. Leave it out"
    elif makes and wanted is not False and fps is not None and fps != pace:
        yield (
            "fps",
            (
                f"makes sound for {pace:g} frames a second, which {fps:g} would leave behind. Leave fps out, set "
                f"sampling.options.frame_rate: {fps:g}, or output.sound: false"
            ),
        )


def check_previews(cell: Draft) -> Iterator[JobProblem]:
    """Refuse a decoder of previews that is not here, is none, or is for latents of another model."""
    at = ("output", "previews", "decoder")
    name = cell.root.text(at)
    if name is None:
        return
    wrong = _decoder_problem(name, cell.root.place(at).folder, {} if cell.parts is None else cell.parts.vae_config)
    if wrong:
        yield cell.root.problem(at, f"{wrong}.")


def _decoder_problem(name: str, base: Path, vae: Mapping[str, Any]) -> str:
    """Say what is wrong with a decoder of previews for latents of a VAE; return "" for nothing."""
    try:
        found = locate_part(name, base)
        folder = found.local_folder(None)
        if found.file is not None:
            return f"{name!r} is a file; wanted the folder of an {TINY}"
        if folder is None:
            return f"{name!r} is no folder on this machine. Get it: hf download {name}"
        config = check_component(folder, name, None)
    except (ValueError, OSError) as error:
        return str(error).rstrip(".")
    if config.get("_class_name") != TINY:
        return f"{name!r} holds a {config.get('_class_name')}, and wanted is an {TINY}, such as TAESD"
    channels, wanted = config.get("latent_channels", TINY_CHANNELS), vae.get("latent_channels") or vae.get("z_dim")
    if isinstance(wanted, int) and channels != wanted:
        return f"{name!r} decodes latents of {channels} channels, and this model's have {wanted}. Name one made for it"
    return ""


def check_folder(cell: Draft) -> Iterator[JobProblem]:
    """Refuse a folder of runs that cannot be made: of a user that is not there, or with a name too long."""
    at = ("output", "dir")
    name = cell.root.text(at)
    if name is None:
        return
    folder = expanded(name)
    wrong = unusable(Path(folder, LONGEST).absolute())
    if str(folder).startswith(HOME):
        user = folder.parts[0].removeprefix(HOME)
        wrong = f"there is no user {user!r} here; write ./{folder} for a folder of that name"
    above = next((path for path in (folder, *folder.absolute().parents) if is_there(path)), folder)
    if not wrong and is_there(above) and not is_folder(above):
        wrong = f"{str(above)!r} is a file; wanted a folder"
    if wrong:
        yield cell.root.problem(at, f"{wrong}.")


SCORE: TreePath = ("score",)
DRIFT = "drift"
"""`drift.psnr`: the distance to the baseline's own item."""

LIMITS = ("max", "min", "max_drop", "max_rise")
COST_BOUNDS = {"rounds": (1, math.inf), "nfe": (1, math.inf), "speedup": (0, math.inf), "elapsed_s": (0, math.inf)}
ANY = (-math.inf, math.inf)


def check_metrics(cell: Draft) -> Iterator[JobProblem]:
    """Refuse unknown and repeated metrics, and options or values that a metric does not take."""
    metrics = cell.registries.metrics
    named = _named_metrics(cell.root)
    yield from repeated((at, name) for at, name, _ in named)
    for at, name, entry in named:
        if name.data not in metrics.names():
            where = (*at, "kind") if entry.is_mapping else at
            yield cell.root.problem(where, unknown(name.data, metrics.names(), "metric"))
        elif entry.is_mapping:
            options = getattr(metrics.get(name.data), "options", None)
            given, problems = checked(cell.root, at, entry, None if options is None else type(options))
            yield from problems
            if given is not None and options is not None:
                yield from _lacking_inputs(cell, at, replace(metrics.get(name.data), options=type(options)(**given)))
        else:
            yield from _lacking_inputs(cell, at, metrics.get(name.data))


def _lacking_inputs(cell: Draft, at: TreePath, metric: Any) -> Iterator[JobProblem]:
    """Refuse prompts without the picture that a metric compares their results with."""
    fields = getattr(metric, "inputs", ())
    lacking = [prompt for prompt in cell.prompts if not any(prompt.inputs.get(field) for field in fields)]
    if not fields or not lacking:
        return
    compared = f"{metric.name} compares results with the {fields[0]} of their prompt"
    if len(lacking) == len(cell.prompts):
        yield cell.root.problem(at, f"{compared}, and none has one. Give each prompt one, or leave {metric.name} out.")
        return
    for prompt in lacking:
        yield problem_of(cell.root, prompt, fields[0], f"missing: {compared}. Give it one, or leave {metric.name} out.")


def check_audit(cell: Draft) -> Iterator[JobProblem]:
    """Refuse an audit of no items, or of a part of an item."""
    asked = cell.root.get(AUDIT)
    number = _number(asked)
    if asked is None or number is None:
        return
    if isinstance(asked.data, str) and not 0 < number <= 1:
        yield cell.root.problem((AUDIT,), f"wanted more than 0% and at most 100%, got {got(asked)}.")
    elif not isinstance(asked.data, str) and (number < 1 or number % 1):
        yield cell.root.problem((AUDIT,), f"wanted a whole number of items, or such as 2%, got {got(asked)}.")


def _named_metrics(root: Value) -> list[tuple[TreePath, Value, Value]]:
    """Return each entry of `score` that has a name: its path, the name and the entry."""
    found = [(at, entry.get("kind") if entry.is_mapping else entry, entry) for at, entry in root.entries(SCORE)]
    return [(at, name, entry) for at, name, entry in found if name is not None and isinstance(name.data, str)]


def check_gates(cell: Draft) -> Iterator[JobProblem]:
    """Refuse gates of metrics that are not scored, without a limit, or against a metric's direction or bounds."""
    gates = cell.root.get("gates")
    metrics = cell.registries.metrics
    scored = [name.data for _, name, _ in _named_metrics(cell.root)]
    audited = (asked := cell.root.get(AUDIT)) is not None and asked.data is not None
    for name, rules in gates.data.items() if gates is not None and isinstance(gates.data, dict) else ():
        for path, message in _wrong_gate(name, rules, scored, metrics, audited):
            yield cell.root.problem(("gates", name, *path), message, key=True)


def _wrong_gate(
    name: str, rules: Value, scored: Sequence[str], metrics: RegistryLike, audited: bool
) -> Iterator[tuple[TreePath, str]]:
    wrong = _wrong_name(name, scored, metrics, audited)
    if wrong:
        yield (), wrong
        return
    if not isinstance(rules.data, dict):
        return
    given = [rule for rule in LIMITS if (value := rules.get(rule)) is not None and value.data is not None]
    if not given and not set(rules.data) - {*LIMITS, "max_missing"}:
        yield (), f"no limit. Write one of {', '.join(LIMITS)}, such as max: 0.06."
    if name == AUDIT and (relative := [rule for rule in given if rule in ("max_drop", "max_rise")]):
        yield (relative[0],), "an audit has no baseline, so this would stay open for ever. Write min, such as min: 95%."
        return
    yield from _impossible(name, rules, metrics)
    higher = _higher_is_better(name, metrics)
    if higher is not None and ("max_rise" if higher else "max_drop") in given:
        wrong_way, better, other = ("max_rise", "higher", "max_drop") if higher else ("max_drop", "lower", "max_rise")
        yield (wrong_way,), f"{name} is better when it is {better}: this limits getting better. Write {other}."


def _wrong_name(name: str, scored: Sequence[str], metrics: RegistryLike, audited: bool) -> str:
    """Return what is wrong with the name of a gate, or ""."""
    if name in COSTS or (name == AUDIT and audited):
        return ""
    if name == AUDIT:
        return "the job audits nothing. Set audit, such as audit: 2%."
    base, _, part = name.partition(".")
    if base == DRIFT:
        known = [each for each in metrics.names() if metrics.get(each).compares]
        return "" if part in known else unknown(part, known, "metric of drift")
    if base not in metrics.names():
        return unknown(name, [*metrics.names(), *COSTS, f"{DRIFT}.NAME"], "metric")
    if scored and base not in scored:
        return f"{base} is not scored, so this would stay open for ever. Add it to `score`.{did_you_mean(base, scored)}"
    return ""


def _impossible(name: str, rules: Value, metrics: RegistryLike) -> Iterator[tuple[TreePath, str]]:
    """Yield limits that no run can keep, and an allowance that every run does."""
    least, most, missing = (_number(rules.get(rule)) for rule in ("min", "max", "max_missing"))
    lowest, highest = _bounds(name, metrics)
    if least is not None and least > highest:
        yield ("min",), f"{name} is never more than {highest:g}, so this could not pass."
    elif least is not None and most is not None and least > most:
        yield ("min",), f"more than max ({got(rules.get('max'))}), so this could not pass."
    if most is not None and most < lowest:
        yield ("max",), f"{name} is never less than {lowest:g}, so this could not pass."
    if missing is not None and missing > 1 and rules.text(("max_missing",)):
        yield ("max_missing",), "more than all items. Write at most 100%."


def _number(value: Value | None) -> float | None:
    """Return a limit as a number, a percentage as its hundredth; None where there is none, or none that can be read."""
    data = None if value is None else value.data
    if isinstance(data, str) and re.fullmatch(PERCENT_PATTERN, data):
        return float(data.removesuffix("%")) / 100
    return float(data) if isinstance(data, int | float) and not isinstance(data, bool) else None


def _bounds(name: str, metrics: RegistryLike) -> tuple[float, float]:
    """Return the least and the most that a number can be, as far as that is known."""
    if name in COST_BOUNDS:
        return COST_BOUNDS[name]
    if name == AUDIT:
        return (0.0, 1.0)
    base, _, part = name.partition(".")
    if part and base != DRIFT:
        return ANY
    return getattr(metrics.get(part or base), "bounds", ANY)


def _higher_is_better(name: str, metrics: RegistryLike) -> bool | None:
    """Return the direction of a number; None for a part of a metric, which may have another than the whole."""
    if name in COSTS or name == AUDIT:
        return COSTS.get(name, True)
    base, _, part = name.partition(".")
    if base == DRIFT:
        return metrics.get(part).higher_is_better
    return None if part else metrics.get(base).higher_is_better
