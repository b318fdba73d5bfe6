"""`genrun nightly`, `pin` and `history`, with workers that need no torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from genrun.runner.store.folder import RunFolder
from genrun.runner.store.nights import read_night, write_night
from genrun.runner.store.scores import read_scores
from tests.cli.conftest import Genrun
from tests.fakes import faults

pytestmark = pytest.mark.e2e
WriteJob = Callable[..., dict[str, Any]]


@pytest.fixture
def nightly(genrun: Genrun, write_job: WriteJob) -> Genrun:
    write_job(score=["psnr"], gates={"rounds": {"max": 3, "max_rise": 0}}, launch={"max_attempts": 1})
    return genrun


def yesterday(tmp_path: Path) -> RunFolder:
    """Let tonight's run have been last night's."""
    run = RunFolder.open(tmp_path / "runs" / "fake" / "latest")
    night = read_night(run.night_path)
    assert night is not None
    before = (datetime.fromisoformat(night.scheduled_at) - timedelta(days=1)).isoformat()
    fields = {**night.to_dict(), "night": before[:10], "scheduled_at": before}
    write_night(run.night_path, type(night).from_dict(fields))
    return run


def test_two_nights_as_a_user_sees_them(nightly: Genrun, tmp_path: Path) -> None:
    first = nightly("nightly", "job.yaml", exit_code=3)
    assert first.stdout.startswith("fake 20")
    assert "2 of 4 gates are open without a baseline (genrun pin fake)" in first.stdout
    run = yesterday(tmp_path)
    assert nightly("pin", "fake").stdout == f"{run.path}\n"
    nightly("history", "--rebuild")
    second = json.loads(nightly("nightly", "job.yaml", "--json").stdout)
    assert (second["state"], second["exit_code"], second["baseline"]) == ("passed", 0, str(run.path))
    assert Path(second["report"]).is_file()
    again = nightly("nightly", "job.yaml")
    assert "This night is done already." in again.stderr
    assert again.stdout.count("\n") == 1
    nights = json.loads(nightly("history", "fake", "--json").stdout)
    assert [night["state"] for night in nights] == ["incomplete", "passed"]
    assert "doubled" in nights[1]["marks"]
    lines = nightly("history").stdout.splitlines()
    assert lines[0].split()[:3] == ["job", "night", "state"]
    assert "doubled" in lines[2] and "4 passed" in lines[2]
    assert nightly("compare", "fake/pinned", "fake/latest").stderr.endswith("4 gates: 4 passed.\n")


def test_a_night_whose_items_failed_is_taken_up(nightly: Genrun, tmp_path: Path) -> None:
    faults.put(tmp_path / "faults", "sampling", victim="error")
    nightly("nightly", "job.yaml", exit_code=1)
    assert "5 of 6 items, 1 failed" in nightly("history").stderr
    assert "5 of 6 items are done; a baseline needs all." in nightly("pin", "fake", exit_code=2).stderr


def test_a_changed_job_is_another_run_of_the_same_night(nightly: Genrun, tmp_path: Path) -> None:
    nightly("nightly", "job.yaml", exit_code=3)
    nightly("nightly", "job.yaml", "--set", "seeds=[5]", exit_code=3)
    assert len(json.loads(nightly("history", "--json").stdout)) == 2


def test_pin_and_unpin(nightly: Genrun, tmp_path: Path) -> None:
    nightly("nightly", "job.yaml", exit_code=3)
    nightly("pin", "fake")
    link = tmp_path / "runs" / "fake" / "pinned"
    assert link.is_symlink()
    assert "fake" in nightly("status", "fake", "--json").stdout
    assert "No longer pinned." in nightly("pin", "fake", "--remove").stderr
    assert not link.is_symlink()
    assert "no run is pinned" in nightly("pin", "fake", "--remove").stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nightly", "job.yaml", "-n"), "--at and -n belong to --install."),
        (("nightly", "job.yaml", "--set", "nightly.kep=3"), "nightly.kep: unknown option. Did you mean 'keep'?"),
        (("history", "nope"), "'nope': no nights of that job."),
    ],
)
def test_what_cannot_be_meant_is_refused(nightly: Genrun, arguments: tuple[str, ...], message: str) -> None:
    assert message in nightly(*arguments, exit_code=2).stderr


def test_an_installed_night_keeps_the_jobs_time_and_changes(nightly: Genrun, write_job: WriteJob) -> None:
    write_job(nightly={"at": "04:30"})
    shown = nightly("nightly", "job.yaml", "--install", "cron", "-n", "--set", "seeds=[1, 2]").stdout
    assert "30 4 * * * bash " in shown
    assert "--set 'seeds=[1, 2]'" in shown
    assert "nightly.at" not in shown
    later = nightly("nightly", "job.yaml", "--install", "cron", "-n", "--at", "05:00").stdout
    assert "0 5 * * * bash " in later
    assert "--set nightly.at=05:00" in later


def test_a_night_that_was_killed_before_its_report_gets_it_by_the_next_call(
    genrun: Genrun, write_job: WriteJob, tmp_path: Path
) -> None:
    write_job(gates={"rounds": {"max": 3}})
    genrun("nightly", "job.yaml")
    page = tmp_path / "runs" / "fake" / "latest" / "report" / "index.html"
    page.unlink()
    assert "This night is done already." in genrun("nightly", "job.yaml").stderr
    assert page.is_file()


def test_a_night_that_was_killed_as_its_run_appeared_goes_on_with_it(
    genrun: Genrun, write_job: WriteJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path) -> RunFolder:
        raise KeyboardInterrupt(path)

    write_job(gates={"rounds": {"max": 3}})
    with monkeypatch.context() as patch:
        # The first to open a run is who has just made it.
        patch.setattr(RunFolder, "open", killed)
        genrun("nightly", "job.yaml", exit_code=1)
    runs = tmp_path / "runs" / "fake"
    assert not (runs / "latest").exists()
    genrun("nightly", "job.yaml")
    (run,) = (path for path in runs.iterdir() if path.is_dir() and not path.is_symlink() and path.name[0] == "2")
    assert RunFolder.open(run).tally().pending == 0
    night = read_night(run / "night.json")
    assert night is not None and len(night.attempts) == 1


def test_a_score_file_that_was_left_half_written_is_nobodys_damage(nightly: Genrun, tmp_path: Path) -> None:
    nightly("nightly", "job.yaml", exit_code=3)
    run = RunFolder.open(tmp_path / "runs" / "fake" / "latest")
    text = run.scores_path("psnr").read_text()
    torn = run.scores_path("psnr").with_name(".psnr.jsonl.1-2-3.tmp.jsonl")
    torn.write_text(text[: len(text) // 2])
    assert len(read_scores(run)) == len(text.splitlines())
    nightly("submit", "job.yaml")
    assert not (run.path / "damaged").exists()
