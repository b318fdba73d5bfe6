"""A worker process: `python -m genrun.runner.worker.main RUN --job ID`, alone or as one of torchrun's or Slurm's ranks.

It makes items of the run until none is left (`loop.py`), and writes a record for each. Exit codes: 0 nothing is left to
do, 3 stopped before that, 1 it could not go on (the reason is in `rank-N.error.json` beside its log).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from genrun.adapters.parallel.slot import BrokenSlotError
from genrun.runner.errors import StoreError
from genrun.runner.job.plan import WorkItem
from genrun.runner.parallel.team import Team, join
from genrun.runner.store.environment import ProcessName, current, is_gone, versions
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.lease import STALE_S, Leases, Owner
from genrun.runner.store.order import STOPPED, ActivityFile, Order, RankError, activity_path, rank_log
from genrun.runner.store.planfile import wants_latents, written_with
from genrun.runner.worker.finish import has_dropped_work
from genrun.runner.worker.loop import FailureBudget, Loop
from genrun.runner.worker.producer import Producer
from genrun.runner.worker.queue import Queue
from genrun.runner.worker.rank import choose_device, say
from genrun.runner.worker.sample import ItemSampler

GRACE_S = 20.0
"""Seconds from the end of this process's launcher to its own: twice what background work is waited for."""

WATCH_INTERVAL_S = 1.0
"""Seconds between two looks for the launcher: reading one file of /proc costs nothing compared to an item."""

MakeProducer = Callable[[Mapping[str, Any], Team, int], Producer]
"""Build a producer from the resolved job, the team and the rank's number on its machine."""


@dataclass(frozen=True)
class Rank:
    """A worker among the ranks of a launch.

    Attributes:
        folder: the run.
        order: of the launch.
        rank: 0..ranks - 1.
        local_rank: the rank on this machine, which chooses the device.
        restart: how often the launch was restarted.
        task: the rank's task in the launch's array, or None when there is no array.
        give_up: limit of the failure budget: failures, without a success, that end this worker; 0 for no limit.
        stale_s: silence after which another machine's lease may be taken over, in seconds.
    """

    folder: RunFolder
    order: Order
    rank: int = 0
    local_rank: int = 0
    restart: int = 0
    task: int | None = None
    give_up: int = 0
    stale_s: float = STALE_S

    @property
    def job(self) -> str:
        """The launch's id, its task if it has tasks, and the restart count."""
        return ".".join(str(part) for part in (self.order.job, self.task, self.restart) if part is not None)

    @property
    def log(self) -> Path:
        """The rank's log."""
        return rank_log(self.folder, self.order.job, self.rank, self.task)

    def run(self, make_producer: MakeProducer) -> None:
        """Make items until none is left for this rank.

        Raises:
            StoreError: the run folder cannot be read or written.
            BrokenSlotError: sampling failed here alone, and other ranks wait for this one.
            BrokenError: every item failed here.
        """
        leases = Leases(self.folder, Owner(current(), self.job, self.rank), self.stale_s)
        items = self.folder.items()
        queue = Queue(leases, self.order, items)
        # A task whose turn came late need not load anything. A time group cannot be sure to agree on that.
        if not (self._is_alone and queue.is_empty):
            self._make(items, queue, make_producer)
        # A worker that was killed after its record and before its lease was gone held an item that nobody comes for.
        leases.sweep()

    def _make(self, items: Sequence[WorkItem], queue: Queue, make_producer: MakeProducer) -> None:
        document, mesh = self.folder.job_document(), self.order.mesh
        team = join(self.rank, mesh, self._device(document), elastic=self.order.elastic, backend=self.order.backend)
        try:
            producer = make_producer(document, team, self.local_rank)
            producer.begin(self.folder, items)
            sampler = ItemSampler(
                self.folder,
                producer,
                team,
                self.job,
                self.folder.relative(self.log),
                wants_latents(document),
                versions(),
                written_with(document),
                frozenset(self.order.decoded),
            )
            activity = ActivityFile(activity_path(self.log), self.rank, lambda: producer.memory.now_bytes)
            by_id = {item.id: item for item in items}
            Loop(sampler, queue, by_id, mesh, FailureBudget(self.give_up), activity).run()
        finally:
            team.close()

    @property
    def _is_alone(self) -> bool:
        return self.order.mesh.ranks_per_team == 1 and not self.order.elastic

    def _device(self, document: Mapping[str, Any]) -> str:
        """Return the torch device on which outputs are gathered; a rank alone gathers none, and needs no torch to say so."""
        if self._is_alone:
            return "cpu"
        return choose_device((document.get("model") or {}).get("device") or "auto", self.local_rank)


