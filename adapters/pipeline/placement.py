"""Put a loaded pipeline where it runs: offloading, the VAE's tiles, compilation, all by diffusers' own methods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from genrun.adapters.checkpoint.strict import LoadError
from genrun.adapters.pipeline.denoisers import COMPONENTS
from genrun.adapters.pipeline.load_options import Compile, LoadOptions, Offload


def place(pipe: Any, device: str, offload: Offload) -> None:
    """Put a pipeline on a device, whole or by parts as they are needed.

    On the CPU there is nowhere to offload to, and nothing is done: the bits are the same in every mode.
    """
    if device == "cpu" or offload == "none":
        pipe.to(device)
    elif offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=device)
    else:
        whole = [name for name, part in _models(pipe) if not getattr(part, "_supports_group_offloading", True)]
        pipe.enable_group_offload(torch.device(device), **_groups(device), exclude_modules=whole)


def place_encoders(pipe: Any, names: Sequence[str], device: str, offload: Offload) -> None:
    """Put a pipeline's text encoders alone on a device: its other models have no weights to move."""
    from accelerate import cpu_offload, cpu_offload_with_hook
    from diffusers.hooks.group_offloading import apply_group_offloading

    hook = None
    for encoder in (getattr(pipe, name) for name in names):
        if device == "cpu" or offload == "none":
            encoder.to(device)
        elif offload == "model":
            _, hook = cpu_offload_with_hook(encoder, device, prev_module_hook=hook)
        elif offload == "sequential":
            cpu_offload(encoder, torch.device(device))
        else:
            apply_group_offloading(encoder, torch.device(device), torch.device("cpu"), **_groups(device))


def set_up_vae(pipe: Any, load_options: LoadOptions) -> None:
    """Switch on the VAE's tiles and slices. Raises LoadError where it has none."""
    for name, wanted in (("tiling", load_options.tiling), ("slicing", load_options.slicing)):
        if wanted and not _can(pipe, name):
            what = type(getattr(pipe, "vae", None)).__name__ if getattr(pipe, "vae", None) else type(pipe).__name__
            raise LoadError(f"model.vae.{name}: {what} cannot do it", "Leave it out.")
        if wanted:
            getattr(pipe.vae, f"enable_{name}")()


def can_save_memory(pipe: Any) -> list[str]:
    """List what the VAE could still do to decode in less memory: "tiling", "slicing"."""
    return [name for name in ("tiling", "slicing") if _can(pipe, name) and not getattr(pipe.vae, f"use_{name}", False)]


@contextmanager
def saving_memory(pipe: Any, names: Sequence[str]) -> Iterator[None]:
    """Switch the VAE's tiling or slicing on, inside a with block."""
    try:
        for name in names:
            getattr(pipe.vae, f"enable_{name}")()
        yield
    finally:
        for name in names:
            getattr(pipe.vae, f"disable_{name}")()


def compile_denoisers(pipe: Any, how: Compile) -> None:
    """Have torch.compile make the denoiser's kernels at its first call: all of it, or the blocks that it repeats.

    Raises:
        LoadError: diffusers names no repeated blocks of this model.
    """
    for name, model in _models(pipe):
        model: Any
        if name not in COMPONENTS or not how:
            continue
        if how == "regional":
            model._repeated_blocks = _blocks(model)
            model.compile_repeated_blocks()
        else:
            model.compile()


def _blocks(model: Any) -> list[str]:
    """List the classes of repeated blocks: where diffusers does not name them, those it keeps on one device."""
    names = getattr(model, "_repeated_blocks", None) or getattr(model, "_no_split_modules", None)
    if not names:
        kind = type(model).__name__
        raise LoadError(f"model.compile: diffusers names no repeated blocks of {kind}", "Use `compile: true`.")
    return list(names)


def _can(pipe: Any, name: str) -> bool:
    return callable(getattr(getattr(pipe, "vae", None), f"enable_{name}", None))


def _models(pipe: Any) -> list[tuple[str, nn.Module]]:
    return [(name, part) for name, part in pipe.components.items() if isinstance(part, nn.Module)]


def _groups(device: str) -> dict[str, Any]:
    """Offload one block at a time, the next one fetched meanwhile where the device can."""
    return {"offload_type": "block_level", "num_blocks_per_group": 1, "use_stream": device.startswith("cuda")}
