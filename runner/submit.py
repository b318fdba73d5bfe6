"""Submitting a job: find the run it belongs to, order its missing items, start workers, follow them to the end."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from genrun.runner.errors import IncompleteError, MixError, StoppedError
from genrun.runner.launch.cause import Cause, find, forget
from genrun.runner.launch.contract import Cluster, Launcher, Request, State, Step
from genrun.runner.mesh import Wish
from genrun.runner.store.files import sync, temporary_name, write_error, write_whole
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.lease import Leases, Owner
from genrun.runner.store.processes import current
from genrun.runner.store.runs import new_path, point_latest, runs_of
from genrun.runner.work.order import Order, open_items
from genrun.runner.work.tail import points_of

if TYPE_CHECKING:
    from genrun.runner.plan import WorkItem
    from genrun.runner.spec.schema import JobSpec

PIXEL_SECTIONS = ("name", "model", "prompts", "seeds", "sampling", "solver", "cache", "attention", "matrix")
POLL_S = 0.25
PATIENCE_S = 10.0
PROBE_BYTES = 1 << 16
SHOWN = 6


class Watch(Protocol):
    """Somebody who looks at a run now and then."""

    @property
    def is_over(self) -> bool:
        """Whether every item was settled at the last look."""
        ...

    def __call__(self) -> None:
        """Look."""
        ...


@dataclass(frozen=True)
class Job:
    """A job as it is submitted.

    Attributes:
        spec: the job.
        document: the resolved job, as it is stored.
        items: its plan.
    """

    spec: JobSpec
    document: Mapping[str, Any]
    items: Sequence[WorkItem]


def find_run(job: Job, base: Path) -> RunFolder | None:
    """Return the newest run of this job's name that has exactly its items, or None."""
    wanted = {item.id for item in job.items}
    for path in runs_of(base / job.spec.name):
        folder = RunFolder.open(path)
        if {item.id for item in folder.items()} == wanted:
            return folder
    return None


def check_same(job: Job, folder: RunFolder) -> None:
    """Refuse to mix a changed job into an old run.

    Raises:
        MixError: the run holds other items; the message names the changed fields.
    """
    old = {item.id for item in folder.items()}
    new = {item.id for item in job.items}
    if old == new:
        return
    changes = changed_fields(folder.job_document(), job.document)
    if not changes:
        changes = ["the prompts' file, the checkpoint or the defaults of an adapter"]
    listed = "".join(f"\n    {change}" for change in changes[:SHOWN])
    more = f"\n    and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
    raise MixError(
        f"{folder.path}: the job has changed since this run was made "
        f"({len(new - old)} items are new, {len(old - new)} gone):{listed}{more}",
        remedy="Submit without --run to start a new run, or restore the old values.",
    )


def changed_fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """List the dotted fields that differ, among those that change pixels: "sampling.steps: 20 -> 30"."""
    before, after = (_flat({key: job.get(key) for key in PIXEL_SECTIONS}) for job in (old, new))
    missing = "(not set)"
    return [
        f"{field}: {before.get(field, missing)!s:.60} -> {after.get(field, missing)!s:.60}"
        for field in sorted({*before, *after})
        if before.get(field, missing) != after.get(field, missing)
    ]


def open_run(job: Job, base: Path, run: RunFolder | None) -> RunFolder:
    """Return the run this job resumes, or make a new one; `latest` points to it afterwards.

    Raises:
        MixError: `run` is given and holds other items.
        StoreError: the folder cannot be written.
    """
    if run is not None:
        check_same(job, run)
    folder = run or find_run(job, base)
    if folder is None:
        folder = RunFolder.create(new_path(base, job.spec.name), job.document, job.items)
    elif folder.job_document() != dict(job.document):
        folder.write_plan(job.document, job.items)
    if folder.path.parent.name == job.spec.name:
        point_latest(folder)
    return folder


def request_of(
    spec: JobSpec, document: Mapping[str, Any], environ: Mapping[str, str], items: Sequence[WorkItem] = ()
) -> Request:
    """Return what a job asks of its launcher.

    Args:
        spec: the job.
        document: the same as it is stored.
        environ: of the workers.
        items: the plan, for `parallel: auto`.
    """
    launch = spec.launch
    return Request(
        launch.processes,
        wish_of(spec, items),
        launch.threads,
        launch.setup,
        environ,
        cluster=_cluster_of(spec, document),
        uses_gpus=spec.model.device != "cpu",
    )


def is_elastic(spec: JobSpec) -> bool:
    """Whether data groups that run out of items join the others: as told, and with `parallel: auto`."""
    return spec.parallel.elastic or spec.parallel.time == "auto"


def wish_of(spec: JobSpec, items: Sequence[WorkItem] = ()) -> Wish:
    """Return the arrangement of ranks that a job, with the plan `items`, asks for."""
    parallel = spec.parallel
    points = tuple(points_of(item) for item in items)
    return Wish(parallel.data, parallel.time, parallel.cfg, parallel.ring, parallel.ulysses, spec.objective, points)


def new_order(launcher: Launcher, kind: str, spec: JobSpec) -> Order:
    """Say what a launch is to do: all items, by a name that no other launch has."""
    return Order(
        job=f"{kind}-{time.strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(4)}",
        **launcher.mesh.to_dict(),
        elastic=is_elastic(spec),
        backend=spec.parallel.backend,
        threads=spec.launch.threads,
        max_attempts=spec.launch.max_attempts,
        launcher=current() if launcher.follows else None,
    )


