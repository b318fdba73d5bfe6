"""Submitting a job: find the run it belongs to, order its missing items, start workers, follow them to the end."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.runner.errors import IncompleteError, MixError
from genrun.runner.launch.cause import Cause, find, forget
from genrun.runner.launch.contract import Launcher, Request, State
from genrun.runner.store.files import sync, temporary_name, write_error, write_whole
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.lease import Leases, Owner
from genrun.runner.store.processes import current
from genrun.runner.store.runs import new_path, point_latest, runs_of
from genrun.runner.work.order import Order

if TYPE_CHECKING:
    from genrun.runner.plan import WorkItem
    from genrun.runner.spec.schema import JobSpec

PIXEL_SECTIONS = ("name", "model", "prompts", "seeds", "sampling", "solver", "matrix")
POLL_S = 0.25
PROBE_BYTES = 1 << 16
SHOWN = 6


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


def request_of(spec: JobSpec, environ: Mapping[str, str]) -> Request:
    """Return what a job asks of its launcher."""
    launch, parallel = spec.launch, spec.parallel
    return Request(launch.processes, parallel.data, parallel.time, launch.threads, launch.setup, environ)


def make_order(
    folder: RunFolder, launcher: Launcher, kind: str, spec: JobSpec, items: Sequence[str] | None = None
) -> Order:
    """Say what a launch is to do. Attempts made before it do not count."""
    records = folder.records()
    return Order(
        job=f"{kind}-{time.strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(2)}",
        data=launcher.mesh.data,
        time=launcher.mesh.time,
        threads=spec.launch.threads,
        max_attempts=spec.launch.max_attempts,
        items=None if items is None else tuple(items),
        spent={item_id: record.attempt for item_id, record in records.items() if record.status == "failed"},
        launcher=current() if launcher.follows else None,
    )


def tidy(folder: RunFolder) -> None:
    """Remove what killed workers left behind, unless somebody works in this run.

    Raises:
        StoreError: the run cannot be written.
    """
    if Leases(folder, Owner(current(), "tidy")).sweep():
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


def open_items(folder: RunFolder, order: Order) -> list[str]:
    """Return the ids of the items that the order still has to make."""
    wanted = [item.id for item in folder.items()] if order.items is None else order.items
    records = folder.records()
    return [item_id for item_id in wanted if not order.is_settled(item_id, records.get(item_id))]


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


def incomplete(folder: RunFolder, why: str) -> IncompleteError:
    """Return the error of a run that has not come to its end, with the command that goes on."""
    tally = folder.tally()
    return IncompleteError(
        f"{folder.path}: {why}: {tally.done} of {tally.items} items are done.",
        remedy="To go on, run the same command again; finished items are kept.",
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
        raise incomplete(folder, "stopped") from None
    except BaseException:
        launcher.cancel(job)
        raise
    watch()
    return state


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        return {field: leaf for key, inner in value.items() for field, leaf in _flat(inner, f"{path}.{key}").items()}
    return {path.removeprefix("."): value}
