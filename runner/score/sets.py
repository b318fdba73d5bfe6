"""Set metrics on a run: one set of items for each cell of the matrix, each part kept as soon as it is measured."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from genrun.adapters.scorers.contract import Sample, SetMetric, SetPart, UnscoredError
from genrun.runner.score.samples import Bench, unscored
from genrun.runner.score.scorefile import Book
from genrun.runner.score.summary import axes_of
from genrun.runner.store.records import Score, set_id

if TYPE_CHECKING:
    from pathlib import Path

    from genrun.runner.job.plan import WorkItem


FOLLOWS = "= "
"""How the part of a number begins that follows from others."""


def sets_of(items: Sequence[WorkItem]) -> dict[str, list[WorkItem]]:
    """The items by set, which is a cell of the matrix; a set's id says so: `set:` and the cell's label."""
    found: dict[str, list[WorkItem]] = {}
    for item in items:
        found.setdefault(set_id(axes_of(item)), []).append(item)
    return found


def measure_set(  # the arguments are what one measurement takes
    metric: SetMetric, set_name: str, members: Sequence[WorkItem], bench: Bench, book: Book, workspace: Path
) -> None:
    """Measure those parts of a metric on a set that are not known, and enter what follows from all of them."""
    samples, inputs = _samples(metric, members, bench, book)
    wanted = [part for part in metric.parts if not book.holds(metric, (set_name, part), inputs)]
    for part in _measured(metric, samples, wanted, workspace):
        _enter(metric, set_name, part, book, inputs)
        book.save()
    _combine(metric, set_name, book, inputs)
    book.save()


def _samples(
    metric: SetMetric, members: Sequence[WorkItem], bench: Bench, book: Book
) -> tuple[list[Sample], tuple[str, ...]]:
    """The samples of a set whose file is as it was made, and the hash of all of them; others are entered as unscored."""
    samples, digest = [], hashlib.sha256()
    for item in members:
        key = (item.id, metric.name)
        try:
            sample = bench.sample(metric, item)
            if sample.media is None or not sample.media.is_file():
                raise UnscoredError("there is no media file")
        except UnscoredError as error:
            book.enter(metric, key, (unscored(metric, item.id, str(error)),), ())
            continue
        finally:
            bench.drop(item)
        book.drop(metric, key)
        samples.append(sample)
        digest.update(f"{item.id} {bench.hash(metric, item)}\n".encode())
    return samples, (digest.hexdigest(),)


def _measured(
    metric: SetMetric, samples: Sequence[Sample], wanted: Sequence[str], workspace: Path
) -> Iterator[SetPart]:
    """The wanted parts, each with a finite value or a reason."""
    if not wanted:
        return
    open_parts = dict.fromkeys(wanted)
    reason = "the metric gave no number"
    try:
        if not samples:
            raise UnscoredError("no item of this set has a media file")
        for part in metric.measure_set(samples, wanted, workspace):
            open_parts.pop(part.name, None)
            bad = part.value is not None and not math.isfinite(part.value)
            yield SetPart(part.name, None, "not a finite number", part.items) if bad else part
    except UnscoredError as error:
        reason = str(error)
    except Exception as error:  # a metric of another package may raise anything; the other scores go on
        reason = f"{type(error).__name__}: {error}"
    for name in open_parts:
        yield SetPart(name, None, reason)


def _enter(metric: SetMetric, set_name: str, part: SetPart, book: Book, inputs: tuple[str, ...]) -> None:
    for item_id, value in part.items.items():
        book.enter(metric, (item_id, part.name), (_score(metric, item_id, part.name, value),), inputs)
    value = part.value if part.value is not None else part.reason or "no reason was given"
    score = _score(metric, set_name, part.name, value)
    # With a value, the reason says what the number is of.
    book.enter(metric, (set_name, part.name), (replace(score, reason=score.reason or part.reason),), inputs)


def _score(metric: SetMetric, item_id: str, name: str, value: float | str) -> Score:
    if isinstance(value, str):
        return unscored(metric, item_id, value, name)
    if not math.isfinite(value):
        return unscored(metric, item_id, "not a finite number", name)
    return Score(item_id, name, float(value), metric.higher_is_better, version=metric.version)


def _combine(metric: SetMetric, set_name: str, book: Book, inputs: tuple[str, ...]) -> None:
    """Enter the numbers that follow from all parts that hold, now and earlier measured; drop those that follow no more."""
    known = book.values(metric, set_name, inputs)
    following = metric.combine({part: value for part, value in known.items() if not part.startswith(FOLLOWS)})
    for name, value in following.items():
        book.enter(metric, (set_name, FOLLOWS + name), (_score(metric, set_name, name, value),), inputs)
    for part in book.parts(metric, set_name):
        if part.startswith(FOLLOWS) and part.removeprefix(FOLLOWS) not in following:
            book.drop(metric, (set_name, part))
