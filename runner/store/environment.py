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
    """Return the names of the NVIDIA GPUs of this machine; empty where there is no driver."""
    return _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")


def _output(*command: str) -> list[str]:
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return ran.stdout.splitlines()
