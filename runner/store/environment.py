"""The machine and the versions a run was made with, found without importing torch."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
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
