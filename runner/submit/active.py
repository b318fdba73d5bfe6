"""Active workers of a run: commands that follow workers on this machine, workers that hold items anywhere, queued jobs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from genrun.runner.errors import StoreError
from genrun.runner.launch.jobs import queues_of
from genrun.runner.store.lease import holdings, looks_alive
from genrun.runner.store.order import Order, open_items
from genrun.runner.store.processes import ProcessName, current, is_gone

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder

SHOWN = 3
"""Processes that a message names."""


def at_work(folder: RunFolder) -> list[ProcessName]:
    """Return the processes at work on a run, except this one: a launch's command, or workers whose launch has none."""
    launches = dict(_launches(folder))
    now = time.time_ns()
    owners = [holding.owner for holding in holdings(folder).values() if looks_alive(holding, now)]
    others = [owner for owner in owners if owner is not None and owner.job.partition(".")[0] not in launches]
    found = [*launches.values(), *(owner.process for owner in others)]
    return [process for process in dict.fromkeys(found) if process != current()]


def is_at_work(folder: RunFolder, environ: Mapping[str, str]) -> bool:
    """Tell whether a worker holds an item of a run, or a job of it waits or works in a queue."""
    # While a queue gives no answer, a run that was ever in it may still be.
    return bool(at_work(folder)) or any(queue.live_jobs or queue.trouble for queue in queues_of(folder, environ))


def told(processes: Sequence[ProcessName]) -> str:
    """Name processes: "process 1234 on node7"."""
    names = [f"process {process.pid} on {process.host}" for process in processes[:SHOWN]]
    return ", ".join(names) + (f" and {len(processes) - SHOWN} more" if len(processes) > SHOWN else "")


def _launches(folder: RunFolder) -> Iterator[tuple[str, ProcessName]]:
    """Yield the launches with work left that a process of this machine follows."""
    for path in folder.logs.glob("*/order.json"):
        with contextlib.suppress(StoreError, TypeError, KeyError):
            order = Order.load(folder, path.parent.name)
            if order.launcher is not None and is_gone(order.launcher) is False and open_items(folder, order):
                yield order.job, order.launcher
