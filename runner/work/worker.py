"""A worker process: `python -m genrun.runner.work.worker RUN --job ID`, alone or as one of torchrun's or Slurm's ranks.

It takes items from the run folder until none is left, and writes a record for each. Exit codes: 0 nothing is left to
do, 3 stopped before that, 1 it could not go on (the reason is in `rank-N.error.json` beside its log).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.runner.errors import StoreError
from genrun.runner.store.environment import versions
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.lease import Leases, Owner
from genrun.runner.store.processes import ProcessName, current, is_gone
from genrun.runner.work.make import Maker, Producer, wants_latents
from genrun.runner.work.order import STOPPED, Order, Report, rank_log
from genrun.runner.work.queue import Claim, Queue
from genrun.runner.work.team import Team, join

if TYPE_CHECKING:
    from genrun.runner.plan import WorkItem

GRACE_S = 20.0

_ATTEMPT = re.compile(r"\d\d:\d\d:\d\d ([0-9a-f]{20}): attempt \d+$")

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
        stale_s: silence after which another machine's lease may be taken over, in seconds.
    """

    folder: RunFolder
    order: Order
    rank: int = 0
    local_rank: int = 0
    restart: int = 0
    stale_s: float = 120.0

    @property
    def job(self) -> str:
        """The launch's id and restart count."""
        return f"{self.order.job}.{self.restart}"

    def run(self, make_producer: MakeProducer) -> None:
        """Make items until none is left for this rank.

        Raises:
            StoreError: the run folder cannot be read or written.
        """
        items = self.folder.items()
        document = self.folder.job_document()
        team = join(self.rank, self.order.ranks, self.order.time)
        try:
            maker = Maker(
                self.folder,
                make_producer(document, team, self.local_rank),
                team,
                self.job,
                self.folder.relative(rank_log(self.folder, self.order.job, self.rank)),
                wants_latents(document),
                versions(),
            )
            self._work(maker, items)
        finally:
            team.close()

    def _work(self, maker: Maker, items: Sequence[WorkItem]) -> None:
        leases = Leases(self.folder, Owner(current(), self.job, self.rank), self.stale_s)
        queue = Queue(leases, self.order, items)
        by_id = {item.id: item for item in items}
        model: dict[str, Any] | None = None
        while True:
            claim = queue.next(model) if maker.team.leads else None
            try:
                shared = maker.team.share(claim and (claim.item.id, claim.attempt))
                if shared is None:
                    return
                item, attempt = by_id[shared[0]], shared[1]
                model = item.model
                self._make(maker, item, attempt, claim)
            finally:
                if claim is not None:
                    claim.lease.release()

    def _make(self, maker: Maker, item: WorkItem, attempt: int, claim: Claim | None) -> None:
        if claim is not None:
            for left_over in self.folder.temporary_files(item.id):
                left_over.unlink(missing_ok=True)
        _say(f"{item.id}: attempt {attempt}")
        progress = Progress(self.folder.progress_path(item.id))
        try:
            record = maker.make(item, attempt, progress.tell if claim is not None else _ignore)
        finally:
            progress.close()
        if record is not None:
            outcome = "done" if record.error is None else f"failed: {record.error['kind']}"
            _say(f"{item.id}: {outcome} in {record.elapsed_s:.3f} s")


class Progress:
    """How far the item in work is, in a small file that is only for show: written at most once a second."""

    def __init__(self, path: Path, interval_s: float = 1.0) -> None:
        self._path = path
        self._interval_s = interval_s
        self._told = float("-inf")

    def tell(self, front: int, num_steps: int) -> None:
        """Note that `front` of `num_steps` states are final."""
        if time.monotonic() - self._told >= self._interval_s:
            self._told = time.monotonic()
            with contextlib.suppress(OSError):
                self._path.write_text(json.dumps([front, num_steps]))

    def close(self) -> None:
        """Remove the file."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def main(
    argv: Sequence[str] | None = None,
    make_producer: MakeProducer | None = None,
    environ: Mapping[str, str] = os.environ,
) -> int:
    """Run one worker, and return its exit code.

    Args:
        argv: command line without the program's name.
        make_producer: what samples; default: `genrun.runner.work.engine.Engine`.
        environ: where torchrun or Slurm say which rank this is: RANK, LOCAL_RANK.
    """
    args = _parser().parse_args(argv)
    folder = RunFolder.open(args.run)
    order = Order.load(folder, args.job)
    rank = int(environ.get("RANK", 0))
    member = Rank(folder, order, rank, int(environ.get("LOCAL_RANK", 0)), args.restart, args.stale)
    log = rank_log(folder, order.job, rank)
    _write_to(log)
    _watch(order.launcher)
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    try:
        member.run(make_producer or _engine)
    except KeyboardInterrupt:
        _say(f"rank {rank}: stopped")
        return STOPPED
    except Exception as error:
        traceback.print_exception(error)
        _report(log.with_suffix(".error.json"), rank, error)
        return 1
    return 0


def section_of(lines: Sequence[str], item_id: str) -> list[str]:
    """Return the lines of a worker's log that are about one item: from each attempt to the next item."""
    section: list[str] = []
    is_inside = False
    for line in lines:
        begins = _ATTEMPT.match(line)
        is_inside = begins[1] == item_id if begins else is_inside
        if is_inside:
            section.append(line)
    return section


def _engine(document: Mapping[str, Any], team: Team, local_rank: int) -> Producer:
    from genrun.runner.work.engine import Engine

    return Engine(document, team, local_rank)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m genrun.runner.work.worker", description=__doc__)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--job", required=True, help="the launch, whose order lies in the run's logs")
    parser.add_argument("--restart", type=int, default=0, help="how often the launch was restarted")
    parser.add_argument("--stale", type=float, default=120.0, help="seconds until a silent lease is free")
    return parser


def _write_to(log: Path) -> None:
    """Send all output of this process to its log, also that of libraries that are not Python."""
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
        _say(f"{path}: {unwritten}")


def _ignore(front: int, num_steps: int) -> None:
    """Followers show nothing."""


def _say(text: str) -> None:
    try:
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)
    except OSError:
        return


if __name__ == "__main__":
    sys.exit(main())
