"""A prompt's way from a job to the report: how many files of genrun it passes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

MOST_FILES = 141
"""Files of genrun with a function that is called (2 cells, two processes); the aim is 90.

161 before prompts had pictures and fields of their own, models additions, tolerances certificates and ranks activity files.
"""

# Loaded by every process of the trial before anything else, as sitecustomize: notes the files whose functions are called,
# those alone that run when something is imported left out.
TRACER = """
import atexit, inspect, json, os, sys, threading

seen = set()
FUNCTION = inspect.CO_OPTIMIZED | inspect.CO_NEWLOCALS

def note(frame, event, arg):
    code = frame.f_code
    if event == "call" and "/genrun/" in code.co_filename and code.co_flags & FUNCTION == FUNCTION:
        seen.add(code.co_filename.rpartition("/genrun/")[2])

def save():
    sys.setprofile(None)
    with open(os.path.join(os.environ["TRACE"], str(os.getpid())), "w") as file:
        json.dump(sorted(seen), file)

threading.setprofile(note)
sys.setprofile(note)
atexit.register(save)
"""

TRIAL = """
import json, os, sitecustomize
import genrun

stages = {}
def stage(name):
    stages[name] = sorted(sitecustomize.seen)
    sitecustomize.seen.clear()

stage("import")
run = genrun.submit({
    "name": "way",
    "model": "demo-image",
    "prompts": ["a large red circle on navy"],
    "sampling": {"steps": 6},
    "launch": "inline",
    "matrix": {"solver": ["sequential", "ropa"]},
    "score": ["latent_rmse", "checker"],
})
assert run.tally.done == 2, run.failures()
stage("submit")
run.score()
stage("score")
run.report()
stage("report")
with open(os.environ["STAGES"], "w") as file:
    json.dump(stages, file)
"""


def test_a_prompt_passes_few_files(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(TRACER, encoding="utf-8")
    trace, result = tmp_path / "trace", tmp_path / "stages.json"
    trace.mkdir()
    paths = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH", ""))))
    environ = {**os.environ, "PYTHONPATH": paths, "TRACE": str(trace), "STAGES": str(result), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", TRIAL]
    ran = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr

    stages: dict[str, list[str]] = json.loads(result.read_text(encoding="utf-8"))
    everything = [json.loads(file.read_text(encoding="utf-8")) for file in trace.iterdir()]
    stages["worker"] = max(everything, key=len)
    files = sorted({file for found in stages.values() for file in found})
    assert {"runner/worker/loop.py", "solvers/ropa.py"} <= set(stages["worker"])
    packages = Counter(
        "/".join(file.split("/")[:2]) if file.startswith("runner") else file.split("/")[0] for file in files
    )
    print(f"{len(files)} files:", {stage: len(found) for stage, found in stages.items()}, dict(packages.most_common()))
    print("\n".join(files))
    assert len(files) <= MOST_FILES, files
