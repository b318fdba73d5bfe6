"""A rank: its device, the memory that it holds of it, and its log."""

from __future__ import annotations

import gc
import re
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class MemoryUsage:
    """Memory of one rank.

    Attributes:
        now_bytes: held at this moment.
        peak_bytes: the most since the last reset on a device; on the CPU the most since the process began.
        is_device: whether it is a device's memory, or the resident memory of the process.
    """

    now_bytes: int
    peak_bytes: int
    is_device: bool

    @property
    def recorded_bytes(self) -> int:
        """The number for a record: the peak on a device, the present use on the CPU."""
        # A process has a single peak in its life, which says nothing of an item.
        return self.peak_bytes if self.is_device else self.now_bytes

    def __str__(self) -> str:
        what = "device memory" if self.is_device else "memory"
        return f"{what} {self.now_bytes / GIB:.2f} GiB, peak {self.peak_bytes / GIB:.2f} GiB"


def choose_device(wanted: str, local_rank: int = 0) -> str:
    """Return the torch device for "auto", "cpu" or "cuda": ranks of a machine share its GPUs in turn."""
    import torch

    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return "cpu"
    return f"cuda:{local_rank % max(1, torch.cuda.device_count())}"


def memory_usage(device: str) -> MemoryUsage:
    """Return the memory that this process holds now, and its peak."""
    if device.startswith("cuda"):
        import torch

        return MemoryUsage(torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device), True)
    import psutil

    # macOS counts in bytes, others in KiB.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    now = psutil.Process().memory_info().rss
    return MemoryUsage(now, max(now, peak), False)


def reset_peak_memory(device: str) -> None:
    """Reset the peak of a device; do nothing on the CPU, where the kernel keeps one for the whole process."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)


def release_memory(device: str) -> None:
    """Free memory that is no longer referenced."""
    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()


PROGRESS_INTERVAL_S = 10.0
"""Seconds between two lines about an item in work: an item of an hour fills a few hundred lines."""

_ABOUT = re.compile(r"\d\d:\d\d:\d\d ([0-9a-f]{20}): ")


def say(text: str) -> None:
    """Write to the log, in one piece."""
    try:
        print(f"{time.strftime('%H:%M:%S')} {text}\n", end="", flush=True)
    except OSError:
        # A full disk shows where something has to be kept; a log is no reason to fail an item.
        return


def section_of(lines: Sequence[str], item_id: str) -> list[str]:
    """Return the lines of a rank's log that are about one item: those that name it, each with what follows it."""
    section: list[str] = []
    is_inside = False
    for line in lines:
        names = _ABOUT.match(line)
        is_inside = names[1] == item_id if names else is_inside
        if is_inside:
            section.append(line)
    return section


class ProgressLines:
    """Lines about the item in work now and then, with the memory that the rank holds.

    Args:
        item_id: the item in work.
        memory: says what the rank holds.
        interval_s: how often a line is written at most, in seconds.
    """

    def __init__(self, item_id: str, memory: Callable[[], object], interval_s: float = PROGRESS_INTERVAL_S) -> None:
        self._item_id, self._memory, self._interval_s = item_id, memory, interval_s
        self._written_at = time.monotonic()
        self._rounds = 0
        self._steps = ""

    def update(self, front: int, num_steps: int) -> None:
        """Note that `front` of `num_steps` states are final after one more round."""
        self._rounds += 1
        self._steps = f"{front}/{num_steps} steps, {self._rounds} rounds, "
        if time.monotonic() - self._written_at >= self._interval_s:
            self._written_at = time.monotonic()
            self._write()

    def close(self) -> None:
        """Write the item's last line."""
        self._write()

    def _write(self) -> None:
        say(f"{self._item_id}: {self._steps}{self._memory()}")
