"""Checks of what prompts have of their own: pictures and clips, strength, and fields of sampling; each told at its line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from genrun.adapters.checkpoint.pipeline_classes import call_parameters, default_of, missing_inputs
from genrun.adapters.input_files import InputFile
from genrun.adapters.pipeline.call_options import (
    FREE_SIZE,
    arguments_of,
    is_clip,
    not_taken,
    takes_several,
)
from genrun.runner.job.cell import Draft, sampling_of
from genrun.runner.job.errors import JobProblem
from genrun.runner.job.files import Inputs, problem_of
from genrun.runner.job.prompt_files import Prompt

FIELDS = ("guidance_scale", "height", "width", "num_frames", "strength")
"""Fields of a prompt that are arguments of the call by the same name, which a pipeline may lack."""

SAME_SIZE = ("image", "last_image", "mask", "video")
"""Inputs that lie over each other, or over the result."""

STRETCHED = 0.03
"""Share by which the shape of a picture may differ from the result's: what comes of rounding sides to a grid."""

Found = Iterator[tuple[str, str]]
"""Field of a prompt, and what is wrong with it."""


def check_inputs(cell: Draft) -> Iterator[JobProblem]:
    """Refuse inputs that the pipeline does not take or lacks, and sizes, frames and fields that it cannot do."""
    if cell.sampling is None or cell.checkpoint is None or not cell.prompts:
        return
    call = _Call.of(cell)
    if none := _no_steps(cell.sampling):
        yield cell.root.problem(("sampling", "options", "strength"), f"{none}.")
    yield from _check_control_mode(cell, cell.sampling)
    for prompt, files in zip(cell.prompts, cell.inputs, strict=True):
        # Of those that could not be looked at, that is told already.
        if any(len(files[field]) < len(names) for field, names in prompt.inputs.items()):
            continue
        for field, message in call.wrong(prompt, files, sampling_of(cell.sampling, prompt)):
            yield problem_of(cell.root, prompt, field, f"{message.rstrip('.')}.")