def make_order(
    folder: RunFolder, launcher: Launcher, kind: str, spec: JobSpec, items: Sequence[str] | None = None
) -> Order:
    """Say what a launch on a run is to do. Attempts made before it do not count."""
    records = folder.records()
    return replace(
        new_order(launcher, kind, spec),
        items=None if items is None else tuple(items),
        spent={item_id: record.attempt for item_id, record in records.items() if record.status == "failed"},
    )


def tidy(folder: RunFolder, patience_s: float = 0.0) -> None:
    """Remove what killed workers left behind, unless somebody works in this run.

    Args:
        folder: the run.
        patience_s: how long workers that have just finished an item may take to let it go, in seconds.

    Raises:
        StoreError: the run cannot be written.
    """
    leases, deadline = Leases(folder, Owner(current(), "tidy")), time.monotonic() + patience_s
    while not (is_deserted := leases.sweep()) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    if is_deserted:
        for path in folder.temporary_files():
            path.unlink(missing_ok=True)


def check_writable(folder: RunFolder) -> None:
    """Write and remove a small file.

    Raises:
        StoreError: the disk is full, or the folder is read-only.
    """
    probe = temporary_name(folder.leases / "probe")
    try:
        folder.leases.mkdir(exist_ok=True)
        write_whole(probe, bytes(PROBE_BYTES))
        sync(probe)
    except OSError as error:
        raise write_error(folder.path, error) from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def run_to_end(
    folder: RunFolder,
    order: Order,
    launcher: Launcher,
    *,
    watch: Callable[[], None],
    say: Callable[[str], None],
    restarts: int = 1,
) -> None:
    """Start the workers and follow them; start them once more when ranks died and items are left.

    Args:
        folder: the run.
        order: what to do.
        launcher: how to start workers.
        watch: called a few times a second while they work.
        say: told about restarts.
        restarts: how often workers that died are started again.

    Raises:
        StoreError: the run folder cannot be written.
        LaunchError: the workers ended without finishing, by an error of their own.
        IncompleteError: the workers were killed again, or this process was told to stop.
    """
    check_writable(folder)
    for restart in range(restarts + 1):
        forget(folder, order)
        state = _follow(folder, order, launcher, restart, watch)
        left = open_items(folder, order)
        if not left:
            break
        if not state.exit_code:
            raise incomplete(folder, "Other workers hold the rest of this run")
        cause = find(folder, order, restart, state.exit_code)
        if not cause.is_store:
            # A worker on a full disk cannot even say so.
            check_writable(folder)
        if not cause.is_kill:
            raise cause.error()
        if restart < restarts:
            say(f"{cause.error()}\n  {len(left)} items are left: starting the workers again.")
        else:
            raise _gave_up(folder, cause)
    tidy(folder)


def wait_for(
    folder: RunFolder,
    order: Order,
    launcher: Launcher,
    jobs: Sequence[str],
    *,
    watch: Watch,
    say: Callable[[str], None],
) -> None:
    """Follow jobs of a queue to their end; whoever stops following leaves them in the queue.

    Args:
        folder: the run.
        order: what is to be done.
        launcher: knows the jobs.
        jobs: its names for them.
        watch: called a few times a second; tells when every item is settled, as only late tasks are then left.
        say: told when the queue gives no answer, and when it does again.

    Raises:
        IncompleteError: the jobs ended without finishing, or this process was told to stop.
    """
    trouble = ""
    try:
        while not watch.is_over and (states := [state for job in jobs if (state := launcher.poll(job)).running]):
            if states[0].trouble != trouble:
                trouble = states[0].trouble
                say(trouble or "The queue answers again.")
            watch()
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        why = f"no longer followed, but still in the queue: job {', '.join(jobs)}"
        raise incomplete(folder, why, StoppedError) from None
    watch()
    if open_items(folder, order):
        ended = "; ".join(filter(None, (launcher.poll(job).trouble for job in jobs)))
        raise incomplete(folder, f"the queue has no more of its tasks{f' ({ended})' if ended else ''}")
    # Its last item is done, but whoever made it may not have let it go.
    tidy(folder, PATIENCE_S)


def incomplete(folder: RunFolder, why: str, kind: type[IncompleteError] = IncompleteError) -> IncompleteError:
    """Return the error of a run that has not come to its end, with the command that goes on."""
    tally = folder.tally()
    return kind(
        f"{folder.path}: {why}: {tally.done} of {tally.items} items are done.",
        remedy="To go on, run the same command again; finished items are kept.",
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
        then=tuple(Step(step.step, step.options) for step in launch.then),
        # A stored text stands for a secret as ${NAME}, which the shell fills in from the job's environment.
        setup=tuple(line.replace("$${", "${") for line in (document.get("launch") or {}).get("setup") or ()),
        cwd=Path.cwd(),
    )


def _gave_up(folder: RunFolder, cause: Cause) -> IncompleteError:
    return incomplete(folder, f"{cause.error()}\n  The workers ended twice without finishing")


def _follow(folder: RunFolder, order: Order, launcher: Launcher, restart: int, watch: Callable[[], None]) -> State:
    job = launcher.submit(folder, order, restart)
    try:
        while (state := launcher.poll(job)).running:
            watch()
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        launcher.cancel(job)
        tidy(folder)
        raise incomplete(folder, "stopped", StoppedError) from None
    except BaseException:
        launcher.cancel(job)
        raise
    watch()
    return state


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        return {field: leaf for key, inner in value.items() for field, leaf in _flat(inner, f"{path}.{key}").items()}
    return {path.removeprefix("."): value}
