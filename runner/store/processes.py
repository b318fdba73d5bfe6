"""Identity of processes across machines and restarts, so that another process can prove that one is gone."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True)
class ProcessName:
    """Name of a process among all that ever ran on all machines.

    Attributes:
        host: name of the machine.
        boot: which start of which machine, and which process-id namespace; "" where the system does not tell.
        pid: process id.
        started: start time in clock ticks since that boot; "" where the system does not tell.
    """

    host: str
    boot: str
    pid: int
    started: str


def current() -> ProcessName:
    """Name this process."""
    return name_of(os.getpid())


def name_of(pid: int) -> ProcessName:
    """Name the process `pid` of this machine."""
    return ProcessName(platform.node(), _boot(), pid, _start_time(pid) or "")


def is_gone(name: ProcessName) -> bool | None:
    """Tell whether a process has ended: True or False with certainty, None for a process of another machine."""
    if not name.boot or (name.host, name.boot) != (platform.node(), _boot()):
        return None
    return _start_time(name.pid) != name.started


def _boot() -> str:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def _start_time(pid: int) -> str | None:
    """Return the start time of a live process; None for one that is gone or a zombie."""
    try:
        after_name = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if after_name[0] in "ZX" else after_name[19]