def needed_fields(pipeline: str | None, given: frozenset[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the fields of a prompt that a pipeline cannot do without, and what else it needs that no job can give.

    Args:
        pipeline: its class, or None where it is not known.
        given: arguments of its call that a job gives by name.
    """
    found = None if pipeline is None else call_parameters(pipeline)
    if pipeline is None or found is None:
        return (), ()
    field_of = {name: field for field, name in arguments_of(pipeline, [one.name for one in found]).items()}
    absent = missing_inputs(pipeline, given)
    return (
        tuple(field_of[name] for name in absent if name in field_of),
        tuple(name for name in absent if name not in field_of),
    )


def _check_control_mode(cell: Draft, sampling: Mapping[str, Any]) -> Iterator[JobProblem]:
    """Refuse a ControlNet of many kinds of control without the one that is meant, and a kind that it does not know."""
    known = cell.added.modes
    if not any(known):
        return
    options = sampling.get("options") or {}
    kinds = f"0 to {max(known) - 1}"
    if options.get("control_mode") is None:
        message = f"it knows several kinds of control: say which as sampling.options.control_mode, {kinds}."
        yield cell.root.problem(("model", "controlnet"), message)
        return
    given, of_each = options["control_mode"], "Union" in str(cell.pipeline) or len(known) > 1
    at = ("sampling", "options", "control_mode")
    values = given if isinstance(given, list) and of_each else [given]
    if not values or any(type(value) is not int or not 0 <= value < max(known) for value in values):
        lists = " or a list of them" if of_each else ""
        yield cell.root.problem(at, f"{given}: wanted a number from {kinds}{lists}.")
    elif isinstance(given, list) and 1 < len(known) != len(given):
        yield cell.root.problem(at, f"{len(given)} numbers: give one for each of the {len(known)} ControlNets.")


@dataclass(frozen=True)
class _Call:
    """The call of a cell's pipeline, as far as it is known before it is loaded.

    Attributes:
        adapter: with the rules of the pipeline.
        pipeline: its class, or None.
        parameters: names of its arguments, or None.
        needed: fields that every prompt has to have.
        of_job: what is wrong with the cell's own sampling, which is told there.
        has_ip_adapter: whether the job names one, or the denoiser holds one.
        controls: how many ControlNets or T2I-Adapters the job names; 0 where they are the checkpoint's own.
    """

    adapter: Any
    pipeline: str | None
    parameters: Sequence[str] | None
    needed: Sequence[str]
    of_job: Sequence[tuple[str, str]]
    has_ip_adapter: bool
    controls: int

    @classmethod
    def of(cls, cell: Draft) -> _Call:
        found = None if cell.pipeline is None else call_parameters(cell.pipeline)
        options = {} if cell.given_sampling is None else cell.given_sampling.options
        needed, _ = needed_fields(cell.pipeline, frozenset(options) | frozenset(cell.adapter.call))
        parameters = None if found is None else tuple(one.name for one in found)
        model = cell.model
        has_ip_adapter = bool(model and model.ip_adapter) or "ip" in str(cell.denoiser.get("encoder_hid_dim_type"))
        controls = len((model and (model.controlnet or model.t2i_adapter)) or ())
        of_job = cell.adapter.validate(cell.sampling)
        return cls(cell.adapter, cell.pipeline, parameters, needed, of_job, has_ip_adapter, controls)

    @cached_property
    def arguments(self) -> Mapping[str, str]:
        return {} if self.pipeline is None or self.parameters is None else arguments_of(self.pipeline, self.parameters)

    def wrong(self, prompt: Prompt, files: Inputs, sampling: Mapping[str, Any]) -> Found:
        """Yield what is wrong with a prompt."""
        yield from self._fields(prompt, sampling)
        if self.pipeline is None or self.parameters is None:
            return
        for field in self.needed:
            if field not in files:
                example = f'such as {{"prompt": ..., "{field}": "{"clip.mp4" if field == "video" else "start.png"}"}}'
                yield field, f"missing: {self.pipeline} cannot do without. Give each prompt one, {example}"
        taken = {field: each for field, each in files.items() if field in self.arguments}
        for field in files:
            if field not in taken:
                yield field, not_taken(field, self.pipeline, self.parameters)
        for field, each in taken.items():
            yield from self._kinds(field, each, self.arguments[field])
        yield from self._additions(taken)
        yield from self._sizes({field: each[0] for field, each in taken.items()}, sampling)

    def _fields(self, prompt: Prompt, sampling: Mapping[str, Any]) -> Found:
        """Refuse fields of the prompt's own that the model cannot do."""
        row = prompt.row
        told = {name for name, _ in self.of_job}
        for name, message in self.adapter.validate({**sampling, "negative_prompt": None}) if row else ():
            if name in row or name not in told:
                yield name, message
        for name in FIELDS:
            if self.parameters is not None and name in row and name not in self.parameters:
                yield name, f"{self.pipeline} takes no {name}: leave it out"
        if row and (none := _no_steps(sampling)):
            yield "strength", none

    def _additions(self, files: Inputs) -> Found:
        """Refuse pictures for an IP-Adapter or controls that the job does not name, and the other way round."""
        has_picture = "ip_adapter_image" in files
        if has_picture and not self.has_ip_adapter:
            message = f"{self.pipeline} has no IP-Adapter here. Name one as model.ip_adapter, or leave it out"
            yield "ip_adapter_image", message
        if self.has_ip_adapter and not has_picture and "ip_adapter_image" in self.arguments:
            yield "ip_adapter_image", "missing: the IP-Adapter of the job looks at one. Give each prompt one"
        given = len(files.get("control_image", ()))
        if given and self.controls and given != self.controls and "Union" not in str(self.pipeline):
            yield (
                "control_image",
                f"{given} of {self.controls}: give one file for each control of the job, in its order",
            )

    def _kinds(self, field: str, files: Sequence[InputFile], argument: str) -> Found:
        """Refuse clips for pictures, pictures for clips, and several for one."""
        wants_clip = is_clip(str(self.pipeline), argument)
        for file in files:
            if wants_clip and file.frames == 1:
                yield field, f"is a picture, and {self.pipeline} takes a clip there"
            elif not wants_clip and file.frames > 1:
                yield field, f"is a clip of {file.frames} frames, and {self.pipeline} takes a picture there"
        if len(files) > 1 and (wants_clip or not takes_several(str(self.pipeline), argument)):
            yield field, f"{len(files)} files, and {self.pipeline} takes one for each item"

    def _sizes(self, files: Mapping[str, InputFile], sampling: Mapping[str, Any]) -> Found:
        """Refuse pictures that would be stretched or cut, or do not lie over each other."""
        if "control_image" in files:
            yield from self._control(files["control_image"], sampling)
        first = next((field for field in ("image", "video") if field in files), None)
        if first is None:
            return
        for field in (name for name in SAME_SIZE if name in files and name != first):
            if (files[field].width, files[field].height) != (files[first].width, files[first].height):
                size = files[first].size
                yield field, f"is {files[field].size} pixels, and the {first} {size}. Make it {size}"
        if first == "video":
            yield from self._clip(files[first], sampling)
        if FREE_SIZE.search(str(self.pipeline)) and "mask" not in files:
            return
        yield from self._shape(first, files[first], sampling)

    def _clip(self, clip: InputFile, sampling: Mapping[str, Any]) -> Found:
        """Refuse numbers of frames that the model would round."""
        wanted = sampling.get("num_frames") if "num_frames" in (self.parameters or ()) else None
        if any(name == "num_frames" for name, _ in self.adapter.validate({"num_frames": clip.frames})):
            near = self.adapter.nearest_frames(clip.frames)
            forms = self.adapter.frame_forms
            yield (
                "video",
                f"has {clip.frames} frames, and {self.adapter.label} needs {forms} frames; the nearest is {near}",
            )
        elif wanted is not None and clip.frames > wanted:
            yield "video", f"has {clip.frames} frames, and num_frames is {wanted}. Write num_frames: {clip.frames}"

    def _control(self, file: InputFile, sampling: Mapping[str, Any]) -> Found:
        """Refuse a control that would be stretched over the result; without a size its own is the result's."""
        height, width = sampling.get("height"), sampling.get("width")
        if type(height) is int and type(width) is int and _differ(file, height, width):
            yield "control_image", f"is {file.size} pixels, and would be stretched to {width}x{height}. Crop it"

    def _shape(self, field: str, file: InputFile, sampling: Mapping[str, Any]) -> Found:
        """Refuse a picture that the result's size would stretch or cut."""
        step = self.adapter.multiples
        near_height, near_width = (max(round(side / step), 1) * step for side in (file.height, file.width))
        remedy = f"height: {near_height}, width: {near_width}"
        if "height" not in (self.parameters or ()):
            # Its own size is the result's.
            if file.width % step or file.height % step:
                nearest = f"{near_width}x{near_height}"
                yield (
                    field,
                    f"is {file.size} pixels, and {self.pipeline} needs multiples of {step}: make it {nearest}",
                )
            return
        height, width = (sampling.get(side) or default_of(str(self.pipeline), side) for side in ("height", "width"))
        if type(height) is not int or type(width) is not int:
            # The pipeline has a size of its own, which only its models know.
            yield field, f"is {file.size} pixels, and the result's size is not given. Write {remedy}"
        elif _differ(file, height, width):
            yield (
                field,
                f"is {file.size} pixels, and would be stretched to {width}x{height}. Crop it, or write {remedy}",
            )


def _differ(file: InputFile, height: int, width: int) -> bool:
    """Tell whether a picture has another shape than a result."""
    return abs(file.width * height / (file.height * width) - 1) > STRETCHED


def _no_steps(sampling: Mapping[str, Any]) -> str:
    """Say that a strength leaves no step of the schedule, or ""."""
    strength, steps = (sampling.get("options") or {}).get("strength"), sampling.get("steps")
    if not (isinstance(strength, int | float) and isinstance(steps, int) and 0 < strength <= 1):
        return ""
    if int(steps * strength) >= 1:
        return ""
    return f"{strength:g} of {steps} steps is none. Write at least {1 / steps:.2g}, or more steps"
