"""Faults that a fake worker meets: one file each in a folder, used up by the first who comes to its moment."""

import errno
import json
import os
import signal
import uuid
from pathlib import Path

FOLDER = "GENRUN_TEST_FAULTS"
BAD_NODE = "GENRUN_TEST_BAD_NODE"
"""A node of Slurm and a moment, "node1 starting", at which everything fails there."""


def put(folder: Path, moment: str, *, victim: str = "self", times: int = 1, item: str = "") -> None:
    """Place a fault: `victim` (self, launcher, agent: kill -9; else the kind of an error) at a moment."""
    folder.mkdir(exist_ok=True)
    for _ in range(times):
        fault = {"moment": moment, "victim": victim, "item": item}
        written = folder / uuid.uuid4().hex
        written.write_text(json.dumps(fault))
        written.rename(written.with_suffix(".json"))  # whole for workers that look at this moment


def meet(moment: str, launcher: int | None = None, item: str = "") -> None:
    """Suffer the next fault of this moment, if there is one."""
    if os.environ.get(BAD_NODE) == f"{os.environ.get('SLURMD_NODENAME')} {moment}":
        suffer("error", launcher)
    folder = os.environ.get(FOLDER)
    for path in sorted(Path(folder).glob("*.json")) if folder else ():
        try:
            fault = json.loads(path.read_text())
            if fault["moment"] != moment or fault["item"] not in ("", item):
                continue
            path.rename(path.with_suffix(".used"))
        except FileNotFoundError:  # somebody else met it, perhaps this worker's other thread
            continue
        suffer(fault["victim"], launcher)
        return


def suffer(victim: str, launcher: int | None) -> None:
    if victim == "self":
        os.kill(os.getpid(), signal.SIGKILL)
    if victim == "agent":
        os.kill(os.getppid(), signal.SIGKILL)
    elif victim == "launcher" and launcher:
        os.kill(launcher, signal.SIGKILL)
    elif victim == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    elif victim == "memory":
        raise MemoryError("tried to allocate 80.00 GiB")
    elif victim == "error":
        raise RuntimeError("the model\nbroke")
