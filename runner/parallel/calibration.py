"""What evaluations and solvers have cost so far: read off the records of earlier runs, or measured."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from math import ceil
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING

from genrun.runner.errors import StoreError
from genrun.runner.job.plan import canonical
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.runs import names, runs_of

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.store.records import Record

FILE = "calibration.jsonl"
RUNS = 20
"""Runs of each job that are looked at, the newest."""


@dataclass(frozen=True)
class Observation:
    """What one item has cost.

    Attributes:
        model: what the time of an evaluation depends on, as a key.
        solver: the solver with its options and the number of steps, as a key.
        rounds: parallel model calls.
        nfe: evaluations.
        evaluation_s: seconds of one evaluation, decoding and writing shared out among them.
    """

    model: str
    solver: str
    rounds: int
    nfe: int
    evaluation_s: float


@dataclass(frozen=True)
class Cost:
    """What an item is expected to cost.

    Attributes:
        rounds: parallel model calls.
        nfe: evaluations.
        evaluation_s: seconds of one.
        seen: items that this is taken from.
    """

    rounds: float
    nfe: float
    evaluation_s: float
    seen: int

    def seconds(self, slots: int) -> float:
        """Time on so many slots: in each round the evaluations of the busiest one."""
        busiest = max(1, ceil(self.nfe / self.rounds / slots - 1e-9))
        return min(self.nfe, self.rounds * busiest) * self.evaluation_s


def observe(item: WorkItem, record: Record) -> Observation | None:
    """What a finished item tells, or None."""
    stats = record.sampler
    if record.status != "done" or stats is None or not record.elapsed_s:
        return None
    slots = record.mesh.get("time", 1)
    in_a_row = Cost(stats.rounds, stats.nfe, 1.0, 1).seconds(slots)
    return Observation(*keys_of(item), stats.rounds, stats.nfe, record.elapsed_s / in_a_row)


def keys_of(item: WorkItem) -> tuple[str, str]:
    """The keys of a model at a size, and of a solver with its number of steps."""
    model = {key: item.model.get(key) for key in ("adapter", "checkpoint", "dtype")}
    size = {key: value for key, value in item.sampling.items() if key in ("height", "width", "num_frames")}
    return canonical([model, size]).decode(), canonical([item.solver, item.sampling.get("steps")]).decode()


def observations(base: Path) -> Iterator[Observation]:
    """What all jobs' newest runs under a folder tell, and what was measured there."""
    for name in names(base) if base.is_dir() else ():
        for path in islice(runs_of(base / name), RUNS):
            try:
                folder = RunFolder.open(path)
                items, records = {item.id: item for item in folder.items()}, folder.records()
            except StoreError:
                continue
            found = (observe(items[item_id], record) for item_id, record in records.items() if item_id in items)
            yield from (each for each in found if each is not None)
    if (base / FILE).is_file():
        for line in (base / FILE).read_text().splitlines():
            yield Observation(**json.loads(line))


def cost_of(item: WorkItem, seen: Iterable[Observation]) -> Cost | None:
    """What an item is expected to cost; None while its model at this size, or its solver, has not been seen."""
    model, solver = keys_of(item)
    same_model = [each for each in seen if each.model == model]
    same = [each for each in same_model if each.solver == solver]
    if not same:
        return None
    evaluation_s = median(each.evaluation_s for each in same_model)
    return Cost(fmean(each.rounds for each in same), fmean(each.nfe for each in same), evaluation_s, len(same))
