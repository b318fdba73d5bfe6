"""A command line whose workers need no torch."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from genrun.runner.api import launching
from genrun.runner.cli import main
from tests.fakes import cli, faults
from tests.preloaded import fork_fake_workers

Genrun = Callable[..., Result]


@pytest.fixture
def genrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Genrun:
    """Call genrun in a folder of its own, with fake workers: `genrun("submit", "job.yaml", exit_code=1)`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launching, "make_launcher", cli.make_launcher)
    fork_fake_workers(monkeypatch)
    monkeypatch.setenv(faults.FOLDER, str(tmp_path / "faults"))

    def call(*args: str, exit_code: int = 0) -> Result:
        result = CliRunner().invoke(main, ["--traceback", *args], prog_name="genrun")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == exit_code, result.output
        return result

    return call


@pytest.fixture
def write_job(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Write job.yaml: three prompts and two solvers, six items, unless told otherwise."""

    def write(**changes: Any) -> dict[str, Any]:
        job = {
            "name": "fake",
            "model": "test/fake",
            "prompts": ["a cat", 'a "dog"\n<script>alert(1)</script>', "a bird 🐦"],
            "matrix": {"solver": ["sequential", {"kind": "ropa", "workers": 4}]},
        }
        job |= changes
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(job, allow_unicode=True), encoding="utf-8")
        return job

    return write


def last_json(result: Result) -> Any:
    """The last line of stdout, as JSON."""
    return json.loads(result.stdout.splitlines()[-1])
