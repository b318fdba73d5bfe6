"""Environment: the machine and versions that a run was made with, from the records of its items and from its folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from genrun.adapters.pipeline.additions import CONTENTS, SWAPPED
from genrun.runner import numbers
from genrun.runner.report.sections.speed import summed_and_elapsed, totals
from genrun.runner.store.records import Record

GIB = 2**30
VERSIONS = "versions."


def collect_environment(
    environment: Mapping[str, Any], records: Iterable[Record], models: Iterable[Mapping[str, Any]] = ()
) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    """Return (heading, pairs) of what made a run: its items first, then versions, then the machine.

    Args:
        environment: of the run folder, as it was when the run was made.
        records: of its items.
        models: of its items, each of which says what is added to its checkpoint.
    """
    found = [(name, value) for name, value in flatten(environment) if value]
    versions = [(name.removeprefix(VERSIONS), value) for name, value in found if name.startswith(VERSIONS)]
    machine = [(name, value) for name, value in found if not name.startswith(VERSIONS)]
    done = [record for record in records if record.status == "done"]
    sections = (
        ("Items", list(_of_items(done, dict(versions)))),
        ("Added to the model", list(_additions(models))),
        ("Versions", versions),
        ("Machine the run was started on", machine),
    )
    return tuple((heading, tuple(pairs)) for heading, pairs in sections if pairs)


def flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Return nested mappings as ("a.b", "text") pairs; lists are joined with commas, nothing is ""."""
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if isinstance(inner, Mapping):
            yield from flatten(inner, f"{name}.")
        elif isinstance(inner, list):
            yield name, ", ".join(str(entry) for entry in inner)
        else:
            yield name, "" if inner is None else str(inner)


def _of_items(done: Sequence[Record], versions: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, values in (
        ("devices", [record.device for record in done]),
        ("hosts", [record.host for record in done]),
        ("ranks an item", [_mesh(record) for record in done]),
        ("saved memory by", [", ".join(record.saving) for record in done]),
    ):
        if counted := _counted(values):
            yield name, counted
    if total := sum(record.elapsed_s for record in done):
        yield "time", f"{totals(*summed_and_elapsed(done))}; {numbers.number(total / len(done))} s an item"
    peaks = [max(record.memory_bytes) for record in done if record.memory_bytes]
    if peaks:
        yield "largest memory of a rank", f"{max(peaks) / GIB:.2f} GiB"
    times = sorted(record.finished_at for record in done if record.finished_at)
    if times:
        yield "finished", times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}"
    again = sum(record.attempt > 1 for record in done)
    if again:
        yield "tried more than once", str(again)
    yield from _other_versions(done, versions)


def _other_versions(done: Sequence[Record], versions: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """List versions that items were made with, but that the run was not started with."""
    others = Counter(
        f"{package} {version}"
        for record in done
        for package, version in record.versions.items()
        if package in versions and version != versions[package]
    )
    if others:
        yield "other versions", ", ".join(f"{name} ({count})" for name, count in others.most_common())


def _additions(models: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """List what is added to checkpoints, each once, with its weight and what identifies its content."""
    found: dict[tuple[str, str], None] = {}
    for model in models:
        contents = model.get(CONTENTS) or {}
        for lora in model.get(SWAPPED) or ():
            name = f"LoRA {lora['name']}"
            on = f"on {lora['component']}, " if lora.get("component") else ""
            found[name, f"{lora['path']}, {on}weight {lora['weight']:g}, {contents.get(lora['path'], '')}"] = None
        for key in ("controlnet", "t2i_adapter"):
            found.update(dict.fromkeys((key, f"{path}, {contents.get(path, '')}") for path in model.get(key) or ()))
        if ip_adapter := model.get("ip_adapter"):
            path = ip_adapter["path"]
            said = f"{path}, {ip_adapter['weight_name']}, scale {ip_adapter['scale']:g}, {contents.get(path, '')}"
            found["ip_adapter", said] = None
        for name, path in (model.get("components") or {}).items():
            found[name, f"{path}, {contents.get(path, '')}" if path else "left out"] = None
        found.update({(key, str(model[key])): None for key in ("task", "config") if model.get(key)})
    yield from found


def _counted(values: Iterable[str]) -> str:
    """List what occurs, with how often when it is not always the same; "" for nothing."""
    counts = Counter(value for value in values if value)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{value} ({count})" for value, count in counts.most_common())


def _mesh(record: Record) -> str:
    return " x ".join(f"{axis} {size}" for axis, size in record.mesh.items() if size > 1)
