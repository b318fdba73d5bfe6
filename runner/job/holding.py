"""What can be known to be wrong with how a model's weights are to be held, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator

from genrun.adapters.checkpoint.index import components_of, index_of
from genrun.adapters.pipeline.quantization import missing
from genrun.registry import did_you_mean
from genrun.runner.job.checkpoint import Checkpoint
from genrun.runner.job.problems import Problem
from genrun.runner.job.schema import ModelSpec
from genrun.runner.job.tree import Path, Value, dotted
from genrun.runner.job.wording import place


def check(root: Value, spec: ModelSpec, checkpoint: Checkpoint) -> list[Problem]:
    """Check offloading, quantisation, and the components that they and `dtype` name."""
    found = [*_offload(spec), *_quantization(spec), *_components(spec, checkpoint)]
    return [Problem(place(root, at, key=at[-1:] != ("offload",)), dotted(at), message) for at, message in found]


def _offload(spec: ModelSpec) -> Iterator[tuple[Path, str]]:
    if spec.device == "cpu" and spec.offload not in (None, "none"):
        yield ("model", "offload"), "there is nothing to offload from on device: cpu. Leave one of the two out."


def _quantization(spec: ModelSpec) -> Iterator[tuple[Path, str]]:
    if spec.quantization is not None:
        install = missing(spec.quantization.backend)
        if install:
            yield ("model", "quantization", "backend"), f"{spec.quantization.backend} is not installed: {install}"


def _components(spec: ModelSpec, checkpoint: Checkpoint) -> Iterator[tuple[Path, str]]:
    """Components that a folder's pipeline does not have; what a hub id has is known when it is loaded."""
    known = list(components_of(index_of(checkpoint.folder))) if checkpoint.folder else []
    if not known:
        return
    named: list[tuple[Path, str]] = []
    if isinstance(spec.dtype, dict):
        named += [(("model", "dtype", name), name) for name in spec.dtype if name != "default"]
    for index, name in enumerate(spec.quantization.components if spec.quantization else ()):
        named.append((("model", "quantization", "components", index), name))
    for at, name in named:
        if name not in known:
            there = did_you_mean(name, known) or f" It has {', '.join(known)}."
            yield at, f"the checkpoint has no component {name!r}.{there}"
