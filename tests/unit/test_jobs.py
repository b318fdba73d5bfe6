"""Every job that ships with genrun: validates, plans, and is shown as a job that plans the same items."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from genrun.runner.cli import main
from genrun.runner.job.files import JOBS

NAMES = sorted(path.relative_to(JOBS).as_posix() for path in JOBS.rglob("*.yaml"))
ONE_PAIR = ("--set", "prompts=[a kite]", "--set", "seeds=[0]")
OF_PICTURES = ("--set", "prompts.limit=1", "--set", "seeds=[0]")
BENCHES = [name for name in NAMES if name.startswith("bench/")]


def out(*arguments: str) -> str:
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def items_of(job: str, *sets: str) -> list[dict[str, Any]]:
    return json.loads(out("plan", job, "--json", *sets))


def test_the_jobs_of_the_papers_and_of_each_model_ship() -> None:
    assert {"hunyuan.yaml", "wan.yaml", "cogvideox.yaml", "sd35.yaml", "flux.yaml"} <= set(NAMES)
    assert len(BENCHES) == 14


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_job_validates_plans_and_shows(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert out("validate", f"jobs/{name}").startswith(f"jobs/{name}: ok, ")
    pair = OF_PICTURES if (JOBS / "prompts" / name).with_suffix(".jsonl").is_file() else ONE_PAIR
    items = items_of(f"jobs/{name}", *pair)
    Path("again.yaml").write_text(out("show", f"jobs/{name}", *pair), encoding="utf-8")
    assert [item["id"] for item in items_of("again.yaml")] == [item["id"] for item in items]
    assert len({item["id"] for item in items}) == len(items)
    if name in BENCHES:
        assert any(item["solver"]["kind"] == "sequential" for item in items)
