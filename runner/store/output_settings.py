"""Settings of a job's section `output`: the format of media files, and whether latents are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from genrun.adapters import media, registry
from genrun.runner.store.scores import metrics_of

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.store.records import Record

AUTO = "auto"
CLIP = "mp4"

LATENT_METRICS = frozenset({"latent_rmse", "latent_worst_block"})
"""Metrics that compare final latents instead of pictures."""


def wants_latents(document: Mapping[str, Any]) -> bool:
    """Return True when a resolved job keeps latents: when told to, or when a metric or a gate on drift needs them."""
    metrics = {*metrics_of(document)}
    gated = {name.removeprefix("drift.") for name in document.get("gates") or ()}
    is_told = bool((document.get("output") or {}).get("save_latents"))
    return is_told or not LATENT_METRICS.isdisjoint(metrics | gated)


def written_with(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a resolved job asks of its media files, as records keep it: format, fps, crf; sound where it is said."""
    output = document.get("output") or {}
    said = {} if output.get("sound") is None else {"sound": output["sound"]}
    return {
        "format": output.get("format") or AUTO,
        "fps": output.get("fps"),
        "crf": output.get("crf", media.DEFAULT_CRF),
        **said,
    }


def differences(item: WorkItem, record: Record, before: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """List what an item's media file was written with and is now asked for: "output.crf: 18 -> 23"; none when it fits.

    Args:
        item: the item.
        record: its record, of a media file.
        before: what the file was written with, as `written_with` returns it.
        wanted: what the job asks for now.
    """
    suffix = str(record.media).rpartition(".")[2]
    fps = registry.get(item.model["adapter"]).fps
    pairs: dict[str, tuple[Any, Any]] = {"format": (_format(item, before, suffix), _format(item, wanted, suffix))}
    if suffix == CLIP:
        pairs["fps"] = (before.get("fps") or fps, wanted.get("fps") or fps)
        pairs["crf"] = (before.get("crf"), wanted.get("crf"))
        if record.sound or before.get("sound") is False:
            pairs["sound"] = (before.get("sound") is not False, wanted.get("sound") is not False)
    same = {key for key in pairs if before.get(key) == wanted.get(key)}
    return [f"output.{key}: {old} -> {new}" for key, (old, new) in pairs.items() if key not in same and old != new]


def _format(item: WorkItem, asked: Mapping[str, Any], suffix: str) -> str:
    """Return the suffix for a format; where only the loaded pipeline knows it, that of the existing file."""
    wanted = asked.get("format") or AUTO
    if wanted != AUTO:
        return str(wanted)
    return {"video": "mp4", "image": "png"}.get(str(registry.get(item.model["adapter"]).kind), suffix)
