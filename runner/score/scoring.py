"""Score a run or a shard of it: every metric on every item, and set metrics on each cell of the matrix.

A score is measured again only when a file it was measured on, the metric's version or one of its options has changed.
What could not be measured is a row too, with the reason, and is tried again the next time.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from genrun.adapters.scorers.contract import Metric, Sample, SetMetric, SetPart, UnscoredError
from genrun.runner.errors import UsageError
from genrun.runner.score.metrics import Samples, unscored
from genrun.runner.score.summary import axes_of
from genrun.runner.store.records import Score, set_id
from genrun.runner.store.repair import remove_below
from genrun.runner.store.scores import ScoreStore

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.store.folder import RunFolder


# Not SLURM_NTASKS, which a batch script of one process has too, nor the task of an array, which may score a run each.
RANKS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"))


@dataclass(frozen=True)
class Shard:
    """A share of the measuring: every `count`-th pair of items, and every `count`-th set.

    Attributes:
        index: 0 to count - 1.
        count: how many processes there are.
    """

    index: int = 0
    count: int = 1

    def takes(self, number: int) -> bool:
        """Return True when the pair or set of that number is this process's."""
        return number % self.count == self.index


WHOLE = Shard()


def shard_of(text: str, environ: Mapping[str, str] = os.environ) -> Shard:
    """Return the shard that "2/8" names, or that this process's rank implies; the whole for a single process.

    Raises:
        UsageError: the text is no shard.
    """
    if text:
        found = re.fullmatch(r"([1-9]\d{0,6})/([1-9]\d{0,6})", text.strip())
        if found is None or int(found[1]) > int(found[2]):
            raise UsageError(f"--shard {text}: wanted I/N with I from 1 to N, such as 2/8.")
        return Shard(int(found[1]) - 1, int(found[2]))
    for names in RANKS:
        if all(name in environ for name in names):
            rank, ranks = (_number(environ[name]) for name in names)
            return Shard(rank, ranks) if 0 <= rank < ranks else WHOLE
    return WHOLE


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


DERIVED = "= "
"""Prefix of the part of a number that follows from others."""


def score_run(
    run: RunFolder,
    metrics: Sequence[Metric | SetMetric],
    progress: Callable[[int, int], None] = lambda done, total: None,
    note: Callable[[str], None] = lambda text: None,
    shard: Shard = WHOLE,
) -> list[Score]:
    """Score every item of a run and return all rows, by metric, then in the order of the plan, sets last.

    Args:
        run: the run folder; files are written to its `scores/` only.
        metrics: what to measure.
        progress: called with (items and sets looked at, items and sets in all).
        note: told of lines of score files that cannot be read.
        shard: the part that this process measures; the others' rows are returned as far as they are known.
    """
    # Of a scoring that was killed; perhaps one of other metrics, whose files this one does not write.
    remove_below(run.scores_path("").parent)
    items = run.items()
    sets = sets_of(items)
    of_items = [metric for metric in metrics if not isinstance(metric, SetMetric)]
    of_sets = [metric for metric in metrics if isinstance(metric, SetMetric)]
    store = ScoreStore(run, metrics, [*(item.id for item in items), *sets], note)
    samples = Samples(run, items)
    pairs = [pair for number, pair in enumerate(samples.by_pair()) if shard.takes(number)] if of_items else []
    tasks = [(metric, name) for metric in of_sets for name in sets]
    tasks = [task for number, task in enumerate(tasks) if shard.takes(number)]
    total = sum(len(pair) for pair in pairs) + len(tasks)
    done = 0
    try:
        for item in (item for pair in pairs for item in pair):
            for metric in of_items:
                key, inputs = (item.id, metric.name), samples.inputs(metric, item)
                if not store.is_current(metric, key, inputs):
                    store.put(metric, key, samples.measure(metric, item), inputs)
            samples.drop(item)
            done += 1
            progress(done, total)
        for metric, name in tasks:
            _score_set(metric, name, sets[name], samples, store, run.scores_workspace(metric.name))
            done += 1
            progress(done, total)
    finally:
        store.save()
    return store.rows()


def sets_of(items: Sequence[WorkItem]) -> dict[str, list[WorkItem]]:
    """Return the items by set, which is a cell of the matrix; a set's id says so: `set:` and the cell's label."""
    found: dict[str, list[WorkItem]] = {}
    for item in items:
        found.setdefault(set_id(axes_of(item)), []).append(item)
    return found


def _score_set(
    metric: SetMetric, set_name: str, members: Sequence[WorkItem], samples: Samples, store: ScoreStore, workspace: Path
) -> None:
    """Measure those parts of a metric on a set that are not known, and derive what follows from all of them."""
    whole, inputs = _whole_samples(metric, members, samples, store)
    wanted = [part for part in metric.parts if not store.is_current(metric, (set_name, part), inputs)]
    for part in _measured(metric, whole, wanted, workspace):
        for item_id, value in part.items.items():
            store.put(metric, (item_id, part.name), (_score(metric, item_id, part.name, value),), inputs)
        value = part.value if part.value is not None else part.reason or "no reason was given"
        score = _score(metric, set_name, part.name, value)
        # With a value, the reason says what the number is of.
        store.put(metric, (set_name, part.name), (replace(score, reason=score.reason or part.reason),), inputs)
        # A part may have taken an hour.
        store.save()
    _derive(metric, set_name, store, inputs)
    store.save()


def _whole_samples(
    metric: SetMetric, members: Sequence[WorkItem], samples: Samples, store: ScoreStore
) -> tuple[list[Sample], tuple[str, ...]]:
    """Return the samples whose file is as it was made, and the hash of all of them; others are kept as unscored."""
    whole, digest = [], hashlib.sha256()
    for item in members:
        key = (item.id, metric.name)
        try:
            sample = samples.sample(metric, item)
            if sample.media is None or not sample.media.is_file():
                raise UnscoredError("there is no media file")
        except UnscoredError as error:
            store.put(metric, key, (unscored(metric, item.id, str(error)),), ())
            continue
        finally:
            samples.drop(item)
        store.drop(metric, key)
        whole.append(sample)
        digest.update(f"{item.id} {samples.hash(metric, item)}\n".encode())
    return whole, (digest.hexdigest(),)


def _measured(
    metric: SetMetric, samples: Sequence[Sample], wanted: Sequence[str], workspace: Path
) -> Iterator[SetPart]:
    """Yield the wanted parts, each with a finite value or a reason."""
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


def _derive(metric: SetMetric, set_name: str, store: ScoreStore, inputs: tuple[str, ...]) -> None:
    """Put the numbers that follow from all parts that hold, new and old; drop those that follow no more."""
    known = store.values(metric, set_name, inputs)
    following = metric.combine({part: value for part, value in known.items() if not part.startswith(DERIVED)})
    for name, value in following.items():
        store.put(metric, (set_name, DERIVED + name), (_score(metric, set_name, name, value),), inputs)
    for part in store.parts(metric, set_name):
        if part.startswith(DERIVED) and part.removeprefix(DERIVED) not in following:
            store.drop(metric, (set_name, part))


def _score(metric: SetMetric, item_id: str, name: str, value: float | str) -> Score:
    if isinstance(value, str):
        return unscored(metric, item_id, value, name)
    if not math.isfinite(value):
        return unscored(metric, item_id, "not a finite number", name)
    return Score(item_id, name, float(value), metric.higher_is_better, version=metric.version)
