"""The device of a rank: its choice, and the memory that the rank holds of it."""

from __future__ import annotations

import gc
import resource
import sys
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
