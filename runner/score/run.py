"""Scores the items of a run: every metric on every item, kept in `scores/<metric>.jsonl`.

A score is measured again only when a file it was measured on, the metric's version or one of its options has changed.
What could not be measured is a row too, with the reason, and is tried again the next time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from genrun.adapters.scorers.contract import Metric, SetMetric
from genrun.runner.score.choose import wanted_metrics
from genrun.runner.score.samples import IS_REFERENCE, SEQUENTIAL, Bench, references
from genrun.runner.score.scorefile import Book, Note, read
from genrun.runner.score.sets import measure_set, sets_of
from genrun.runner.score.shard import WHOLE, Shard
from genrun.runner.store.records import Score
from genrun.runner.store.repair import remove_below

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder

__all__ = ["IS_REFERENCE", "SEQUENTIAL", "Shard", "read_scores", "references", "score_run", "wanted_metrics"]


def score_run(
    run: RunFolder,
    metrics: Sequence[Metric | SetMetric],
    progress: Callable[[int, int], None] = lambda done, total: None,
    note: Note = lambda text: None,
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
    book = Book(run, metrics, [*(item.id for item in items), *sets], note)
    bench = Bench(run, items)
    pairs = [pair for number, pair in enumerate(bench.by_pair()) if shard.takes(number)] if of_items else []
    tasks = [(metric, name) for metric in of_sets for name in sets]
    tasks = [task for number, task in enumerate(tasks) if shard.takes(number)]
    total = sum(len(pair) for pair in pairs) + len(tasks)
    done = 0
    try:
        for item in (item for pair in pairs for item in pair):
            for metric in of_items:
                key, inputs = (item.id, metric.name), bench.inputs(metric, item)
                if not book.holds(metric, key, inputs):
                    book.enter(metric, key, bench.measure(metric, item), inputs)
            bench.drop(item)
            done += 1
            progress(done, total)
        for metric, name in tasks:
            measure_set(metric, name, sets[name], bench, book, run.scores_workspace(metric.name))
            done += 1
            progress(done, total)
    finally:
        book.save()
    return book.rows()


def read_scores(run: RunFolder, note: Note = lambda text: None) -> list[Score]:
    """Return all rows that earlier scoring left in a run folder."""
    files = sorted(run.scores_path("any").parent.glob("*.jsonl"))
    return [score for file in files for entry in read(file, note).values() for score in entry.scores]
