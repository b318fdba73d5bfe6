"""Additions of a job to a checkpoint: LoRAs, ControlNets, adapters of pictures, other components, another task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SWAPPED = "loras"
"""The key of a model that can change while the rest of it stays loaded."""

KEYS = (SWAPPED, "controlnet", "t2i_adapter", "ip_adapter", "components", "task", "config")
"""Keys of a job's section `model` that add to a checkpoint."""

CONTENTS = "contents"
"""Key of an item's model: folder, file or hub id that is added -> what identifies its content."""


@dataclass(frozen=True)
class Lora:
    """A LoRA.

    Attributes:
        path: a file, an absolute folder, or a hub id.
        weight: its scale, 1 as it was trained.
        weight_name: of the file in the folder or hub id; None for its usual or only one.
        partial: whether diffusers may leave some of its tensors out. It is no part of what identifies an item: with the
            same content, it changes no picture, but only whether there is one.
        component: the denoiser it is put on; None for the pipeline's first, and what else it has layers for.
    """

    path: str
    weight: float = 1.0
    weight_name: str | None = None
    partial: bool = False
    component: str | None = None


@dataclass(frozen=True)
class IpAdapter:
    """An IP-Adapter.

    Attributes:
        path: an absolute folder, or a hub id.
        weight_name: of the file in it.
        subfolder: of the file, "" for the folder itself.
        scale: how much the picture counts.
        image_encoder: folder of the encoder of pictures, relative to the subfolder; None where the pipeline has one.
    """

    path: str
    weight_name: str
    subfolder: str = ""
    scale: float = 1.0
    image_encoder: str | None = None


@dataclass(frozen=True)
class Additions:
    """Additions to a checkpoint.

    Attributes:
        loras: in the order in which they are added up.
        controlnet: folders or hub ids of ControlNets.
        t2i_adapter: folders or hub ids of T2I-Adapters.
        ip_adapter: an IP-Adapter, or None.
        components: component -> folder, file (.safetensors, .gguf) or hub id in place of the checkpoint's; None to go
            without.
        task: that the pipeline's class is chosen for; None for that of the checkpoint.
        config: folder with the configurations of a checkpoint in one file.
        file: that checkpoint.
    """

    loras: tuple[Lora, ...] = ()
    controlnet: tuple[str, ...] = ()
    t2i_adapter: tuple[str, ...] = ()
    ip_adapter: IpAdapter | None = None
    components: Mapping[str, str | None] = field(default_factory=dict)
    task: str | None = None
    config: str | None = None
    file: str | None = None

    @classmethod
    def of(cls, model: Mapping[str, Any]) -> Additions:
        """Read an item's model."""
        ip_adapter = model.get("ip_adapter")
        return cls(
            loras=tuple(
                Lora(**{"weight": 1.0, **{key: value for key, value in each.items() if key != "name"}})
                for each in model.get(SWAPPED) or ()
            ),
            controlnet=tuple(model.get("controlnet") or ()),
            t2i_adapter=tuple(model.get("t2i_adapter") or ()),
            ip_adapter=IpAdapter(**ip_adapter) if ip_adapter else None,
            components=dict(model.get("components") or {}),
            task=model.get("task"),
            config=model.get("config"),
            file=str(model["checkpoint"]) if model.get("config") else None,
        )

    @property
    def control(self) -> str | None:
        """Addition that decides the pipeline's class besides its task: controlnet, t2i_adapter, or None."""
        return "controlnet" if self.controlnet else "t2i_adapter" if self.t2i_adapter else None


def identity_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an item's model adds to its checkpoint, by content: no path is in it, and no name but in a folder."""
    added, contents = Additions.of(model), model.get(CONTENTS) or {}
    pictures = added.ip_adapter
    found: dict[str, Any] = {
        # A hub id has a file by name only where it holds several; of a folder here, the file itself is the content.
        SWAPPED: [
            [contents[each.path], float(each.weight), *filter(None, (each.weight_name, each.component))]
            for each in added.loras
        ],
        "controlnet": [contents[path] for path in added.controlnet],
        "t2i_adapter": [contents[path] for path in added.t2i_adapter],
        # A folder of IP-Adapters holds several, and the encoders of several.
        "ip_adapter": pictures
        and [
            contents[pictures.path],
            float(pictures.scale),
            pictures.weight_name,
            pictures.subfolder,
            pictures.image_encoder,
        ],
        "components": {name: path and contents[path] for name, path in added.components.items()},
        "task": added.task,
        "config": added.config and contents[added.config],
    }
    return {key: value for key, value in found.items() if value}


def base_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return an item's model without its LoRAs: what stays loaded while these change."""
    base = {key: value for key, value in model.items() if key not in (SWAPPED, CONTENTS)}
    contents = dict(model.get(CONTENTS) or {})
    for each in model.get(SWAPPED) or ():
        contents.pop(each["path"], None)
    return {**base, CONTENTS: contents} if contents else base
