"""How much memory a rank holds: of its device, or of the machine where it has none."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Usage:
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
        """What a record says: the peak on a device; on the CPU what is held now, as there is but one peak in a life."""
        return self.peak_bytes if self.is_device else self.now_bytes

    def __str__(self) -> str:
        what = "device memory" if self.is_device else "memory"
        return f"{what} {self.now_bytes / GIB:.2f} GiB, peak {self.peak_bytes / GIB:.2f} GiB"


def usage(device: str) -> Usage:
    """What this process holds now, and held at most."""
    if device.startswith("cuda"):
        import torch

        return Usage(torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device), True)
    import psutil

    # macOS counts in bytes, others in KiB.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    now = psutil.Process().memory_info().rss
    return Usage(now, max(now, peak), False)


def reset_peak(device: str) -> None:
    """Begin to look for a new peak; on the CPU the kernel keeps the first."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