def main(
    argv: Sequence[str] | None = None,
    make_producer: MakeProducer | None = None,
    environ: Mapping[str, str] = os.environ,
) -> int:
    """Run one worker, and return its exit code.

    Args:
        argv: command line without the program's name.
        make_producer: makes what samples; default: `genrun.runner.worker.engine.Engine`.
        environ: variables in which torchrun or Slurm give the rank.
    """
    args = _parser().parse_args(argv)
    folder = RunFolder.open(args.run)
    order = Order.load(folder, args.job)
    ranks = ranks_of(environ, is_task=args.task is not None)
    rank = Rank(folder, order, *ranks, args.restart, args.task, args.give_up, args.stale)
    # Bars are made of carriage returns, and a log is no terminal; set before tqdm is imported, which reads it then.
    os.environ.setdefault("TQDM_DISABLE", "1")
    _redirect_output(rank.log)
    _watch(order.launcher)
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    code = _run(rank, make_producer or _engine)
    if has_dropped_work():
        os._exit(code)
    return code


def _run(rank: Rank, make_producer: MakeProducer) -> int:
    """Make items, and return the exit code."""
    try:
        rank.run(make_producer)
    except KeyboardInterrupt:
        say(f"rank {rank.rank}: stopped")
        # torchrun makes one exit code of all; whoever started this tells by these files that nothing broke.
        with contextlib.suppress(OSError):
            rank.log.with_suffix(".stopped").touch()
        return STOPPED
    except BrokenSlotError as error:
        # Like a rank that was killed: whoever started this ends the others, and starts all of them again.
        say(f"rank {rank.rank}: {error}")
        return STOPPED
    except Exception as error:
        traceback.print_exception(error)
        _report(rank.log.with_suffix(".error.json"), rank.rank, error)
        return 1
    return 0


def ranks_of(environ: Mapping[str, str], *, is_task: bool) -> tuple[int, int]:
    """Return a process's rank and its rank on its machine: torchrun's, or in a task that has none Slurm's own."""
    names = ("RANK", "LOCAL_RANK") if "RANK" in environ or not is_task else ("SLURM_PROCID", "SLURM_LOCALID")
    return int(environ.get(names[0], 0)), int(environ.get(names[1], 0))


def _engine(document: Mapping[str, Any], team: Team, local_rank: int) -> Producer:
    from genrun.runner.worker.engine import Engine

    return Engine(document, team, local_rank)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m genrun.runner.worker.main", description=__doc__)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--job", required=True, help="the launch, whose order lies in the run's logs")
    parser.add_argument("--restart", type=int, default=0, help="how often the launch was restarted")
    parser.add_argument("--task", type=int, help="the task of the launch's array")
    parser.add_argument("--give-up", type=int, default=0, help="failures that end a worker without a success")
    parser.add_argument("--stale", type=float, default=STALE_S, help="seconds until a silent lease is free")
    return parser


def _redirect_output(log: Path) -> None:
    """Send all output of this process to its log, also that of libraries that are not Python."""
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)


def _watch(launcher: ProcessName | None) -> None:
    """Stop this process when its parent or its launcher is gone, so that no rank outlives a kill -9 of either."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent and not (launcher and is_gone(launcher)):
            time.sleep(WATCH_INTERVAL_S)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_S)
        os._exit(STOPPED)

    threading.Thread(target=watch, name="watch", daemon=True).start()


def _stop(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _report(path: Path, rank: int, error: Exception) -> None:
    """Leave the reason of this rank's end for the launcher."""
    report = RankError(time.time(), rank, type(error).__name__, str(error), isinstance(error, StoreError))
    try:
        # Where the disk is full the launcher finds out by itself.
        path.write_text(json.dumps(asdict(report)))
    except OSError as unwritten:
        say(f"{path}: {unwritten}")


if __name__ == "__main__":
    sys.exit(main())
