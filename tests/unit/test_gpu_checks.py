"""How checks for GPUs are run, written and carried: past failures and past their time, with nothing claimed."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from genrun.runner.parallel.mesh import Mesh
from tests.gpu import page, wheels
from tests.gpu.__main__ import FIRST, checks, run_all
from tests.gpu.contract import CheckFinding, Findings, GpuCheck, NotHereError, attempt
from tests.gpu.machine import Machine
from tests.gpu.paper import GPUS, Work, chosen, predict

ROOT = Path(__file__).parents[2]


def fine(machine: Machine) -> Findings:
    yield CheckFinding("a", 1)


def unequal(machine: Machine) -> Findings:
    yield CheckFinding("a", 1, holds=False)


def breaks(machine: Machine) -> Findings:
    yield CheckFinding("a", 1)
    raise RuntimeError("the driver is gone")


def in_parts(machine: Machine) -> Findings:
    yield from attempt("first", lambda: breaks(machine))
    yield from attempt("second", lambda: fine(machine))


def dies(machine: Machine) -> Findings:
    yield CheckFinding("a", 1)
    os._exit(11)


def hangs(machine: Machine) -> Findings:
    yield CheckFinding("a", 1)
    time.sleep(600)


def not_finite(machine: Machine) -> Findings:
    yield CheckFinding("a", [1.0, float("nan")])


def absent(machine: Machine) -> Findings:
    yield CheckFinding("a", 1)
    raise NotHereError("no such kernel")


def test_checks_go_on_past_failures_crashes_and_their_own_time(tmp_path: Path) -> None:
    ways = (fine, unequal, breaks, in_parts, dies, hangs, absent, not_finite)
    budgets = {way.__name__: 1.0 if way is hangs else 60.0 for way in ways}
    chosen = [GpuCheck(way.__name__, "title", budgets[way.__name__], way) for way in ways]
    said: list[str] = []
    results = run_all(chosen, Machine("cpu", True, tmp_path), 300, lambda line, **_: said.append(line))
    status = {each["name"]: each["status"] for each in results}
    assert status == {
        "fine": "passed",
        "unequal": "failed",
        "breaks": "failed",
        "in_parts": "failed",
        "dies": "failed",
        "hangs": "out of time",
        "absent": "not here",
        "not_finite": "failed",
    }
    assert all(each["findings"][0]["value"] == 1 for each in results[:-1])
    assert results[-1]["findings"][0]["error"] == "not finite: [1.0, nan]"
    parts = next(each for each in results if each["name"] == "in_parts")["findings"]
    assert [part["error"] for part in parts] == ["", "RuntimeError: the driver is gone", ""]
    assert any("the driver is gone" in line for line in said)


def test_what_there_is_no_time_for_is_listed(tmp_path: Path) -> None:
    chosen = [GpuCheck("fine", "title", 60.0, fine)]
    (result,) = run_all(chosen, Machine("cpu", True, tmp_path), 0.0, lambda *_, **__: None)
    assert (result["status"], result["findings"]) == ("not run: out of time", ())
    assert "not run: out of time" in (tmp_path / "result.json").read_text()


def test_the_most_telling_checks_come_first_and_names_are_unique() -> None:
    names = [check.name for check in checks()]
    assert names[: len(FIRST)] == list(FIRST)
    assert len({*names}) == len(names)


def test_the_page_follows_its_data() -> None:
    measured = json.loads(page.MEASURED.read_text(encoding="utf-8"))
    assert page.PAGE.read_text(encoding="utf-8") == page.page(measured), "stale: run `make docs`"
    named = {each["name"] for each in measured["checks"]}
    for check in checks():
        line = re.search(rf"^\| `{re.escape(check.name)}` .*$", page.PAGE.read_text(encoding="utf-8"), re.MULTILINE)
        assert line and (("| measured (" in line[0]) == (check.name in named) != line[0].endswith("| not yet run |"))


def test_findings_are_text_on_the_page() -> None:
    result: dict[str, Any] = {"name": "sizes.flux", "status": "passed", "device": "<b>", "driver": "1|2", "date": "d"}
    finding = {"what": "<script>", "value": 1 / 3, "unit": "a|b", "wanted": "", "holds": None, "error": ""}
    text = page.page({"checks": [{**result, "findings": [finding]}]})
    assert r"| &lt;script> | 0.3333 a\|b |  |" in text and "<b>" not in text


WORK = Work("a model", 2.0, 50, 24, 2, 1e6, 2e8, 40)


def test_a_prediction_waits_for_what_ranks_send() -> None:
    alone = predict(WORK, Mesh(8, 1), 25.0)
    assert (alone.latency_s, alone.makespan_s) == pytest.approx((100.0, 800.0))
    fast, slow = (predict(WORK, Mesh(1, 1, 2, 1, 4), bandwidth) for bandwidth in (400.0, 25.0))
    assert 100 / 8 < fast.latency_s < slow.latency_s
    tokens = 4 * 40 * 2e8 / 4 * 3 / 4 / 25e9
    assert slow.latency_s == pytest.approx(50 * (2.0 / 8 + tokens + 1e6 / 25e9))
    assert predict(WORK, Mesh(1, 8), 400.0).latency_s < alone.latency_s / 3


@pytest.mark.parametrize("gpus", GPUS)
def test_the_best_meshes_have_as_many_ranks_as_there_are_gpus(gpus: int) -> None:
    soonest, quickest = chosen(WORK, gpus, 25.0)
    assert soonest.mesh.ranks == quickest.mesh.ranks == gpus
    assert soonest.makespan_s <= quickest.makespan_s and quickest.latency_s <= soonest.latency_s


def test_the_wheels_are_what_pyproject_and_its_packages_need_without_torch() -> None:
    found, constraints = wheels.closure(), (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {
        str(canonicalize_name(name)): version for name, _, version in (line.partition("==") for line in constraints)
    }
    asked = {canonicalize_name(each.name) for each in wheels.wanted()}
    assert asked - {"torch"} <= {*found} and "torch" in asked
    assert not {"torch", "triton", "pytest"} & {*found} and not [name for name in found if name.startswith("nvidia")]
    assert all(version == pins.get(name, version) for name, version in found.items())
    command = wheels.command("3.12")
    pinned = [Requirement(word) for word in command.split() if "==" in word]
    assert {str(each.name): str(each.specifier)[2:] for each in pinned} == found
    assert "--no-deps" in command and "--python-version 3.12" in command
