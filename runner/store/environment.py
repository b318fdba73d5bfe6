"""The machine: versions that a run was made with, and processes, named so that another can prove that one is gone."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "peft", "gguf", "numpy", "av", "pillow")


def describe() -> dict[str, Any]:
    """Return versions, the git commit of the working directory (None outside a repository), host and GPUs."""
    return {
        "versions": versions(),
        "git": git_commit(),
        "host": platform.node(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "gpus": gpu_names(),
    }


def versions() -> dict[str, str]:
    """Return the versions of genrun, Python and the packages that pixels depend on."""
    from genrun.version import __version__

    found = {"genrun": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """Return the commit of the working directory, with "+" when files differ from it; None outside a repository."""
    commit = _output("git", "rev-parse", "HEAD")
    if not commit:
        return None
    return commit[0] + ("+" if _output("git", "status", "--porcelain", "--untracked-files=no") else "")


def gpu_names() -> list[str]:
    """Return the names of the NVIDIA GPUs that this process may use; empty where there is no driver.

    CUDA_VISIBLE_DEVICES chooses among those of the machine, by number or by the beginning of a UUID, up to the first that
    is not there; a part of a GPU (MIG-...) counts as one.
    """
    found = [
        line.split(", ", 2) for line in _output("nvidia-smi", "--query-gpu=index,uuid,name", "--format=csv,noheader")
    ]
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return [name for *_, name in found]
    names = []
    for each in map(str.strip, wanted.split(",")):
        same = [name for index, uuid, name in found if each and (each == index or uuid.startswith(each))]
        if not same and not (found and each.startswith("MIG-")):
            break
        names.append(same[0] if same else each)
    return names


def _output(*command: str) -> list[str]:
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return ran.stdout.splitlines()


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
