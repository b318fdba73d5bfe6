"""Write ids.json and shapes.json from what genrun does now: `python -m tests.frozen.freeze`.

Both were written by 0.1.0. Freeze again only to add a job or a command; the rows that are there must come out as they were.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner

from genrun.runner.cli import main
from genrun.runner.job import load
from genrun.runner.job.options import OF_0_1
from genrun.runner.job.plan import plan

HERE = Path(__file__).parent
RUN = HERE / "run-0.1.0"
JOBS = Path(__file__).parents[2] / "jobs"
NOT_HERE = ("array-vbench",)
"""Packaged jobs that need a package of their own."""

CONTENTS: dict[str, dict[str, Any]] = {
    "plain": {"model": "demo-image", "prompts": ["a red ball"]},
    "seeds": {"model": "demo-image", "prompts": ["a red ball", "a blue square"], "seeds": [0, 7]},
    "video": {"model": "demo-video", "prompts": ["a red circle moving left"]},
    "hub": {"model": "org/name", "prompts": ["a"], "sampling": {"steps": 30, "width": 512, "height": 512}},
    "revision": {"model": {"checkpoint": "org/name", "revision": "v2"}, "prompts": ["a"]},
    "negative": {"model": "sd3.5", "prompts": ["a"], "sampling": {"negative_prompt": "blurred"}},
    "scheduler": {
        "model": "wan2.1",
        "prompts": ["a"],
        "sampling": {"scheduler": {"kind": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}},
    },
    "options": {"model": "flux", "prompts": ["a"], "sampling": {"options": {"true_cfg_scale": 4.0}}},
    "held": {
        "model": {
            "adapter": "flux",
            "dtype": {"transformer": "bfloat16", "vae": "float32"},
            "vae": {"tiling": True, "slicing": True},
            "offload": "group",
            "compile": "regional",
            "encode": "each",
        },
        "prompts": ["a"],
    },
    "cells": {
        "model": "demo-image",
        "prompts": ["a"],
        "matrix": {
            "solver": ["sequential", {"kind": "ropa", "workers": 4}, {"kind": "collocation", "tolerance": 0.1}],
            "cache": ["none", {"kind": "first_block", "threshold": 0.1}],
        },
    },
    "solvers": {
        "model": "demo-image",
        "prompts": ["a"],
        "matrix": {"solver": ["paradigms", "parasolver", "parasolver-turbo", "parataa", "chords", "srds"]},
    },
}

COMMANDS: dict[str, tuple[str, ...]] = {
    "plan": ("plan", "job.yaml", "--json"),
    "submit -n": ("submit", "job.yaml", "-n", "--json"),
    "status": ("status", "run", "--json"),
    "verify": ("verify", "run", "--json"),
    "score": ("score", "run", "--json"),
    "compare": ("compare", "run", "--by", "solver", "--json"),
    "solvers": ("solvers", "--json"),
    "caches": ("caches", "--json"),
    "models": ("models", "--json"),
    "show": ("show", "job.yaml", "--json"),
}


def ids_of(path: Path) -> dict[str, Any]:
    """Plan a job, and return how many items it has, the first three ids and pairs, and a hash of all of them.

    With the K of 0.1.0 where the job says none: later versions take it from the mesh, and go on with runs that have it.
    """
    items = plan(load(path, workers=OF_0_1))
    everything = hashlib.sha256("".join(item.id + item.pair for item in items).encode()).hexdigest()
    return {"items": len(items), "first": [[item.id, item.pair] for item in items[:3]], "all": everything}


def shape_of(value: Any) -> Any:
    """Describe JSON by its keys and the types of its values; of a list, the shape of its first entry."""
    if isinstance(value, dict):
        return {key: shape_of(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape_of(value[0])] if value else []
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def packaged_jobs() -> list[str]:
    """Name the packaged jobs, relative to jobs/."""
    found = sorted(path.relative_to(JOBS).as_posix() for path in JOBS.rglob("*.yaml"))
    return [name for name in found if Path(name).stem not in NOT_HERE]


def all_ids(folder: Path) -> dict[str, Any]:
    """Plan every packaged job and every job of CONTENTS, written to `folder`."""
    found = {name: ids_of(JOBS / name) for name in packaged_jobs()}
    for name, content in CONTENTS.items():
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content))
        found[name] = ids_of(path)
    return found


def all_shapes(folder: Path) -> dict[str, Any]:
    """Run every command of COMMANDS in `folder` on a copy of the stored run, and describe what it prints."""
    shutil.copytree(RUN, folder / "run")
    shutil.copy(RUN / "job.yaml", folder / "job.yaml")
    found = {}
    before = Path.cwd()
    os.chdir(folder)
    try:
        for name, arguments in COMMANDS.items():
            result = CliRunner().invoke(main, list(arguments))
            if result.exit_code:
                raise RuntimeError(f"genrun {' '.join(arguments)}: exit code {result.exit_code}: {result.output}")
            found[name] = shape_of(json.loads(result.stdout.splitlines()[-1]))
    finally:
        os.chdir(before)
    return found


def freeze() -> None:
    """Write both files."""
    for name, made in (("ids.json", all_ids), ("shapes.json", all_shapes)):
        with tempfile.TemporaryDirectory() as folder:
            (HERE / name).write_text(json.dumps(made(Path(folder)), indent=1) + "\n")


if __name__ == "__main__":
    freeze()
