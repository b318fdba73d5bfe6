"""The machine that checks run on: a GPU with its own clock and meter, or the CPU with a simulated clock in their place."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from genrun.runner.store.environment import gpu_names, versions

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
SIMULATED_SPEED = 1e9
"""Multiplications a second of the simulated clock."""


@dataclass
class Machine:
    """Where a check runs.

    Attributes:
        device: a torch device, cuda:0 or cpu.
        tiny: whether models are tiny ones instead of those that count.
        out: a folder for what a check writes.
        context_bytes: the driver's part of a GPU's memory, once it has begun.
    """

    device: str
    tiny: bool
    out: Path
    _simulated_s: float = field(default=0.0, init=False)
    context_bytes: int = field(default=0, init=False)

    @property
    def is_gpu(self) -> bool:
        """True on a GPU, where seconds and bytes are measured."""
        return self.device.startswith("cuda")

    def begin(self, *, deterministic: bool = False) -> None:
        """Take the device; not before a check starts ranks of its own.

        Args:
            deterministic: take deterministic kernels where torch has them, and warn in the log where it has none.

        Raises:
            RuntimeError: there is no such device.
        """
        import torch

        torch.use_deterministic_algorithms(deterministic, warn_only=True)
        # What deterministic kernels bring along takes time and tells nothing here.
        settings: Any = torch.utils.deterministic
        settings.fill_uninitialized_memory = False
        torch.backends.cudnn.benchmark = False
        torch.manual_seed(0)
        if self.is_gpu and not self.context_bytes:
            torch.zeros(1, device=self.device)
            free, total = torch.cuda.mem_get_info(self.device)
            self.context_bytes = total - free - torch.cuda.memory_reserved(self.device)

    def now_s(self) -> float:
        """Return the time once all work of the device is done; on the CPU that of the simulated clock."""
        if not self.is_gpu:
            return self._simulated_s
        import torch

        torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def watch(self, pipe: Any) -> Any:
        """Have a pipeline's models move the simulated clock, by the work of their layers; return the pipeline."""
        from torch import nn

        if self.is_gpu:
            return pipe

        def worked(layer: Any, _: Any, output: Any) -> None:
            self._simulated_s += output.numel() * layer.weight[0].numel() / SIMULATED_SPEED

        for model in pipe.components.values():
            for layer in model.modules() if isinstance(model, nn.Module) else ():
                if isinstance(layer, nn.Linear | nn.Conv2d | nn.Conv3d):
                    layer.register_forward_hook(worked)
        return pipe

    def reset_peak(self) -> None:
        """Give back what is not in use, and measure the peak from here on."""
        from genrun.runner.worker.rank import release_memory, reset_peak_memory

        release_memory(self.device)
        reset_peak_memory(self.device)

    def peak_bytes(self) -> int:
        """Return the most memory that was taken of the device since the reset; on a CPU that of now.

        That is what has to be there: the driver's part, and more than tensors hold, since the allocator leaves gaps.
        """
        from genrun.runner.worker.rank import memory_usage

        if not self.is_gpu:
            return memory_usage("cpu").now_bytes
        import torch

        return torch.cuda.max_memory_reserved(self.device) + self.context_bytes

    def used_bytes(self) -> int:
        """Return the memory of the device that all processes together hold, without starting CUDA; 0 on a CPU."""
        return int(ask("memory.used", "--id=0").split()[0]) * 2**20 if self.is_gpu else 0

    @contextmanager
    def capped(self, size_bytes: int) -> Iterator[None]:
        """Give this process so many bytes of the GPU, the driver's part included, and no more, inside a with block."""
        import torch

        total = torch.cuda.get_device_properties(self.device).total_memory
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(min(1.0, (size_bytes - self.context_bytes) / total), self.device)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, self.device)


def ask(query: str, *options: str) -> str:
    """Return the driver's answer to a query of nvidia-smi."""
    command = ("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader", *options)
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]


def set_environment() -> None:
    """Set, before CUDA starts, what deterministic kernels need and what lets processes be forked once it was asked for."""
    os.environ[WORKSPACE] = ":4096:8"
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["HF_HUB_OFFLINE"] = "1"


@cache
def describe(device: str) -> dict[str, Any]:
    """Return what a result belongs to: the device with its driver and memory, and versions; CUDA is not started."""
    import torch

    names = gpu_names() if device.startswith("cuda") else []
    driver, memory = ask("driver_version,memory.total").split(", ") if names else ("", "")
    return {
        "device": names[0] if names else "cpu",
        "driver": driver,
        "memory": memory,
        "cuda": torch.version.cuda or "",
        "versions": versions(),
    }
