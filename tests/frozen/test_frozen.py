"""Runs of 0.1.0 stay readable: ids of items, the run folder and what `--json` prints are as they were."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from genrun.runner.cli import main
from tests.frozen.freeze import HERE, RUN, all_ids, all_shapes


def test_every_job_makes_the_items_that_it_made_in_0_1_0(tmp_path: Path) -> None:
    frozen = json.loads((HERE / "ids.json").read_text())
    now = all_ids(tmp_path)
    assert {name: now[name] for name in frozen} == frozen


def test_json_keeps_every_key_and_type_of_0_1_0(tmp_path: Path) -> None:
    frozen = json.loads((HERE / "shapes.json").read_text())
    now = all_shapes(tmp_path)
    assert {name: lost for name in frozen if (lost := sorted(_lost(frozen[name], now[name])))} == {}


def test_a_run_of_0_1_0_is_whole_and_resumed_without_making_anything(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(RUN, "runs/frozen/2026-11-29T14-34-56-1b9a")
    shutil.copy(RUN / "job.yaml", "job.yaml")
    media = sorted(Path("runs").rglob("*.png"))
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in media]

    verified = CliRunner().invoke(main, ["verify", "frozen"])
    submitted = CliRunner().invoke(main, ["submit", "job.yaml", "--json"])

    assert verified.exit_code == 0, verified.output
    answer = json.loads(submitted.stdout.splitlines()[-1])
    assert (submitted.exit_code, answer["done"], answer["pending"]) == (0, 4, 0), submitted.output
    assert Path(answer["run"]).name == "2026-11-29T14-34-56-1b9a"
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in media] == before


def _lost(before: Any, now: Any, path: str = "") -> list[str]:
    """The keys and types of `before` that `now` has not."""
    if isinstance(before, dict):
        if not isinstance(now, dict):
            return [path]
        missing = [f"{path}.{key}" for key in before if key not in now]
        return missing + [
            lost for key in before if key in now for lost in _lost(before[key], now[key], f"{path}.{key}")
        ]
    if isinstance(before, list):
        if not isinstance(now, list):
            return [path]
        return _lost(before[0], now[0], f"{path}[0]") if before and now else []
    return [] if before == now else [f"{path}: {before} -> {now}"]
