"""Arranging ranks by measured seconds: with `parallel: auto`, items side by side or the rounds of each shared.

Which of them ends a batch soonest depends on what an evaluation takes, alone and shared, and on how many more of them a
larger K costs. Both are known once items were made, or measured by `genrun plan --calibrate`; until then `choose` goes by
evaluations alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from genrun.runner.api.calls import QUIET, Listener
from genrun.runner.api.jobs import AnyJob, calibrate, load_job
from genrun.runner.errors import UsageError
from genrun.runner.job.certificates import AIM

if TYPE_CHECKING:
    from genrun.runner.forecast import Observation, Prediction
    from genrun.runner.job import LoadedJob
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.parallel.mesh import Mesh


@dataclass(frozen=True)
class Arrangement:
    """A job with its ranks arranged in one way.

    Attributes:
        loaded: the job; its K follows the mesh where the job leaves it open, and so do the ids of its items.
        items: its plan.
        mesh: the ranks.
        why: why they are arranged so, where seconds decided it.
    """

    loaded: LoadedJob
    items: Sequence[WorkItem]
    mesh: Mesh | None = None
    why: str = ""


def arrange(job: AnyJob, sets: Sequence[str] = (), *, new: bool = False) -> Arrangement:
    """Return a job with `parallel: auto` decided by measured seconds, where every way was seen that could be taken.

    A job of which there is a run already keeps the K that the run was begun with. One that asks for a confidence takes a K
    that its tolerance was calibrated with, where there is one.

    Args:
        job: as `load_job` takes it.
        sets: changes of the job, as texts `a.b=value`.
        new: look for no run.

    Raises:
        JobFileError: with every problem of the job.
    """
    from genrun.runner.forecast import observations
    from genrun.runner.job.plan import plan

    loaded = load_job(job, sets)
    asked = Arrangement(loaded, plan(loaded))
    if loaded.job.parallel.time != "auto":
        return asked
    # Reading what earlier runs took comes first: where there are none, nothing else need be loaded.
    seen = list(observations(Path(loaded.job.output.dir)))
    ways = arrangements(job, sets, asked) if seen or _is_aim(asked) else []
    if not ways:
        return asked
    if not new and len({tuple(item.id for item in each.items) for each in ways}) > 1:
        begun = next((each for each in (asked, *ways) if _has_run(each)), None)
        if begun is not None:
            return replace(begun, why="a run of it was begun with this K") if begun.mesh else begun
    kept = [each for each in ways if not _is_aim(each)]
    if 0 < len(kept) < len(ways):
        return fastest(kept, seen) or replace(kept[0], why="its tolerance was calibrated with this K")
    return fastest(ways, seen) or asked


def measure(job: AnyJob, sets: Sequence[str], listener: Listener = QUIET) -> None:
    """Measure one item of each solver here, with each K that an arrangement of the ranks would give it.

    Raises:
        JobFileError: with every problem of the job.
    """
    from genrun.runner.job.plan import plan

    loaded = load_job(job, sets)
    asked = Arrangement(loaded, plan(loaded))
    others = (item for way in arrangements(job, sets, asked) for item in way.items)
    calibrate(loaded, [*asked.items, *others], listener)


def arrangements(job: AnyJob, sets: Sequence[str], asked: Arrangement) -> list[Arrangement]:
    """Return every way to share the ranks of a job with `parallel: auto` out; none where there is but one.

    Raises:
        JobFileError: with every problem of the job.
    """
    from genrun.runner.api.launching import make_launcher
    from genrun.runner.forecast import alternatives
    from genrun.runner.job.plan import plan

    spec = asked.loaded.job
    if spec.parallel.time != "auto" or spec.parallel.data != "auto":
        return []
    try:
        mesh = make_launcher(spec, asked.loaded.document, asked.items).mesh
    except UsageError:
        return []  # which submitting it says, with the place in the file
    ways: list[Arrangement] = []
    for each in alternatives(mesh) if mesh.data * mesh.time > 1 else ():
        loaded = load_job(job, (*sets, f"parallel.time={each.time}", "parallel.elastic=true"))
        ways.append(Arrangement(loaded, plan(loaded), each))
    return ways


def fastest(ways: Sequence[Arrangement], seen: Sequence[Observation]) -> Arrangement | None:
    """Return the arrangement that the seconds speak for, by the job's objective; None unless at least two are known."""
    from genrun.runner.forecast import costs_of, predict

    known: list[tuple[Arrangement, Prediction]] = []
    for way in ways:
        assert way.mesh is not None
        found = costs_of(way.items, seen, way.mesh.time)
        costs = [cost for cost in found if cost is not None]
        if len(costs) == len(found):
            known.append((way, predict(way.items, costs, way.mesh, elastic=way.mesh.data > 1)))
    if len(known) < 2:
        return None
    latency = ways[0].loaded.job.objective == "latency"
    known.sort(key=lambda pair: (pair[1].latency_s if latency else 0.0, pair[1].makespan_s))
    way, best = known[0]
    of = "one item takes" if latency else f"all {len(way.items)} items take"
    told = [
        f"{each.latency_s if latency else each.makespan_s:.3g} s with {each.mesh.data} x {each.mesh.time}{_k(one)}"
        for one, each in known
    ]
    why = f"objective {ways[0].loaded.job.objective}, by measured seconds: {of} {told[0]}, {' and '.join(told[1:])}"
    return Arrangement(way.loaded, way.items, best.mesh, why)


def _k(way: Arrangement) -> str:
    workers = {k for item in way.items if isinstance(k := item.solver.get("workers"), int)}
    return f" (K = {', '.join(map(str, sorted(workers)))})" if workers else ""


def _is_aim(way: Arrangement) -> bool:
    return any(item.promise.get("state") == AIM for item in way.items)


def _has_run(way: Arrangement) -> bool:
    from genrun.runner.submit.resume import SubmittedJob, find_run

    return find_run(SubmittedJob.of(way.loaded), Path(way.loaded.job.output.dir)) is not None
