"""`genrun.api`: what the verbs do, from Python, with fake workers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import yaml

import genrun as package
from genrun import api
from genrun.runner.errors import StoreError, UsageError
from genrun.runner.job.errors import JobFileError
from tests.cli.conftest import Genrun
from tests.fakes import faults


class Heard(api.Listener):
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.results: list[str] = []
        self.runs: list[Path] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def result(self, text: str) -> None:
        self.results.append(text)

    def opened(self, submission: Any) -> None:
        self.runs.append(submission.folder.path)


def test_a_submission_is_the_run_that_it_made(
    genrun: Genrun, write_job: Callable[..., dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    write_job()
    heard = Heard()
    run = api.submit("job.yaml", listener=heard)
    assert capfd.readouterr() == ("", "")
    assert (run.tally.items, run.tally.done, run.is_queued, run.failures()) == (6, 6, False, [])
    assert run.taken == {"reused": 0, "lost": 0, "rewritten": 0}
    assert heard.runs == [run.path]
    assert any("6 items on 1 ranks (inline)" in line for line in heard.said)
    assert {item.status for item in run.items} == {"done"}
    assert [item.rounds for item in run.items] == [2] * 6
    assert sorted(run.media) == sorted(item.id for item in run.items)
    assert all(path.is_absolute() and path.is_file() for path in run.media.values())
    assert run.verify() == []
    assert repr(run) == f"Run({str(run.path)!r}: 6 of 6 items done)"
    again = api.submit("job.yaml")
    assert again.path == run.path == api.Run("fake").path == package.Run(run).path


@pytest.mark.parametrize("kind", ["mapping", "text", "path"])
def test_a_job_is_a_mapping_a_text_or_a_file(
    genrun: Genrun, write_job: Callable[..., dict[str, Any]], tmp_path: Path, kind: str
) -> None:
    job = write_job()
    given = {"mapping": job, "text": yaml.safe_dump(job, allow_unicode=True), "path": tmp_path / "job.yaml"}[kind]
    assert [item.id for item in api.plan(given)] == [item.id for item in api.plan("job.yaml")]
    assert api.load_job(given).document == api.load_job("job.yaml").document


def test_a_mapping_may_hold_paths_and_tuples_and_needs_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text("a cat\na dog\n")
    job = {"model": "demo-image", "prompts": {"file": Path("list.txt")}, "seeds": (0, 1), "solver": "ropa"}
    assert len(api.plan(job)) == 4
    assert api.load_job(job).job.name == "job"


def test_a_mapping_may_hold_numbers_of_numpy_and_nothing_that_yaml_cannot() -> None:
    job = {"model": "demo-image", "prompts": ["a cat"], "sampling": {"steps": np.int64(2)}, "seeds": np.arange(3)}
    assert [item.seed for item in api.plan(job)] == [0, 1, 2]
    with pytest.raises(TypeError, match="prompts: wanted a text, a number, a list or a mapping; got set"):
        api.plan({**job, "prompts": {"a cat"}})
    with pytest.raises(TypeError, match=r"seeds\[1\]: .* got object"):
        api.plan({**job, "seeds": [0, object()]})
    job["sampling"] = job
    with pytest.raises(TypeError, match="holds itself"):
        api.plan(job)


def test_what_is_wrong_with_a_job_in_python_is_told_with_its_place() -> None:
    with pytest.raises(JobFileError, match=r"job:2:9: solver\.kind: there is no solver 'rope'"):
        api.plan("model: demo-image\nsolver: rope\nprompts: [x]\n")
    with pytest.raises(JobFileError, match=r"job: sampling\.step"):
        api.plan({"model": "demo-image", "sampling": {"step": 3}, "prompts": ["x"]})
    with pytest.raises(UsageError, match="a job is a mapping"):
        api.plan("- a\n- b\n")


def test_failed_items_raise_nothing_and_are_told_and_made_again(
    genrun: Genrun, write_job: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    write_job()
    first = api.plan("job.yaml")[0]
    faults.put(tmp_path / "faults", "sampling", victim="error", times=2, item=first.id)
    run = api.submit("job.yaml")
    assert (run.tally.done, run.tally.failed) == (5, 1)
    (failure,) = run.failures()
    assert failure.items == 1
    assert next(item for item in run.items if item.id == first.id).error is not None
    with pytest.raises(UsageError, match="is done already"):
        api.retry(run, [api.plan("job.yaml")[1].id])
    assert api.retry(run).tally.done == 6


def test_a_preview_writes_nothing(genrun: Genrun, write_job: Callable[..., dict[str, Any]]) -> None:
    write_job()
    found = api.preview("job.yaml")
    assert (found.name, found.kind, found.folder, found.to_run, found.gpu_hours) == ("fake", "inline", None, 6, None)
    assert set(found.states.values()) == {"new"}
    assert not Path("runs").exists()
    run = api.submit("job.yaml")
    assert api.preview("job.yaml").folder == run.folder
    assert api.preview("job.yaml", new=True).folder is None


def test_status_counts_what_the_items_are(genrun: Genrun, write_job: Callable[..., dict[str, Any]]) -> None:
    write_job()
    run = api.submit("job.yaml", sets=["prompts=[a cat]"])
    found = run.status()
    assert (found.tally.items, found.tally.done, found.unreadable) == (2, 2, ())
    assert found.items == run.items
    heard = Heard()
    assert api.cancel(run, listener=heard) == []
    assert heard.said == [f"{run.path}: nothing of it waits or works."]


def test_a_table_for_pandas_has_a_row_for_each_item(
    genrun: Genrun, write_job: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_job()
    run = api.submit("job.yaml")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match="pandas is not installed"):
        run.to_pandas()

    class Frame(list[dict[str, Any]]):
        def set_index(self, name: str) -> Frame:
            return self

    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=Frame))
    rows = run.to_pandas()
    assert [row["id"] for row in rows] == [item.id for item in run.items]
    assert rows[0].keys() >= {"id", "solver", "prompt", "seed", "status", "rounds", "nfe", "elapsed_s", "media"}


def test_errors_are_genruns_own(tmp_path: Path) -> None:
    with pytest.raises(package.GenrunError, match="no such run"):
        api.Run("nothing", runs=tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises((UsageError, StoreError)):
        api.Run(tmp_path / "empty", runs=tmp_path)
    with pytest.raises(UsageError, match="wanted a model or a problem"):
        api.bench()


def test_a_bench_in_python_returns_what_it_measured(tmp_path: Path) -> None:
    out, sweep = tmp_path / "bench", {"ropa": [0.05]}
    found = api.bench(problem="mixture", solvers=["ropa"], workers=[2], tolerances=sweep, samples=2, steps=12, out=out)
    (result,) = found.results
    assert (result.cell.kind, result.cell.workers, result.cell.tolerance) == ("ropa", 2, 0.05)
    assert found.page.is_file()
    assert "genrun.bench(&#39;mixture&#39;)" in found.page.read_text(encoding="utf-8")


def test_importing_it_is_quick_and_brings_no_torch() -> None:
    program = (
        "import sys, genrun; genrun.Run, genrun.submit, genrun.bench, genrun.api.status, genrun.solvers.solve\n"
        "print([name for name in ('torch', 'numpy', 'pydantic', 'click') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_the_package_runs_as_a_module() -> None:
    ran = subprocess.run([sys.executable, "-m", "genrun", "--version"], capture_output=True, text=True, check=True)
    assert ran.stdout == f"genrun, version {package.__version__}\n"


def test_what_no_command_line_lets_through_is_refused_from_python(
    genrun: Genrun, write_job: Callable[..., dict[str, Any]]
) -> None:
    write_job()
    run = api.submit("job.yaml")
    # A percentage for a share, a gate as a job file has it, and "all" as other programs say it.
    with pytest.raises(UsageError, match=r"confidence is 95: wanted a share from 0\.5 to 0\.9999"):
        run.compare(by="solver", confidence=95)
    with pytest.raises(TypeError, match=r"a list of Gate; got \{'psnr'"):
        api.compare(run, gates=cast(Any, {"psnr": {"min": 30}}))
    with pytest.raises(UsageError, match=r"keep is -1: .* Nothing was removed"):
        api.collect_garbage(-1)
    assert run.path.is_dir()
