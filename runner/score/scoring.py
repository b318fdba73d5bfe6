"""Score a run or a shard of it: every metric on every item, and set metrics on each cell of the matrix.

A score is measured again only when a file it was measured on, the metric's version or one of its options has changed.
What could not be measured is a row too, with the reason, and is tried again the next time.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from genrun.adapters.scorers import registry
from genrun.adapters.scorers.contract import Metric, Sample, SetMetric, SetPart, UnscoredError
from genrun.runner.errors import UsageError
from genrun.runner.score.metrics import Samples, unscored
from genrun.runner.score.summary import axes_of
from genrun.runner.store.records import SET, Record, Score, set_id
from genrun.runner.store.repair import remove_below
from genrun.runner.store.scores import Key, Measurement, ScoreStore, read, score_files

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


HASHES = {"media": "sha256", "latents": "latents_sha256"}
"""What a metric reads -> the field of a record that has the hash of that file."""

MADE_AGAIN = "what it was measured on was made again since: genrun score"
"""Reason of a score without a value whose files are others by now."""

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


@dataclass(frozen=True)
class Known:
    """What earlier scoring left of a run.

    Attributes:
        scores: all rows, by metric; of files that are others by now, rows without a value.
        ways: metric -> the versions and options, as JSON, that its values were measured with.
    """

    scores: tuple[Score, ...]
    ways: Mapping[str, frozenset[tuple[int, str]]]


def known_scores(run: RunFolder, items: Sequence[WorkItem], records: Mapping[str, Record]) -> Known:
    """Return the scores of a run as they hold for its files: what was made again since is not scored.

    Args:
        run: the run folder.
        items: the plan.
        records: by item id.
    """
    files = _Files(items, records)
    found: list[Score] = []
    ways: dict[str, set[tuple[int, str]]] = {}
    for path in score_files(run):
        entries = read(path)
        for (item_id, _), entry in entries.items():
            if files.are_others(item_id, entry.inputs, entries, path.stem):
                found += (replace(score, value=None, reason=MADE_AGAIN) for score in entry.scores)
                continue
            found += entry.scores
            for score in entry.scores:
                if score.value is not None:
                    ways.setdefault(score.metric, set()).add((score.version, entry.settings))
    return Known(tuple(found), {metric: frozenset(each) for metric, each in ways.items()})


class _Files:
    """The files of a run as its records have them, beside those that scores were measured on."""

    def __init__(self, items: Sequence[WorkItem], records: Mapping[str, Record]) -> None:
        self._records = records
        self._items = {item.id: item for item in items}
        self._references: dict[str, str] = {}
        for item in items:
            if item.is_reference:
                self._references.setdefault(item.pair, item.id)
        self._sets: dict[str, list[WorkItem]] = {}
        self._digests: dict[tuple[str, str], set[str]] = {}

    def are_others(self, item_id: str, inputs: Sequence[str], entries: Mapping[Key, Measurement], metric: str) -> bool:
        """Return True where records tell that an item, its reference or its set have other files than were measured."""
        item = self._items.get(item_id)
        if not inputs or (item is None and not item_id.startswith(SET)):
            return False
        if item is None:
            found = self._of_set(item_id, entries, metric)
            return bool(found) and inputs[0] not in found
        own = self._hashes(item_id, metric)
        if own and inputs[0] not in own and inputs[0] not in self._of_set(set_id(axes_of(item)), entries, metric):
            return True
        reference = self._hashes(self._references.get(item.pair, ""), metric)
        return bool(len(inputs) > 1 and inputs[1] and reference and inputs[1] not in reference)

    def _hashes(self, item_id: str, metric: str) -> set[str]:
        """Return the hashes that the file which a metric reads of an item may have; none where it is open."""
        record = self._records.get(item_id)
        if record is None or record.status != "done":
            return set()
        found = [getattr(record, field) for field in hash_fields(metric)]
        return set(found) if all(found) else set()

    def _of_set(self, name: str, entries: Mapping[Key, Measurement], metric: str) -> set[str]:
        """Return the hashes that the files of a set may have together; none where it is open."""
        key = (metric, name)
        if key not in self._digests:
            self._sets = self._sets or sets_of(list(self._items.values()))
            # With a row of its own where it could not be measured, and is not in the set.
            members = [item.id for item in self._sets.get(name, ()) if (item.id, metric) not in entries]
            done = [record for each in members if (record := self._records.get(each)) is not None]
            rooms = [[getattr(record, field) for record in done] for field in hash_fields(metric)]
            is_known = len(done) == len(members) and all(map(all, rooms))
            self._digests[key] = {set_digest(zip(members, room, strict=True)) for room in rooms} if is_known else set()
        return self._digests[key]


@cache
def hash_fields(metric: str) -> tuple[str, ...]:
    """Return the fields of a record that tell of the file which a metric reads; of one that is not installed, both."""
    if metric not in registry.names():
        return tuple(HASHES.values())
    return (HASHES[registry.get(metric).reads],)


def set_digest(hashes: Iterable[tuple[str, str]]) -> str:
    """Hash the files of a set: the id and the SHA-256 of each of its items."""
    digest = hashlib.sha256()
    for item_id, found in hashes:
        digest.update(f"{item_id} {found}\n".encode())
    return digest.hexdigest()


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
    whole: list[Sample] = []
    hashes: list[tuple[str, str]] = []
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
        hashes.append((item.id, samples.hash(metric, item)))
    return whole, (set_digest(hashes),)


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
