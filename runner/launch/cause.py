"""Cause of a launch that ended early: the first error among its ranks, and the log that tells more."""

from __future__ import annotations

import json
import re
import signal
from dataclasses import dataclass
from pathlib import Path

from genrun.runner.errors import LaunchError, RunError, StoreError
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.order import STOPPED, Order, RankError, log_folder, rank_log

TAIL_LINES = 6
"""Lines of a log in a message: the end of a traceback, and the error."""

_ROOT_CAUSE = re.compile(r"Root Cause.*?rank\s*:\s*(\d+).*?exitcode\s*:\s*(-?\d+)", re.DOTALL)


@dataclass(frozen=True)
class Cause:
    """Cause of a launch that ended early.

    Attributes:
        message: what happened, one line.
        rank: the rank on which it happened first, or None when the launcher itself failed.
        log: where to read on.
        is_store: whether the run folder could not be read or written.
        is_kill: whether a process was killed or stopped from outside, so that starting again may help.
    """

    message: str
    rank: int | None
    log: Path
    is_store: bool = False
    is_kill: bool = False

    def error(self) -> RunError:
        """Return it as an exception, with the end of the log."""
        where = "the launcher" if self.rank is None else f"rank {self.rank}"
        text = f"{where}: {self.message}"
        if self.is_store:
            return StoreError(text)
        tail = "".join(f"\n    {line}" for line in _tail(self.log))
        return LaunchError(f"{text}\n  End of {self.log}:{tail}")


def find(folder: RunFolder, order: Order, restart: int, exit_code: int | None) -> Cause:
    """Find the cause: torchrun's word on a killed rank, a rank's own report, or the child's exit code."""
    own = log_folder(folder, order.job) / f"launch-{restart}.log"
    told = _ROOT_CAUSE.findall(_text(own))
    rank, code = (int(told[-1][0]), int(told[-1][1])) if told else (None, exit_code or 0)
    if code < 0:
        return Cause(explain(code), rank, _log(folder, order, rank, own), is_kill=True)
    reports = [_read(path) for path in log_folder(folder, order.job).glob("rank-*.error.json")]
    if reports:
        return _reported(folder, order, min(reports, key=lambda report: report.time))
    return Cause(explain(code), rank, _log(folder, order, rank, own), is_kill=code == STOPPED)


def forget(folder: RunFolder, order: Order) -> None:
    """Remove the reports of an earlier start of this launch."""
    for report in log_folder(folder, order.job).glob("rank-*.error.json"):
        report.unlink(missing_ok=True)


def explain(exit_code: int) -> str:
    """Say what an exit code of a process means."""
    if exit_code == -signal.SIGKILL:
        return "killed by signal 9 (SIGKILL); the system does that when memory runs out"
    if exit_code < 0:
        return f"killed by signal {-exit_code} ({signal.Signals(-exit_code).name})"
    return f"ended with exit code {exit_code}"


def _reported(folder: RunFolder, order: Order, report: RankError) -> Cause:
    message = report.message if report.is_store else f"{report.kind}: {report.message}"
    return Cause(message, report.rank, rank_log(folder, order.job, report.rank), report.is_store)


def _log(folder: RunFolder, order: Order, rank: int | None, own: Path) -> Path:
    """Return the log of a rank if it wrote one; else the launcher's own if it wrote one; else rank 0's."""
    log = rank_log(folder, order.job, rank or 0)
    return log if log.exists() and (rank is not None or not _text(own)) else own


def _read(path: Path) -> RankError:
    try:
        return RankError(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return RankError(float("inf"), int(path.name.split("-")[1].split(".")[0]), "Error", "see the log", False)


def _tail(path: Path) -> list[str]:
    return _text(path).rstrip().splitlines()[-TAIL_LINES:]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
