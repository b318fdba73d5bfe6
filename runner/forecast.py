"""Forecast of a batch's time: costs from records of earlier runs or measured now, and a simulation of the workers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from heapq import heapify, heapreplace
from itertools import islice
from math import ceil
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING

from genrun.runner.errors import StoreError
from genrun.runner.parallel.mesh import items_kept_back, points_of, share_groups
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.runs import names, runs_of
from genrun.runner.strict_json import canonical

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.parallel.mesh import Mesh
    from genrun.runner.store.records import Record
    from genrun.runner.worker.producer import Producer

CALIBRATION = "calibration.jsonl"
"""Name of the file of measured costs in the folder of all runs."""

RUNS = 20
"""Newest runs of each job that are read: older ones may have been made on other machines, and reading takes time."""

Seconds = Callable[[int, int], float]
"""The time of an item, by its number, on so many slots."""


@dataclass(frozen=True)
class Observation:
    """The cost that one item had.

    Attributes:
        model: what the time of an evaluation depends on, as a key.
        solver: the solver with its options and the number of steps, as a key.
        rounds: parallel model calls.
        nfe: evaluations.
        evaluation_s: seconds of one evaluation, decoding and writing shared out among them.
        time: slots that shared the rounds.
    """

    model: str
    solver: str
    rounds: int
    nfe: int
    evaluation_s: float
    time: int = 1


@dataclass(frozen=True)
class Cost:
    """The cost that an item is expected to have.

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
        """Return the time on so many slots: in each round the evaluations of the busiest one."""
        # A quotient such as 8.000000001 is 8 evaluations, and not 9.
        busiest = max(1, ceil(self.nfe / self.rounds / slots - 1e-9))
        return min(self.nfe, self.rounds * busiest) * self.evaluation_s


def observe(item: WorkItem, record: Record) -> Observation | None:
    """Return the cost of a finished item; None for one that tells nothing."""
    stats = record.sampler
    if record.status != "done" or stats is None or not record.elapsed_s:
        return None
    slots = record.mesh.get("time", 1)
    in_a_row = Cost(stats.rounds, stats.nfe, 1.0, 1).seconds(slots)
    return Observation(*keys_of(item), stats.rounds, stats.nfe, record.elapsed_s / in_a_row, slots)


def keys_of(item: WorkItem) -> tuple[str, str]:
    """Return the keys of a model at a size, and of a solver with its number of steps."""
    model = {key: item.model.get(key) for key in ("adapter", "checkpoint", "dtype")}
    size = {key: value for key, value in item.sampling.items() if key in ("height", "width", "num_frames")}
    return canonical([model, size]).decode(), canonical([item.solver, item.sampling.get("steps")]).decode()


def observations(base: Path) -> Iterator[Observation]:
    """Yield the costs in all jobs' newest runs under a folder, and those that were measured there."""
    for name in names(base) if base.is_dir() else ():
        for path in islice(runs_of(base / name), RUNS):
            try:
                folder = RunFolder.open(path)
                items, records = {item.id: item for item in folder.items()}, folder.records()
            except StoreError:
                continue
            found = (observe(items[item_id], record) for item_id, record in records.items() if item_id in items)
            yield from (each for each in found if each is not None)
    if (base / CALIBRATION).is_file():
        for line in (base / CALIBRATION).read_text().splitlines():
            yield Observation(**json.loads(line))


def cost_of(item: WorkItem, seen: Iterable[Observation], time: int | None = None) -> Cost | None:
    """Return what an item is expected to cost; None while its model at this size, or its solver, has not been seen.

    An evaluation takes what it took where as many slots shared the rounds as `time` says, if that was seen.
    """
    model, solver = keys_of(item)
    same_model = [each for each in seen if each.model == model]
    same = [each for each in same_model if each.solver == solver]
    if not same:
        return None
    shared = [each for each in same_model if each.time == time] or same_model
    evaluation_s = median(each.evaluation_s for each in shared)
    return Cost(fmean(each.rounds for each in same), fmean(each.nfe for each in same), evaluation_s, len(same))


def costs_of(items: Sequence[WorkItem], seen: Sequence[Observation], time: int | None = None) -> list[Cost | None]:
    """Return what each item is expected to cost; None where nothing like it has been seen."""
    known: dict[tuple[str, str], Cost | None] = {}
    for item in items:
        key = (str(item.model), str((item.solver, item.sampling)))
        if key not in known:
            known[key] = cost_of(item, seen, time)
    return [known[str(item.model), str((item.solver, item.sampling))] for item in items]


def calibrate(items: Sequence[WorkItem], producer: Producer, base: Path, say: Callable[[str], None]) -> None:
    """Sample the first item of each model and solver on this rank, without decoding, and keep what it cost under `base`.

    Raises:
        OSError: the folder cannot be written.
    """
    first = {keys_of(item): item for item in reversed(items)}
    base.mkdir(parents=True, exist_ok=True)
    for (model, solver), item in first.items():
        say(f"Measuring {item.solver['kind']}: {item.id}.")
        producer.prepare(item)
        started = time.perf_counter()
        stats = producer.sample(item, lambda front, num_steps: None).stats
        evaluation_s = (time.perf_counter() - started) / stats.nfe
        line = json.dumps(asdict(Observation(model, solver, stats.rounds, stats.nfe, evaluation_s)))
        with (base / CALIBRATION).open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


@dataclass(frozen=True)
class Prediction:
    """The time of a batch on a mesh, loading left out.

    Attributes:
        mesh: the ranks.
        makespan_s: until the last item is done.
        latency_s: of one item, on average.
    """

    mesh: Mesh
    makespan_s: float
    latency_s: float


def predict(items: Sequence[WorkItem], costs: Sequence[Cost], mesh: Mesh, *, elastic: bool) -> Prediction:
    """Predict how long the items take on a mesh."""

    def seconds(number: int, slots: int) -> float:
        return costs[number].seconds(slots)

    points = [points_of(item.solver) for item in items]
    latency_s = fmean(cost.seconds(mesh.time) for cost in costs)
    return Prediction(mesh, makespan(points, seconds, mesh.data, mesh.time, elastic=elastic), latency_s)


def alternatives(mesh: Mesh) -> list[Mesh]:
    """Return every way to arrange the same slots as data x time, this one among them."""
    slots = mesh.data * mesh.time
    return [replace(mesh, data=slots // time, time=time) for time in range(1, slots + 1) if slots % time == 0]


def makespan(points: Sequence[int], seconds: Seconds, groups: int, time: int, *, elastic: bool = False) -> float:
    """Simulate a batch item by item, as the workers take them, and return when the last one ends, without loading.

    Args:
        points: K of each item.
        seconds: the time of an item.
        groups: data groups.
        time: slots of a group.
        elastic: whether groups share the last items.
    """
    order = sorted(range(len(points)), key=lambda number: points[number]) if elastic else list(range(len(points)))
    kept = items_kept_back(points, groups, time) if elastic else 0
    apart, together = order[: len(order) - kept], order[len(order) - kept :]
    free_at = [0.0] * groups
    heapify(free_at)
    for number in apart:
        heapreplace(free_at, free_at[0] + seconds(number, time))
    end = max(free_at)
    while together:
        shares = share_groups([points[number] for number in together], groups, time)
        end += max(seconds(number, share * time) for number, share in zip(together, shares, strict=False))
        together = together[len(shares) :]
    return end
