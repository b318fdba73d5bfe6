"""The checks for GPUs, on tiny models of this machine's CPU through the same code: each finds what it should."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from genrun.solvers import registry
from tests.gpu.__main__ import WHOLE_S, checks
from tests.gpu.modes import CACHES
from tests.gpu.page import keep, page

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
NAMES = [check.name for check in checks()]
NOT_HERE = {"flash", "sage"}
"""Kernels that a CPU has no packages for."""

Findings = Mapping[str, Mapping[str, Any]]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run."""
    folder = tmp_path_factory.mktemp("gpu")
    command = [sys.executable, "-m", "tests.gpu", "--out", str(folder), "--device", "cpu"]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def results(out: Path) -> dict[str, Any]:
    return json.loads((out / "result.json").read_text())


def found(results: Mapping[str, Any], name: str) -> Findings:
    (check,) = [check for check in results["checks"] if check["name"] == name]
    return {finding["what"]: finding for finding in check["findings"]}


def value(findings: Findings, what: str) -> Any:
    return findings[what]["value"]


def test_every_check_passes_and_fits_into_eight_minutes(results: dict[str, Any]) -> None:
    assert {check["name"]: check["status"] for check in results["checks"]} == dict.fromkeys(NAMES, "passed")
    assert (results["device"], results["tiny"]) == ("cpu", True)
    assert sum(check.budget_s for check in checks()) <= WHOLE_S - 10
    assert not [f for check in results["checks"] for f in check["findings"] if f["holds"] is False or f["error"]]


def test_bits_are_compared_in_both_number_types_and_over_all_solvers(results: dict[str, Any]) -> None:
    same = found(results, "bits.sequential")
    assert {what.rpartition("torch.")[2] for what in same} == {"float32", "bfloat16"}
    assert all(finding["holds"] for finding in same.values())
    every = len(registry.names()) - 1
    assert {each["value"] for each in found(results, "bits.solvers").values()} == {f"{every} of {every} solvers"}
    ranks = found(results, "bits.ranks")
    assert sum("two ranks as one" in what for what in ranks) == 2
    assert value(ranks, "device of what a rank got") == "cpu"
    points = found(results, "bits.points")
    assert value(points, "sd3, torch.float32: 4 points together, largest difference") < 1e-5  # 0 on some CPUs


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("sizes.")])
def test_a_size_is_measured_planned_and_decoded(results: dict[str, Any], name: str) -> None:
    findings = found(results, name)
    if name == "sizes.sweep":
        timed = [what for what, each in findings.items() if each["unit"] == "s, the longest"]
        assert len(timed) == len(registry.names()) - 1
    elif name == "sizes.encode":
        assert value(findings, "saved over 64 items of a prompt") == 63 * value(findings, "encoding of a prompt") > 0
    else:
        assert value(findings, "evaluation") > 0
        assert value(findings, "denoising: memory")["planned_gb"] > 0.5
        assert {"collocation: overhead of a round", "ropa: overhead of a round", "VAE whole", "VAE in tiles"} <= {
            *findings
        }


def test_modes_keep_the_bits_and_caches_leave_blocks_out(results: dict[str, Any]) -> None:
    offloading = found(results, "modes.offload")
    modes = {what.partition(":")[0] for what, each in offloading.items() if each["value"] == "equal"}
    assert modes == {"none", "model", "group", "sequential"}
    assert sum(each["value"] == "equal" for each in found(results, "modes.prefetch").values()) == 4
    caches = found(results, "modes.caches")
    for kind in CACHES:
        assert value(caches, f"sequential, {kind}: blocks left out") > 5
        assert value(caches, f"sequential, {kind}: seconds of an evaluation saved") > 1
    assert sum(what.startswith("ropa, ") and what.endswith("left out") for what in caches) == len(CACHES) - 1
    assert value(found(results, "modes.compile"), "compiled blocks") == 2
    assert 0 < value(found(results, "modes.float8"), "distance") < 0.2
    kernels = found(results, "modes.attention")
    assert {what for what, each in kernels.items() if str(each["value"]).startswith("not here")} <= NOT_HERE


def test_failures_are_met_told_and_recovered_from(results: dict[str, Any]) -> None:
    memory = found(results, "failures.memory")
    assert value(memory, "transformer out of memory") == "out_of_memory"
    assert value(memory, "VAE out of memory") == value(memory, "the next item") == "done"
    assert value(found(results, "failures.killed"), "exit code") == -9
    stopped = found(results, "failures.stopped")
    assert value(stopped, "exit code") == 3 and value(stopped, "genrun verify") == "clean"
    assert "2 ranks, and this machine has 1 GPUs" in value(found(results, "failures.two_workers"), "said")


def test_the_plan_on_paper_has_every_model_on_8_and_64_gpus(results: dict[str, Any], out: Path) -> None:
    findings = found(results, "plan.paper")
    assert value(findings, "models with measured seconds") == 6
    assert value(findings, "predictions") == 6 * 2 * 2
    text = (out / "gpu.md").read_text()
    assert text.count("not yet run: tiny models, cpu") >= len(NAMES)
    assert "measured (" not in text
    with pytest.raises(ValueError, match="only results of a GPU at full size are kept"):
        keep(results, {"checks": []})


def test_results_of_a_gpu_are_kept_check_by_check(results: dict[str, Any]) -> None:
    gpu = {**results, "device": "NVIDIA H200", "driver": "570.1", "tiny": False}
    first = keep(gpu, {"checks": []})
    late = {**gpu, "date": "2031-01-02", "checks": [{**each, "status": "failed"} for each in gpu["checks"][:1]]}
    late["checks"].append({**gpu["checks"][1], "status": "not run: out of time", "findings": []})
    kept = keep(late, first)
    assert [each["name"] for each in kept["checks"]] == NAMES
    assert [each["status"] for each in kept["checks"][:2]] == ["failed", "passed"]
    text = page(kept)
    assert text.count("measured (NVIDIA H200, driver 570.1, torch ") >= len(NAMES)
    assert "2031-01-02): failed" in text
