"""Additions of a cell's job to its checkpoint: found on this machine, checked by headers, and named for its items."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from genrun.adapters.checkpoint import pipeline_classes as pipelines
from genrun.adapters.checkpoint.diffusers_source import UNION, control_of, pipeline_for
from genrun.adapters.checkpoint.index import CheckpointError, components_of, listed, read_mapping
from genrun.adapters.checkpoint.lora import Shape, check_fit, file_of, on_component, tensors_of
from genrun.adapters.checkpoint.parts import (
    check_controlnet,
    check_ip_adapter,
    check_part,
    check_t2i_adapter,
    modes_of,
    shapes_in,
)
from genrun.adapters.pipeline.denoisers import COMPONENTS
from genrun.registry import did_you_mean
from genrun.runner.job.checkpoint import Checkpoint, locate_part
from genrun.runner.job.errors import JobProblem
from genrun.runner.job.schema import ModelSpec
from genrun.runner.job.tree import Path as TreePath
from genrun.runner.job.tree import Value

AT = "model"


@dataclass(frozen=True)
class FoundAdditions:
    """Additions to a cell's checkpoint that were found.

    Attributes:
        model: the keys of its items' model, files by their absolute paths.
        sources: where its contents are, by the names in `model`.
        pipeline: class of the pipeline, where it is another one than the checkpoint says.
        modes: of each ControlNet, how many kinds of control it knows; 0 where it is of one, or not on this machine.
    """

    model: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, Checkpoint] = field(default_factory=dict)
    pipeline: str | None = None
    modes: tuple[int, ...] = ()


def find_additions(
    root: Value, spec: ModelSpec, checkpoint: Checkpoint, read: Headers, pipeline: str | None = None
) -> tuple[FoundAdditions, list[JobProblem]]:
    """Find and check all that a section `model` adds to its checkpoint.

    Args:
        root: the job.
        spec: its section `model`.
        checkpoint: what it names.
        read: headers of checkpoints.
        pipeline: class of the checkpoint's pipeline where its files are not here to say it: its adapter's.
    """
    search = _Search(root, spec, checkpoint, read, pipeline)
    for part in (search.components, search.task, search.controls, search.ip_adapter, search.loras):
        part()
    chosen = None if search.pipeline == search.own else search.pipeline
    return FoundAdditions(search.model, search.sources, chosen, tuple(search.modes)), search.problems


class Headers:
    """Headers of checkpoints, each read once for all cells of a job."""

    def __init__(self) -> None:
        self.shapes: Callable[[Path, str | None], Mapping[str, Shape]] = cache(
            lambda folder, variant: shapes_in(folder, "diffusers", variant)
        )
        self.tensors = cache(tensors_of)


class _Search:
    """Search for what a section `model` adds, in one pass.

    Attributes:
        model, sources: as those of `FoundAdditions`, as far as they are found.
        problems: what is wrong.
        own: class of the checkpoint's pipeline; None where it is not known.
        pipeline: class of the one that is chosen.
        modes: as that of `FoundAdditions`.
    """

    def __init__(
        self, root: Value, spec: ModelSpec, checkpoint: Checkpoint, read: Headers, pipeline: str | None
    ) -> None:
        self.root, self.spec, self.checkpoint, self.read = root, spec, checkpoint, read
        self.model: dict[str, Any] = {}
        self.sources: dict[str, Checkpoint] = {}
        self.problems: list[JobProblem] = []
        self.modes: list[int] = []
        index = checkpoint.index(spec.revision)
        self.index = index
        name = pipeline if index is None else index.get("_class_name")
        self.pipeline = self.own = name if isinstance(name, str) else None
        if checkpoint.config is not None:
            self.model["config"] = str(checkpoint.config)
            self.sources[str(checkpoint.config)] = Checkpoint(str(checkpoint.config), None, None, checkpoint.config)

    def components(self) -> None:
        """Find the components in place of the checkpoint's."""
        for name, text in (self.spec.components or {}).items():
            at: TreePath = (AT, "components", name)
            known = () if self.pipeline is None else pipelines.component_names(self.pipeline)
            if known and name not in known:
                there = did_you_mean(name, known) or f" It has {', '.join(known)}."
                self._wrong(at, f"{self.pipeline} has no component {name!r}.{there}", key=True)
            elif text is None and self.pipeline and (why := self._needs(name)) is not None:
                self._wrong(at, f"{self.pipeline} cannot go without {name}{why}. Leave it out.", key=True)
            else:
                found = None if text is None else self._locate(at, text)
                if text is None or found is not None:
                    self.model.setdefault("components", {})[name] = found and found.name
                if found is not None:
                    check = partial(check_part, variant=self.spec.variant, pipeline=self.pipeline, component=name)
                    self._check(at, check, found, text)
        if self.spec.components and self.index is not None:
            # What the files of the checkpoint say of a component that it lacks is told with the checkpoint.
            self.index = {**self.index, **{name: ["", ""] for name, text in self.spec.components.items() if text}}

    def _needs(self, name: str) -> str | None:
        """Say when the pipeline cannot go without a component, "" for never; None where it can."""
        pipeline, given = self.pipeline or "", self.spec.components or {}
        held = pipelines.component_names(pipeline) if self.index is None else components_of(self.index)
        there = [each for each in (*held, *given) if given.get(each, "") is not None]
        if pipelines.can_lack(pipeline, name, there):
            return None
        return f" beside {name.replace('tokenizer', 'text_encoder')}" if pipelines.can_lack(pipeline, name) else ""

    def task(self) -> None:
        """Choose the class of the pipeline by task and control."""
        spec = self.spec
        if spec.controlnet and spec.t2i_adapter:
            self._wrong(
                (AT, "t2i_adapter"), "no pipeline takes it and a ControlNet. Leave one of the two out.", key=True
            )
            return
        key = "controlnet" if spec.controlnet else "t2i_adapter" if spec.t2i_adapter else None
        control = control_of(key, self._control_config(0).get("_class_name"))
        if spec.task is not None:
            self.model["task"] = spec.task
        if self.pipeline is None or (control is None and spec.task is None):
            return
        chosen = pipeline_for(self.pipeline, spec.task, control)
        at = (AT, key or "task")
        if chosen is None:
            named = (f"`{name}: {value}`" if name == "task" else f"`{name}`" for name, value in self._asked(key))
            what = f"a {UNION}" if control == "controlnet_union" else listed(named)
            version = pipelines.version()
            self._wrong(at, f"diffusers {version} has no pipeline for {what} beside {self.pipeline}.", key=True)
            return
        given = {"controlnet": "controlnet", "t2i_adapter": "adapter"}.get(key or "")
        held = pipelines.component_names(self.pipeline) if self.index is None else components_of(self.index)
        there = {*held, given}
        lacking = pipelines.missing_components(chosen, there)
        if lacking:
            names = listed(f"`{name}`" for name in lacking)
            message = f"{chosen} needs {names}, which the checkpoint lacks. Name another checkpoint."
            self._wrong(at, message, key=True)
        if control is None and chosen == self.pipeline:
            # What the checkpoint does anyway: no other picture, and so no other id.
            del self.model["task"]
        self.pipeline = chosen

    def _asked(self, control: str | None) -> Iterator[tuple[str, str]]:
        if control is not None:
            yield control, ""
        if self.spec.task is not None:
            yield "task", self.spec.task

    def controls(self) -> None:
        """Find ControlNets or T2I-Adapters."""
        pipeline = self.pipeline or ""
        checks = {
            "controlnet": partial(
                check_controlnet, pipeline=pipeline, base=self._denoiser(), variant=self.spec.variant
            ),
            "t2i_adapter": partial(check_t2i_adapter, pipeline=pipeline, denoiser=self._denoiser_config()),
        }
        for key, texts in (("controlnet", self.spec.controlnet), ("t2i_adapter", self.spec.t2i_adapter)):
            for number, text in enumerate(texts or ()):
                at: TreePath = (AT, key, number) if self.root.find((AT, key, number)) else (AT, key)
                found = self._locate(at, text)
                if found is not None:
                    self.model.setdefault(key, []).append(found.name)
                    self._check(at, checks[key], found, text)
                if key == "controlnet":
                    self.modes.append(modes_of(self._control_config(number)))

    def _control_config(self, number: int) -> Mapping[str, Any]:
        """Read the configuration of a ControlNet of the job; {} where it cannot be read, or is not on this machine."""
        texts, at = self.spec.controlnet or (), (AT, "controlnet")
        try:
            found = locate_part(texts[number], self.root.place(at).folder)
            folder = found.local_folder(None)
            return {} if folder is None else read_mapping(folder / "config.json", "config.json")
        except (OSError, ValueError, IndexError):
            return {}

    def ip_adapter(self) -> None:
        """Find the IP-Adapter, and the encoder of pictures that it needs."""
        spec, at = self.spec.ip_adapter, (AT, "ip_adapter")
        if spec is None:
            return
        if self.pipeline and not pipelines.takes_ip_adapters(self.pipeline):
            self._wrong(at, f"{self.pipeline} takes no IP-Adapters. Leave it out.", key=True)
            return
        found = self._locate((*at, "path"), spec.path)
        if found is None:
            return
        self.model["ip_adapter"] = {**spec.model_dump(mode="json", exclude_none=True), "path": found.name}

        def check(path: Path, shown: str) -> None:
            if not path.is_dir():
                raise CheckpointError(f"{shown} is no folder", "Name the folder, and the file in it by weight_name")
            folder = path / (spec.subfolder or "")
            check_ip_adapter(folder / spec.weight_name, f"{spec.weight_name!r} in {shown}", self._denoiser("unet"))
            encoder = folder / (spec.image_encoder or "image_encoder")
            if spec.image_encoder is not None or "image_encoder" not in components_of(self.index or {}):
                check_part(encoder, f"{encoder.name!r} in {shown}")

        self._check((*at, "path"), check, found, spec.path)

    def loras(self) -> None:
        """Find LoRAs, and check that they fit the denoisers."""
        specs, at = self.spec.loras or (), (AT, "loras")
        if not specs:
            return
        if self.pipeline and not pipelines.takes_loras(self.pipeline):
            self._wrong(at, f"{self.pipeline} takes no LoRAs. Leave them out.", key=True)
            return
        if find_spec("peft") is None:
            self._wrong(at, "they need the package peft. Install it: pip install 'genrun[loras]'", key=True)
            return
        names: dict[str, int] = {}
        for number, spec in enumerate(specs):
            here: TreePath = (*at, number)
            if spec.component and self.index is not None and spec.component not in components_of(self.index):
                self._wrong((*here, "component"), f"the checkpoint has no {spec.component}. Leave `component` out.")
                continue
            name = spec.name or Path(spec.path).stem or spec.path
            if names.setdefault(name, number) != number:
                first = self.root.place((*at, names[name]))
                self._wrong(here, f"{name!r} is given twice, first at {first}. Remove one, or give it a `name`.")
                continue
            found = self._locate((*here, "path"), spec.path)
            if found is None:
                continue
            where = found.local_folder(None) if found.file is None else found.file
            path = found.name
            if where is not None:
                try:
                    file = file_of(where, repr(spec.path), spec.weight_name)
                    shapes = {key: each.shape for key, each in self.read.tensors(file, repr(spec.path)).items()}
                    check_fit(shapes, on_component(self._models(), spec.component), repr(spec.path))
                    # Of a folder its file alone counts.
                    found = found if found.is_hub_id else Checkpoint(str(file), None, file)
                    path = found.name
                except (OSError, CheckpointError) as error:
                    self._wrong((*here, "path"), f"{str(error).rstrip('. ')}.")
                    continue
            self.sources[path] = found
            entry = {"path": path, "weight": spec.weight, "name": name}
            if found.is_hub_id and spec.weight_name:
                entry["weight_name"] = spec.weight_name
            if spec.component:
                entry["component"] = spec.component
            if spec.partial:
                entry["partial"] = True
            self.model.setdefault("loras", []).append(entry)

    def _models(self) -> dict[str, Mapping[str, Shape]]:
        found = {name: self._denoiser(name) for name in COMPONENTS}
        return {name: shapes for name, shapes in found.items() if shapes}

    def _denoiser(self, name: str | None = None) -> Mapping[str, Shape]:
        """Return the shapes in a denoiser, the first by default: the job's own, or the checkpoint's; {} where unknown."""
        names = [name] if name else COMPONENTS
        for each in names:
            given = (self.spec.components or {}).get(each)
            folder = None
            if given:
                source = self.sources.get(str((self.model.get("components") or {}).get(each)))
                if source is not None and source.file is not None and source.file.suffix == ".safetensors":
                    # A file of another tool has names of its own.
                    return {}
                folder = None if source is None else source.local_folder(None)
            elif each in components_of(self.index or {}) and self.checkpoint.file is None:
                local = self.checkpoint.local_folder(self.spec.revision)
                folder = None if local is None else local / each
            if folder is not None:
                try:
                    return self.read.shapes(folder, self.spec.variant if not given else None)
                except (OSError, CheckpointError):
                    return {}
        return {}

    def _denoiser_config(self) -> Mapping[str, Any]:
        folder = self.checkpoint.local_folder(self.spec.revision)
        try:
            return {} if folder is None else read_mapping(folder / "unet" / "config.json", "unet/config.json")
        except (OSError, CheckpointError):
            return {}

    def _locate(self, at: TreePath, text: str) -> Checkpoint | None:
        try:
            found = locate_part(text, self.root.place(at).folder)
        except ValueError as error:
            self._wrong(at, str(error))
            return None
        # Of a LoRA the file counts, which may be one of several in a folder.
        if at[1] != "loras":
            self.sources[found.name] = found
        return found

    def _check(self, at: TreePath, check: Callable[[Path, str], None], found: Checkpoint, text: str | None) -> None:
        """Check what is on this machine; of a hub id that is not, the load does."""
        path = found.file or found.local_folder(None)
        if path is None:
            return
        try:
            check(path, repr(text))
        except (OSError, CheckpointError) as error:
            self._wrong(at, f"{str(error).rstrip('. ')}.")

    def _wrong(self, at: TreePath, message: str, *, key: bool = False) -> None:
        self.problems.append(self.root.problem(at, message, key=key))


def is_set(spec: ModelSpec) -> bool:
    """Tell whether a section `model` adds anything."""
    given = (spec.config, spec.components, spec.task, spec.loras, spec.controlnet, spec.t2i_adapter, spec.ip_adapter)
    return any(given)
