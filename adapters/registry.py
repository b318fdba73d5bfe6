"""Model adapters by name: one module each in `adapters/models/`, others by the entry point `genrun.adapters`."""

from __future__ import annotations

import difflib
from importlib import import_module
from importlib.metadata import entry_points

from genrun.adapters.adapter import Adapter

MODULES = {
    "demo-video": "demo_video",
    "demo-image": "demo_image",
    "hunyuanvideo": "hunyuanvideo",
    "wan2.1": "wan21",
    "cogvideox1.5": "cogvideox15",
    "sd3.5": "sd35",
    "flux": "flux",
    "sd2": "sd2",
    "ddpm-church": "ddpm_church",
    "auto": "auto",
}


class UnknownModelError(LookupError):
    """No adapter of that name; the message names the nearest."""


def names() -> tuple[str, ...]:
    """All adapters, ours first."""
    return (*MODULES, *(point.name for point in entry_points(group="genrun.adapters")))


def get(name: str) -> Adapter:
    """The adapter of a name. Raises UnknownModelError."""
    if name in MODULES:
        return import_module(f"genrun.adapters.models.{MODULES[name]}").ADAPTER
    for point in entry_points(group="genrun.adapters"):
        if point.name == name:
            return point.load()
    near = difflib.get_close_matches(name, names(), n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UnknownModelError(
        f"unknown model {name!r}.{hint} Known: {', '.join(names())}; or give a diffusers folder or a hub id (owner/name)."
    )
