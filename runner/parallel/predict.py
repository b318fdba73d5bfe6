"""What a batch will take on a mesh, and on the others that the same ranks could form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

from genrun.runner.parallel.calibration import Cost, Observation, cost_of
from genrun.runner.parallel.simulate import makespan
from genrun.runner.parallel.tail import points_of

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.parallel.mesh import Mesh


@dataclass(frozen=True)
class Prediction:
    """How long a batch takes on a mesh, loading left out.

    Attributes:
        mesh: the ranks.
        makespan_s: until the last item is done.
        latency_s: of one item, on average.
    """

    mesh: Mesh
    makespan_s: float
    latency_s: float


def costs_of(items: Sequence[WorkItem], seen: Sequence[Observation]) -> list[Cost | None]:
    """What each item is expected to cost; None where nothing like it has been seen."""
    known: dict[tuple[str, str], Cost | None] = {}
    for item in items:
        key = (str(item.model), str((item.solver, item.sampling)))
        if key not in known:
            known[key] = cost_of(item, seen)
    return [known[str(item.model), str((item.solver, item.sampling))] for item in items]


def predict(items: Sequence[WorkItem], costs: Sequence[Cost], mesh: Mesh, *, elastic: bool) -> Prediction:
    """How long the items take on a mesh."""

    def seconds(number: int, slots: int) -> float:
        return costs[number].seconds(slots)

    points = [points_of(item) for item in items]
    latency_s = fmean(cost.seconds(mesh.time) for cost in costs)
    return Prediction(mesh, makespan(points, seconds, mesh.data, mesh.time, elastic=elastic), latency_s)


def alternatives(mesh: Mesh) -> list[Mesh]:
    """Every way to arrange the same slots as data x time, this one among them."""
    slots = mesh.data * mesh.time
    return [replace(mesh, data=slots // time, time=time) for time in range(1, slots + 1) if slots % time == 0]
