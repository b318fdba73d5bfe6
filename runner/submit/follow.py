"""Order workers, follow them and queued jobs to the end of a run, and leave it tidy."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from genrun.runner.errors import IncompleteError, StoppedError
from genrun.runner.launch.jobs import Cause, find, forget
from genrun.runner.launch.protocol import NOTIFY, Cluster, Launcher, LaunchRequest, State, Step
from genrun.runner.parallel.mesh import MeshRequest, points_of
from genrun.runner.store.environment import current
from genrun.runner.store.files import sync, temporary_name, write_error, write_whole
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.lease import Leases, Owner
from genrun.runner.store.order import Order, incomplete, open_items
from genrun.runner.store.repair import remove_from_run
from genrun.runner.submit.lock import at_work, told
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


POLL_S = 0.25
"""Seconds between two looks at workers: a short run ends without noticeable delay."""

PATIENCE_S = 10.0
"""Seconds to wait for workers that have made the last item and not yet released it."""

PROBE_BYTES = 1 << 16
"""Bytes that are written to detect a full disk: file systems store smaller files in their tables, which have room."""


class RunWatch(Protocol):
    """A progress display that looks at a run at intervals."""

    @property
    def is_over(self) -> bool:
        """True when every item was settled at the last look."""
        ...

    def __call__(self) -> None:
        """Look at the run, and show its progress."""
        ...


def run_to_end(
    folder: RunFolder,
    order: Order,
    launcher: Launcher,
    *,
    watch: Callable[[], None],
    say: Callable[[str], None],
    started: Callable[[], None] = lambda: None,
    restarts: int = 1,
) -> None:
    """Start the workers and follow them; start them once more when ranks died and items are left.

    Args:
        folder: the run.
        order: what to do.
        launcher: how to start workers.
        watch: called a few times a second while they work.
        say: told about restarts, and about others who work on the run.
        started: called once the workers are there for others to see.
        restarts: how often workers that died are started again.

    Raises:
        StoreError: the run folder cannot be written.
        LaunchError: the workers ended without finishing, by an error of their own.
        IncompleteError: the workers were killed again, or this process was told to stop.
    """
    check_writable(folder)
    deaths = 0
    for restart in itertools.count():
        forget(folder, order)
        state = _follow(folder, order, launcher, restart, watch, started)
        left = open_items(folder, order)
        if not left:
            break
        if not state.exit_code:
            # Other workers hold the rest: they make it, or die and leave it to these.
            say(f"{folder.path}: {told(at_work(folder)) or 'another worker'} has the last {len(left)} items.")
            if not await_others(folder, order, watch) and restart >= restarts:
                raise incomplete(folder, "Other workers hold the rest of this run")
            if not open_items(folder, order):
                break
            continue
        cause = find(folder, order, restart, state.exit_code)
        if not cause.is_store:
            # A worker on a full disk cannot even say so.
            check_writable(folder)
        if not cause.is_kill:
            raise cause.error()
        deaths += 1
        if deaths <= restarts:
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
    watch: RunWatch,
    say: Callable[[str], None],
) -> None:
    """Follow jobs of a queue to their end; they stay in the queue when following is interrupted.

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
        while not watch.is_over and (
            states := [state for job in jobs if (state := launcher.poll(folder, job)).running]
        ):
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
        ended = "; ".join(filter(None, (launcher.poll(folder, job).trouble for job in jobs)))
        raise incomplete(folder, f"the queue has no more of its tasks{f' ({ended})' if ended else ''}")
    # Its last item is done, but whoever made it may not have let it go.
    tidy(folder, PATIENCE_S)


def tidy(folder: RunFolder, patience_s: float = 0.0) -> None:
    """Remove leftovers of killed workers, unless others are at work in this run.

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
        remove_from_run(folder)


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


def await_others(folder: RunFolder, order: Order, watch: Callable[[], None]) -> bool:
    """Wait while other workers make items of an order; return whether there were any.

    Raises:
        StoppedError: this process was told to stop; the others go on.
    """
    if not at_work(folder):
        return False
    try:
        while at_work(folder) and open_items(folder, order):
            watch()
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        others = told(at_work(folder)) or "the others"
        raise incomplete(folder, f"no longer followed, but {others} may still be at work", StoppedError) from None
    watch()
    return True


def _gave_up(folder: RunFolder, cause: Cause) -> IncompleteError:
    return incomplete(folder, f"{cause.error()}\n  The workers ended twice without finishing")


def _follow(
    folder: RunFolder,
    order: Order,
    launcher: Launcher,
    restart: int,
    watch: Callable[[], None],
    started: Callable[[], None],
) -> State:
    job = launcher.submit(folder, order, restart)
    started()
    try:
        while (state := launcher.poll(folder, job)).running:
            watch()
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        launcher.cancel(folder, job)
        tidy(folder)
        raise incomplete(folder, "stopped", StoppedError) from None
    except BaseException:
        launcher.cancel(folder, job)
        raise
    watch()
    return state
