"""What killed processes leave is told from what living ones write, and removed."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from genrun.adapters.scorers.vbench import metric as vbench
from genrun.runner.bench.results import BenchFolder
from genrun.runner.nightly import due
from genrun.runner.nightly.due import alone
from genrun.runner.report.build import build_report
from genrun.runner.score.scoring import score_run
from genrun.runner.store import files
from genrun.runner.store.environment import ProcessName, current
from genrun.runner.store.files import atomic_write, is_left_behind, is_temporary, temporary_name
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.repair import remove_from_job, remove_from_run
from genrun.runner.store.verify import verify
from tests.fakes.items import dead_process, done, make_folder, process_elsewhere


def left(path: Path, process: ProcessName, monkeypatch: pytest.MonkeyPatch, *, is_folder: bool = False) -> Path:
    """A temporary file as a process left it."""
    with monkeypatch.context() as patch:
        patch.setattr(files, "current", lambda: process)
        found = temporary_name(path)
    found.parent.mkdir(parents=True, exist_ok=True)
    found.mkdir() if is_folder else found.write_text("half")
    return found


def test_a_temporary_file_counts_as_long_as_its_process_may_be_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, dead, other = (
        left(tmp_path / "a.json", process, monkeypatch) for process in (current(), dead_process(), process_elsewhere())
    )
    reused = left(tmp_path / "a.json", replace(current(), started="7"), monkeypatch)
    old = tmp_path / ".a.json.0123abcd.tmp.json"
    assert all(is_temporary(path.name) for path in (mine, dead, other, reused, old))
    assert [is_left_behind(path) for path in (mine, dead, other, reused, old)] == [False, True, False, True, True]
    long_ago = time.time() - 2 * files.FORGOTTEN_S
    os.utime(other, (long_ago, long_ago))
    assert is_left_behind(other)
    assert not is_left_behind(tmp_path / ".hidden.json") and not is_left_behind(tmp_path / "a.tmp")


def test_writing_a_file_again_removes_what_was_left_of_it_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = left(tmp_path / "a.json", dead_process(), monkeypatch)
    others = [
        left(tmp_path / "a.json", current(), monkeypatch),
        left(tmp_path / "b.json", dead_process(), monkeypatch),
    ]
    atomic_write(tmp_path / "a.json", b"new")
    assert not dead.exists() and all(path.exists() for path in others)


ROOMS = (
    "plan.jsonl",
    "job.yaml",
    "env.json",
    "night.json",
    "items/ab/x.json",
    "media/ab/x.mp4",
    "latents/ab/x.safetensors",
    "prompts/ab/x.safetensors",
    "leases/probe",
    "logs/slurm-1/order.json",
    "logs/slurm-1/slurm.json",
    "logs/slurm-1/score/job.sbatch",
    "scores/psnr.jsonl",
    "scores/drift/psnr.json",
    "report/index.html",
    "report/assets/a.svg",
)


def test_everything_that_is_left_anywhere_in_a_run_is_named_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(tmp_path / "fake" / "run", 1)
    (item,) = folder.items()
    done(folder, item)
    whole = {path for path in folder.path.rglob("*") if path.is_file()}
    found = [left(folder.path / name, dead_process(), monkeypatch) for name in ROOMS]
    found += [left(folder.report_dir / "print", dead_process(), monkeypatch, is_folder=True)]
    living = left(folder.path / "scores" / "clip_score.jsonl", current(), monkeypatch)
    progress = folder.progress_path("b" * 20)
    progress.write_text("[1, 4]")
    other = folder.media_path(item, ".gif")
    other.write_bytes(b"what a worker was writing it over with")
    assert folder.temporary_files() == sorted(found)
    assert {flaw.path for flaw in verify(folder) if flaw.kind == "temporary"} == set(map(folder.relative, found))
    remove_from_run(folder)
    assert {path for path in folder.path.rglob("*") if path.is_file()} == {*whole, living}


def test_a_report_and_a_scoring_remove_what_killed_ones_left_also_of_files_that_they_do_not_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(tmp_path / "fake" / "run", 1)
    dead = [
        left(folder.path / name, dead_process(), monkeypatch)
        for name in ("report/report.pdf", "report/media/ab/x.mp4", "report/assets/old.svg", "scores/psnr.jsonl")
    ]
    dead += [left(folder.report_dir / "print", dead_process(), monkeypatch, is_folder=True)]
    living = [left(folder.path / name, current(), monkeypatch) for name in ("report/report.pdf", "scores/psnr.jsonl")]
    build_report(folder)
    score_run(folder, [])
    assert not any(path.exists() for path in dead) and all(path.exists() for path in living)


def test_what_is_left_beside_runs_is_removed_and_runs_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder(tmp_path / "fake" / "2026-01-01T00-00-00-aaaa")
    job_folder = folder.path.parent
    building = left(job_folder / "2026-01-02T00-00-00-bbbb", dead_process(), monkeypatch, is_folder=True)
    (building / "items").mkdir()
    at_work = left(job_folder / "2026-01-02T00-00-00-cccc", current(), monkeypatch, is_folder=True)
    link = job_folder / ".latest.0123abcd.tmp"
    link.symlink_to(folder.path.name, target_is_directory=True)
    night = left(job_folder / ".nights" / "a.json", dead_process(), monkeypatch)
    database = left(tmp_path / "history.sqlite3", dead_process(), monkeypatch)
    log = database.with_name(f"{database.name}-wal")
    log.write_text("half")
    remove_from_job(job_folder)
    assert not any(path.exists() for path in (building, night, database, log)) and not link.is_symlink()
    assert at_work.is_dir() and RunFolder.open(folder.path).items()


def test_a_bench_that_was_killed_at_its_first_file_can_be_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = left(tmp_path / "bench.json", dead_process(), monkeypatch)
    BenchFolder.open(tmp_path, {"steps": 4})
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"] and not dead.exists()


def test_a_removal_of_an_old_night_that_was_cut_off_is_ended_unless_a_night_is_at_work(tmp_path: Path) -> None:
    going = tmp_path / f".2026-01-01T00-00-00-aaaa{due.REMOVING}"
    (going / "media").mkdir(parents=True)
    with alone(tmp_path):
        due.finish_removals_if_idle(tmp_path)
        assert going.is_dir()
    due.finish_removals_if_idle(tmp_path)
    assert not going.exists()


def test_folders_of_killed_vbench_scorers_are_removed(tmp_path: Path) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead, mine = (tmp_path / f"{vbench._prefix_of(pid)}abcd" for pid in (int(gone.stdout), os.getpid()))
    other = tmp_path / "room-node7-1.abcd"
    for room in (dead, mine, other):
        room.mkdir()
    vbench._remove_folders_of_the_dead(tmp_path)
    assert not dead.exists() and mine.is_dir() and other.is_dir()
