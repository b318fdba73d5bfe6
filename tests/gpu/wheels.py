"""Tells which wheels to carry to a machine that has nothing but PyTorch: python -m tests.gpu.wheels [--python 3.11]

Prints the command that downloads them: genrun's dependencies and theirs, in the versions of this environment, without torch
and what only torch needs. They are what `pyproject.toml` asks for, and the extra `caches`, for the cache dbcache.
"""

from __future__ import annotations

import argparse
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
THERE = "torch"
"""Is on the machine already, in its build for CUDA."""
PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64")


def wanted() -> list[Requirement]:
    """Return what pyproject.toml asks for: the dependencies, and the extra for caches."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [Requirement(line) for line in (*project["dependencies"], *project["optional-dependencies"]["caches"])]


def closure() -> dict[str, str]:
    """Return name -> version of all packages to carry, as they are installed here.

    Raises:
        PackageNotFoundError: one of them is not.
    """
    found: dict[str, str] = {}
    left = [requirement for requirement in wanted() if requirement.name != THERE]
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        extras = requirement.extras or {""}
        if name not in found:
            found[name] = metadata.version(name)
        elif extras == {""}:
            continue
        for line in metadata.requires(name) or ():
            needed = Requirement(line)
            applies = needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras)
            if applies and canonicalize_name(needed.name) != THERE:
                left.append(needed)
    return dict(sorted(found.items()))


def command(python: str) -> str:
    """Return the command that downloads the wheels for a version of Python on Linux."""
    platforms = " ".join(f"--platform {each}" for each in PLATFORMS)
    pins = " ".join(f"{name}=={version}" for name, version in closure().items())
    return f"pip download --no-deps --only-binary=:all: --python-version {python} {platforms} -d wheelhouse {pins}"


def main() -> None:
    """Print the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="3.11", help="of the machine with the GPU (default: 3.11)")
    print(command(parser.parse_args().python))


if __name__ == "__main__":
    main()
