"""Drift, the distance of the candidate's media to the baseline's own of the same prompt and seed.

`drift.NAME` is the metric NAME, one of those that compare with the sequential sampler, with the baseline's item in the
sequential one's place: it sees any change of the pictures, also one that the sequential sampler shares. Values
are kept in the candidate's `scores/drift/`, under the hashes of both files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from genrun.adapters.scorers import registry
from genrun.adapters.scorers.contract import Metric, Sample, UnscoredError
from genrun.runner.compare.load import ComparedItem, Number
from genrun.runner.notes import unscorable_note
from genrun.runner.store.files import atomic_write

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder

PREFIX = "drift."

Known = dict[str, float]
"""Metric version and the files' hashes -> value."""


def drift_names() -> list[str]:
    """Return every metric that can measure drift, as `drift.NAME`; imports their modules."""
    return [PREFIX + name for name in registry.names() if registry.get(name).compares]


def direction(name: str) -> bool:
    """Return True when a higher value of `drift.NAME` is better."""
    return registry.get(name.removeprefix(PREFIX)).higher_is_better


def measure(name: str, pairs: Sequence[tuple[ComparedItem, ComparedItem]]) -> list[Number]:
    """Measure `drift.NAME` on (baseline, candidate) pairs; a reason for each that cannot be measured.

    Raises:
        StoreError: the candidate's folder cannot be written.
    """
    if not pairs:
        return []
    metric, run = registry.get(name.removeprefix(PREFIX)), pairs[0][1].run
    known = _read(run, metric)
    before = len(known)
    numbers = [_measure(metric, baseline, candidate, known) for baseline, candidate in pairs]
    if len(known) > before:
        path = run.scores_path(f"drift/{metric.name}").with_suffix(".json")
        atomic_write(path, json.dumps(known, indent=0, sort_keys=True).encode())
    return numbers


def _measure(metric: Metric, baseline: ComparedItem, candidate: ComparedItem, known: Known) -> Number:
    for side, item in (("the baseline: ", baseline), ("", candidate)):
        if not item.is_done:
            return Number(None, f"{side}not generated")
        note = unscorable_note(item.record.notes) if item.record is not None and metric.reads == "media" else None
        if note is not None:
            return Number(None, f"{side}not what the model made: {note.message}")
    key = f"{metric.version}:{_sha256(metric, baseline)}:{_sha256(metric, candidate)}"
    if key not in known:
        try:
            value = metric.measure(_sample(candidate), _sample(baseline))[metric.name]
        except UnscoredError as error:
            return Number(None, str(error).replace("the sequential item", "the baseline"))
        except Exception as error:  # a metric of another package may raise anything; the other pairs go on
            return Number(None, f"{type(error).__name__}: {error}")
        if not math.isfinite(value):
            return Number(None, "not a finite number")
        known[key] = float(value)
    return Number(known[key])


def _sample(item: ComparedItem) -> Sample:
    planned, latents = item.planned, item.record.latents if item.record is not None else None
    return Sample(
        caption=planned.prompt,
        adapter=str(planned.model.get("adapter", "")),
        media=None if item.media is None else item.run.path / item.media,
        latents=None if latents is None else item.run.path / latents,
        num_frames=planned.sampling.get("num_frames"),
    )


def _sha256(metric: Metric, item: ComparedItem) -> str | None:
    if item.record is None:
        return None
    return item.record.latents_sha256 if metric.reads == "latents" else item.record.sha256


def _read(run: RunFolder, metric: Metric) -> Known:
    try:
        known = json.loads(run.scores_path(f"drift/{metric.name}").with_suffix(".json").read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
