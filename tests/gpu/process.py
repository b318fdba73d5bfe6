"""A check in a process of its own: it may crash, hang or spoil the device, and what it found until then is kept.

The process is forked from one that has imported torch and not started CUDA, so that a check begins at once, and afresh.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import torch

from tests.gpu.contract import CheckFinding, GpuCheck, NotHereError, Status
from tests.gpu.machine import Machine

END, NOT_HERE = "end", "not here: "
PATIENCE_S = 10.0


@dataclass(frozen=True)
class Result:
    """What came of a check.

    Attributes:
        name: of the check.
        status: how it ended.
        seconds: that it took.
        findings: in order.
        error: why it ended early, or "".
    """

    name: str
    status: Status
    seconds: float
    findings: tuple[CheckFinding, ...] = ()
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)


def run(check: GpuCheck, machine: Machine, left_s: float) -> Result:
    """Run a check for its budget, or for as long as is left of the whole."""
    if left_s <= 0:
        return Result(check.name, "not run: out of time", 0.0)
    started = time.monotonic()
    # A process in which the import of some package has started CUDA cannot be forked; a new one has to import all again.
    context: Any = multiprocessing.get_context("spawn" if torch.cuda.is_initialized() else "fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(check, machine, theirs))
    process.start()
    theirs.close()
    findings: list[CheckFinding] = []
    error, ended = _listen(ours, findings, started + min(check.budget_s, left_s))
    if ended:
        process.join(PATIENCE_S)
    _end(process)
    seconds = time.monotonic() - started
    if not ended:
        return Result(check.name, "out of time", seconds, tuple(findings), f"ended after {seconds:.0f} s")
    if error is None:
        error = f"its process ended with {process.exitcode}"
    if error.startswith(NOT_HERE):
        return Result(check.name, "not here", seconds, tuple(findings), error.removeprefix(NOT_HERE))
    failed = bool(error) or any(finding.holds is False for finding in findings)
    return Result(check.name, "failed" if failed else "passed", seconds, tuple(findings), error)


def _listen(pipe: Connection, findings: list[CheckFinding], end: float) -> tuple[str | None, bool]:
    """Take findings until the check ends; return its error, None where it died without a word, and whether it ended."""
    while pipe.poll(max(0.0, end - time.monotonic())):
        try:
            message = pipe.recv()
        except EOFError:
            return None, True
        if message[0] == END:
            return message[1], True
        findings.append(CheckFinding(**message[1]))
    return None, False


def _end(process: Any) -> None:
    """End a check with all the processes that it has started."""
    process.kill()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # A process may be stuck in the driver: the others go on without it.
    process.join(PATIENCE_S)


def _finite(finding: CheckFinding) -> CheckFinding:
    """Return a finding, with NaN and infinity in it as an error: they are no JSON, and never what is wanted."""
    try:
        json.dumps(finding.value, allow_nan=False)
    except ValueError:
        return replace(finding, value=None, holds=False, error=f"not finite: {finding.value}")
    return finding


def _run(check: GpuCheck, machine: Machine, pipe: Connection) -> None:
    os.setsid()
    log = os.open(machine.out / f"{check.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    error = ""
    try:
        for finding in check.run(machine):
            pipe.send(("finding", asdict(_finite(finding))))
    except NotHereError as missing:
        error = f"{NOT_HERE}{missing}"
    except BaseException as caught:
        traceback.print_exception(caught)
        error = f"{type(caught).__name__}: {caught}"[:1000]
    pipe.send((END, error))
    sys.stdout.flush()
    # Not by way of destructors: a CUDA context in a bad state may wait there for ever.
    os._exit(0)
