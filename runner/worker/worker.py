"""A worker process: `python -m genrun.runner.worker.worker RUN --job ID`, alone or as one of torchrun's or Slurm's ranks.

It takes items from the run folder until none is left, and writes a record for each. Exit codes: 0 nothing is left to
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
from typing import TYPE_CHECKING, Any

from genrun.adapters.parallel.alarm import BrokenSlotError
from genrun.runner.errors import StoreError
from genrun.runner.parallel.elastic import ElasticTeam
from genrun.runner.parallel.tail import points_of
from genrun.runner.parallel.team import Team, join
from genrun.runner.store.environment import versions
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.lease import STALE_S, Leases, Owner
from genrun.runner.store.order import STOPPED, Order, Report, rank_log
from genrun.runner.store.processes import ProcessName, current, is_gone
from genrun.runner.worker.beside import Beside, is_lingering
from genrun.runner.worker.log import say
from genrun.runner.worker.luck import Luck
from genrun.runner.worker.queue import Queue
from genrun.runner.worker.sample import Maker, Producer, wants_latents
from genrun.runner.worker.shift import Shift
from genrun.runner.worker.station import Station
from genrun.runner.worker.written import written_with

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem

GRACE_S = 20.0

MakeProducer = Callable[[Mapping[str, Any], Team, int], Producer]
"""Build a producer from the resolved job, the team and the rank's number on its machine."""


@dataclass(frozen=True)
class Rank:
    """One worker among the ranks of a launch.

    Attributes:
        folder: the run.
        order: what is to be done.
        rank: 0..ranks - 1.
        local_rank: the rank on this machine, which chooses the device.
        restart: how often the launch was restarted.
        task: the rank's task in the launch's array, or None when there is no array.
        give_up: failures in a row, without one success, after which the worker itself is taken for broken; 0 for never.
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
            BrokenError: every item failed here.
        """
        self._run(make_producer)
        # A worker that was killed after its record and before its lease was gone held an item that nobody comes for.
        self._leases().sweep()

    def _run(self, make_producer: MakeProducer) -> None:
        items = self.folder.items()
        alone = self.order.mesh.team == 1 and not self.order.elastic
        if alone and self._queue(items).is_empty():
            # A task whose turn came late need not load anything. A time group cannot be sure to agree on that.
            return
        document = self.folder.job_document()
        team = join(self.rank, self.order.mesh, self.local_rank, elastic=self.order.elastic, backend=self.order.backend)
        try:
            producer = make_producer(document, team, self.local_rank)
            producer.begin(self.folder, items)
            maker = Maker(
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
            self._work(maker, items)
        finally:
            team.close()

    def _work(self, maker: Maker, items: Sequence[WorkItem]) -> None:
        by_id, luck = {item.id: item for item in items}, Luck(self.give_up)
        with Beside() as beside:
            make = Station(maker, beside, luck).make
            shift = Shift(self.order.mesh, make, beside, maker.team, self._queue(items), by_id, luck)
            if isinstance(maker.team, ElasticTeam):
                shift.work_apart(maker.team)
                luck.check()
                shift.work_together(maker.team)
            else:
                shift.work()
        luck.check()

    def _queue(self, items: Sequence[WorkItem]) -> Queue:
        # What only one rank can work on comes first, so that at the end the groups of an elastic launch can share.
        precedence = points_of if self.order.elastic else _alike
        return Queue(self._leases(), self.order, items, precedence=precedence)

    def _leases(self) -> Leases:
        return Leases(self.folder, Owner(current(), self.job, self.rank), self.stale_s)


def main(
    argv: Sequence[str] | None = None,
    make_producer: MakeProducer | None = None,
    environ: Mapping[str, str] = os.environ,
) -> int:
    """Run one worker, and return its exit code.

    Args:
        argv: command line without the program's name.
        make_producer: what samples; default: `genrun.runner.worker.engine.Engine`.
        environ: where torchrun or Slurm say which rank this is.
    """
    args = _parser().parse_args(argv)
    folder = RunFolder.open(args.run)
    order = Order.load(folder, args.job)
    rank, local_rank = ranks_of(environ, is_task=args.task is not None)
    member = Rank(folder, order, rank, local_rank, args.restart, args.task, args.give_up, args.stale)
    _write_to(member.log)
    _watch(order.launcher)
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    code = _run(member, make_producer or _engine)
    if is_lingering():
        os._exit(code)
    return code


def _run(member: Rank, make_producer: MakeProducer) -> int:
    """Work, and return the exit code."""
    rank, log = member.rank, member.log
    try:
        member.run(make_producer)
    except KeyboardInterrupt:
        say(f"rank {rank}: stopped")
        # torchrun makes one exit code of all; whoever started this tells by these files that nothing broke.
        with contextlib.suppress(OSError):
            log.with_suffix(".stopped").touch()
        return STOPPED
    except BrokenSlotError as error:
        # Like a rank that was killed: whoever started this ends the others, and starts all of them again.
        say(f"rank {rank}: {error}")
        return STOPPED
    except Exception as error:
        traceback.print_exception(error)
        _report(log.with_suffix(".error.json"), rank, error)
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
    parser = argparse.ArgumentParser(prog="python -m genrun.runner.worker.worker", description=__doc__)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--job", required=True, help="the launch, whose order lies in the run's logs")
    parser.add_argument("--restart", type=int, default=0, help="how often the launch was restarted")
    parser.add_argument("--task", type=int, help="the task of the launch's array")
    parser.add_argument("--give-up", type=int, default=0, help="failures in a row that end a worker without a success")
    parser.add_argument("--stale", type=float, default=STALE_S, help="seconds until a silent lease is free")
    return parser


def _write_to(log: Path) -> None:
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
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_S)
        os._exit(STOPPED)

    threading.Thread(target=watch, name="watch", daemon=True).start()


def _stop(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _report(path: Path, rank: int, error: Exception) -> None:
    """Leave the reason of this rank's end for the launcher; where the disk is full it finds out by itself."""
    report = Report(time.time(), rank, type(error).__name__, str(error), isinstance(error, StoreError))
    try:
        path.write_text(json.dumps(asdict(report)))
    except OSError as unwritten:
        say(f"{path}: {unwritten}")


def _alike(item: WorkItem) -> int:
    """Items in the order of the plan."""
    del item
    return 0


if __name__ == "__main__":
    sys.exit(main())
