"""Orders of launches: what a job asks of its launcher, and what the workers are told to do."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.runner.launch.protocol import NOTIFY, Cluster, Launcher, LaunchRequest, Step
from genrun.runner.parallel.mesh import MeshRequest, points_of
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.order import Order
from genrun.runner.store.processes import current
from genrun.runner.worker.failures import is_decoded_again

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.job.schema import JobSpec


def request_of(
    spec: JobSpec, document: Mapping[str, Any], environ: Mapping[str, str], items: Sequence[WorkItem] = ()
) -> LaunchRequest:
    """Return what a job asks of its launcher.

    Args:
        spec: the job.
        document: the same as it is stored.
        environ: of the workers.
        items: the plan, for `parallel: auto`.
    """
    launch = spec.launch
    return LaunchRequest(
        launch.processes,
        mesh_request_of(spec, items),
        launch.threads,
        launch.setup,
        environ,
        cluster=_cluster_of(spec, document),
        uses_gpus=spec.model.device != "cpu",
        checkpoints=tuple(
            dict.fromkeys(
                (name, item.model.get("revision"))
                for item in items
                if (name := item.model.get("checkpoint")) is not None
            )
        ),
    )


def is_elastic(spec: JobSpec) -> bool:
    """Tell whether data groups that run out of items join the others: as told, and with `parallel: auto`."""
    return spec.parallel.elastic or spec.parallel.time == "auto"


def mesh_request_of(spec: JobSpec, items: Sequence[WorkItem] = ()) -> MeshRequest:
    """Return the arrangement of ranks that a job, with the plan `items`, asks for."""
    parallel = spec.parallel
    points = tuple(points_of(item.solver) for item in items)
    return MeshRequest(
        parallel.data, parallel.time, parallel.cfg, parallel.ring, parallel.ulysses, spec.objective, points
    )


def new_order(launcher: Launcher, kind: str, spec: JobSpec) -> Order:
    """Return the order of a launch: all items, by a name that no other launch has."""
    mesh = launcher.mesh
    return Order(
        job=f"{kind}-{time.strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(4)}",
        data=mesh.data,
        time=mesh.time,
        cfg=mesh.cfg,
        ring=mesh.ring,
        ulysses=mesh.ulysses,
        elastic=is_elastic(spec),
        backend=spec.parallel.backend,
        threads=spec.launch.threads,
        max_attempts=spec.launch.max_attempts,
        launcher=current() if launcher.follows else None,
    )


def make_order(
    folder: RunFolder, launcher: Launcher, kind: str, spec: JobSpec, items: Sequence[str] | None = None
) -> Order:
    """Return the order of a launch on a run. Attempts made before it do not count."""
    records = folder.records(check_files=True)
    return replace(
        new_order(launcher, kind, spec),
        items=None if items is None else tuple(items),
        spent={item_id: record.attempt for item_id, record in records.items() if record.status == "failed"},
        decoded=tuple(item_id for item_id, record in records.items() if is_decoded_again(record)),
    )


def _cluster_of(spec: JobSpec, document: Mapping[str, Any]) -> Cluster:
    launch = spec.launch
    return Cluster(
        name=spec.name,
        partition=launch.partition,
        array=launch.array,
        at_once=launch.at_once,
        nodes=launch.nodes,
        gpus=str(launch.gpus),
        time=launch.time,
        agent=launch.agent,
        options=launch.options,
        template=None if launch.template is None else Path(launch.template),
        then=(*(Step(step.step, step.options) for step in launch.then), *([Step(NOTIFY)] if spec.notify else [])),
        # A stored text stands for a secret as ${NAME}, which the shell fills in from the job's environment.
        setup=tuple(line.replace("$${", "${") for line in (document.get("launch") or {}).get("setup") or ()),
        cwd=Path.cwd(),
    )
