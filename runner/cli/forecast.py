"""What `genrun plan` says of ranks and time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genrun.runner.cli.output import put_table, say

if TYPE_CHECKING:
    from genrun.runner.forecast import Cost
    from genrun.runner.job import LoadedJob
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.parallel.mesh import Mesh


def tell_forecast(loaded: LoadedJob, items: Sequence[WorkItem]) -> None:
    """Say which ranks would be used and why, and how long that takes as far as earlier runs can tell."""
    from genrun.runner.cli.launching import make_launcher
    from genrun.runner.errors import GenrunError
    from genrun.runner.forecast import costs_of, observations
    from genrun.runner.submit.launch_order import is_elastic, wish_of

    spec = loaded.job
    try:
        mesh = make_launcher(spec, loaded.document, items).mesh
    except GenrunError as error:
        say(f"Ranks: {error}")
        return
    elastic = is_elastic(spec) and mesh.data > 1
    auto = spec.parallel.time == "auto" and mesh.ranks > 1
    why = f"{wish_of(spec, items).choice(mesh.ranks).why}" if auto else "as the job says"
    say(f"Ranks: {mesh}{', elastic' if elastic else ''} ({spec.launch.kind}); {why}.")
    costs = costs_of(items, list(observations(Path(spec.output.dir))))
    if known := [cost for cost in costs if cost is not None]:
        _tell_costs(items, costs)
    if len(known) < len(costs):
        say("Time: not known for every solver before a run of it; genrun plan --calibrate measures one item of each.")
    elif known:
        _put_predictions(items, known, mesh, elastic)


def _tell_costs(items: Sequence[WorkItem], costs: Sequence[Cost | None]) -> None:
    told = {}
    for item, cost in zip(items, costs, strict=True):
        if cost is not None:
            told[item.solver["kind"], cost] = (
                f"{item.solver['kind']}: {cost.rounds:.1f} rounds, {cost.nfe:.1f} evaluations of "
                f"{cost.evaluation_s:.3g} s (from {cost.seen} items)"
            )
    say("\n".join(told.values()))


def _put_predictions(items: Sequence[WorkItem], costs: Sequence[Cost], mesh: Mesh, elastic: bool) -> None:
    from genrun.runner.forecast import alternatives, predict

    rows = []
    for each in alternatives(mesh):
        found = predict(items, costs, each, elastic=elastic)
        mark = "chosen" if each == mesh else ""
        rows.append((each.data, each.time, f"{found.makespan_s:.1f}", f"{found.latency_s:.1f}", mark))
    columns = ("data", "time", "all items, s", "one item, s", "")
    put_table(columns, rows, right=columns[:4])
