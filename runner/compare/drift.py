"""Drift: how far the candidate's media are from the baseline's own, of the same prompt and seed.

`drift.NAME` is the metric NAME, one of those that compare with the sequential sampler, with the baseline's item in the
sequential one's place: it sees any change of the pictures, also one that the sequential sampler shares. What was measured
is kept in the candidate's `scores/drift/`, under the hashes of both files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from genrun.adapters.scorers import registry
from genrun.adapters.scorers.contract import Metric, Sample, UnscoredError
from genrun.runner.compare.load import Entry, Number
from genrun.runner.notes import unscorable_note
from genrun.runner.store.files import atomic_write

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder

PREFIX = "drift."

Known = dict[str, float]
"""Metric version and the files' hashes -> value."""


def drift_names() -> list[str]:
    """Every metric that can measure drift, as `drift.NAME`; imports their modules."""
    return [PREFIX + name for name in registry.names() if registry.get(name).compares]


def direction(name: str) -> bool:
    """Whether a higher value of `drift.NAME` is better."""
    return registry.get(name.removeprefix(PREFIX)).higher_is_better


def measure(name: str, pairs: Sequence[tuple[Entry, Entry]]) -> list[Number]:
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


def _measure(metric: Metric, baseline: Entry, candidate: Entry, known: Known) -> Number:
    for side, entry in (("the baseline: ", baseline), ("", candidate)):
        if not entry.is_done:
            return Number(None, f"{side}not generated")
        note = unscorable_note(entry.record.notes) if entry.record is not None and metric.reads == "media" else None
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


def _sample(entry: Entry) -> Sample:
    item, record = entry.item, entry.record
    latents = record.latents if record is not None else None
    return Sample(
        caption=item.prompt,
        adapter=str(item.model.get("adapter", "")),
        media=None if entry.media is None else entry.run.path / entry.media,
        latents=None if latents is None else entry.run.path / latents,
        num_frames=item.sampling.get("num_frames"),
    )


def _sha256(metric: Metric, entry: Entry) -> str | None:
    if entry.record is None:
        return None
    return entry.record.latents_sha256 if metric.reads == "latents" else entry.record.sha256


def _read(run: RunFolder, metric: Metric) -> Known:
    try:
        known = json.loads(run.scores_path(f"drift/{metric.name}").with_suffix(".json").read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
