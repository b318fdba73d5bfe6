"""`submit` and `retry`: what runs, what is kept, what is printed, and the exit codes."""

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from genrun.runner.store.folder import RunFolder
from tests.cli.conftest import Genrun, last_json
from tests.fakes import faults
from tests.fakes.worker import picture

pytestmark = pytest.mark.e2e
WriteJob = Callable[..., dict[str, Any]]


def run_of(path: Path) -> RunFolder:
    return RunFolder.open(path / "runs" / "fake" / "latest")


def test_a_dry_run_shows_what_would_run_and_writes_nothing(genrun: Genrun, write_job: WriteJob, tmp_path: Path) -> None:
    write_job()
    result = genrun("submit", "job.yaml", "-n")
    assert result.stdout.splitlines() == [
        "solver      new  done  failed",
        "sequential    3     0       0",
        "ropa K=4      3     0       0",
    ]
    assert "6 of 6 items would run (inline). Nothing was written." in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["job.yaml"]


def test_a_job_runs_to_its_end_and_prints_its_folder(genrun: Genrun, write_job: WriteJob, tmp_path: Path) -> None:
    write_job()
    result = genrun("submit", "job.yaml")
    folder = run_of(tmp_path)
    assert result.stdout.splitlines() == [str(folder.path)]
    assert "6/6 done" in result.stderr
    for item in folder.items():
        assert folder.media_path(item, ".png").read_bytes() == picture(item)
    genrun("verify")


def test_the_same_job_again_makes_nothing_again(genrun: Genrun, write_job: WriteJob, tmp_path: Path) -> None:
    write_job()
    genrun("submit", "job.yaml")
    folder = run_of(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*") if path.is_file()}
    result = genrun("submit", "job.yaml", "--json")
    assert last_json(result) == {
        "run": str(folder.path),
        "items": 6,
        "done": 6,
        "failed": 0,
        "pending": 0,
        "jobs": [],
        "reused": 0,
        "lost": 0,
        "rewritten": 0,
    }
    written = {path for path in before if path.stat().st_mtime_ns != before[path]}
    assert written <= {folder.leases / ".lock", folder.leases / ".submit.lock"}
    assert sorted(path.name for path in (tmp_path / "runs" / "fake").iterdir()) == [
        ".submit.lock",
        folder.path.name,
        "latest",
    ]
    assert "0 of 6 items would run" in genrun("submit", "job.yaml", "-n").stderr


def test_items_that_fail_are_tried_again_then_recorded_and_the_rest_goes_on(
    genrun: Genrun, write_job: WriteJob, tmp_path: Path
) -> None:
    write_job()
    genrun("submit", "job.yaml", "-n")
    items = json.loads(genrun("submit", "job.yaml", "-n", "--json").stdout)["rows"]
    broken = items[2]["id"]
    faults.put(tmp_path / "faults", "sampling", victim="memory", times=2, item=broken)
    result = genrun("submit", "job.yaml", "--json", exit_code=1)
    counts = last_json(result)
    assert (counts["done"], counts["failed"], counts["pending"]) == (5, 1, 0)
    record = run_of(tmp_path).record(broken)
    assert record is not None and record.error is not None
    assert record.attempt == 2
    assert record.error["kind"] == "out_of_memory"
    assert record.error["message"] == "tried to allocate 80.00 GiB"
    assert record.error["rank"] == 0
    assert "MemoryError" in (run_of(tmp_path).path / record.error["log"]).read_text()
    genrun("verify", exit_code=1)

    genrun("retry", "--item", broken[:6])
    genrun("verify")
    again = run_of(tmp_path).record(broken)
    assert again is not None
    assert (again.status, again.attempt) == ("done", 3)


def test_an_item_that_fails_once_is_done_in_the_end(genrun: Genrun, write_job: WriteJob, tmp_path: Path) -> None:
    write_job()
    faults.put(tmp_path / "faults", "loading", victim="error")
    genrun("submit", "job.yaml")
    attempts = [record.attempt for record in run_of(tmp_path).records().values()]
    assert sorted(attempts) == [1, 1, 1, 1, 1, 2]


def test_submitting_again_tries_failed_items_again(genrun: Genrun, write_job: WriteJob, tmp_path: Path) -> None:
    write_job(launch={"max_attempts": 1})
    faults.put(tmp_path / "faults", "sampling", victim="error")
    genrun("submit", "job.yaml", exit_code=1)
    assert "1 of 6 items would run" in genrun("submit", "job.yaml", "-n").stderr
    genrun("submit", "job.yaml")
    genrun("verify")


def test_a_decoding_that_fails_keeps_the_latents(genrun: Genrun, write_job: WriteJob, tmp_path: Path) -> None:
    write_job()
    write_job(launch={"max_attempts": 1})
    faults.put(tmp_path / "faults", "decoding", victim="error")
    said = genrun("submit", "job.yaml", exit_code=1).stderr
    folder = run_of(tmp_path)
    (record,) = [record for record in folder.records().values() if record.status == "failed"]
    assert record.error is not None and record.latents is not None and record.sampler is not None
    assert record.error["kind"] == "decode"
    assert record.error["remedy"] == "The latents are saved: genrun decode tries again without sampling."
    assert "1 failed: decode: RuntimeError: the model\\nbroke\n  The latents are saved: genrun decode" in said
    assert (folder.path / record.latents).is_file()


def test_memory_that_runs_out_while_decoding_is_saved_once_then_the_item_fails(
    genrun: Genrun, write_job: WriteJob, tmp_path: Path
) -> None:
    write_job(launch={"max_attempts": 1})
    # Beside the next item, again alone, and that of the item after it.
    faults.put(tmp_path / "faults", "decoding", victim="memory", times=3)
    faults.put(tmp_path / "faults", "decoding in tiles", victim="memory")
    genrun("submit", "job.yaml", exit_code=1)
    records = run_of(tmp_path).records().values()
    (failed,) = [record for record in records if record.status == "failed"]
    (saved,) = [record for record in records if record.saving]
    assert failed.error is not None and failed.latents is not None
    assert failed.error["kind"] == "out_of_memory_in_vae"
    assert (saved.status, saved.saving) == ("done", ("tiling", "slicing"))


@pytest.mark.parametrize("change", [{"output": {"save_latents": True}}, {"score": ["latent_rmse"]}])
def test_latents_are_saved_when_asked_for_or_needed(
    genrun: Genrun, write_job: WriteJob, tmp_path: Path, change: dict[str, Any]
) -> None:
    write_job(**change)
    genrun("submit", "job.yaml")
    folder = run_of(tmp_path)
    assert all(folder.latents_path(item.id).is_file() for item in folder.items())
    genrun("verify")


def test_a_full_disk_ends_the_run_with_its_reason_and_nothing_half_written(
    genrun: Genrun, write_job: WriteJob, tmp_path: Path
) -> None:
    write_job()
    faults.put(tmp_path / "faults", "half-written", victim="full")
    stderr = genrun("submit", "job.yaml", exit_code=1).stderr
    assert "cannot be written: No space left on device." in stderr
    assert "The disk is full. Free some space, then run the same command again" in stderr
    folder = run_of(tmp_path)
    assert folder.temporary_files() == []
    assert folder.result_files() == []
    genrun("submit", "job.yaml")
    genrun("verify")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk], check=False).returncode:
        pytest.skip("only root may mount")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_small_disk_fills_up_turns_read_only_and_is_enlarged(
    genrun: Genrun, write_job: WriteJob, small_disk: Path
) -> None:
    write_job(seeds=[0, 1])
    submit = ("submit", "job.yaml", "--set", f"output.dir={small_disk}")
    with (small_disk / "others").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    assert "No space left on device" in genrun(*submit, exit_code=1).stderr
    assert [path.name for path in small_disk.iterdir()] == ["others"]
    (small_disk / "others").unlink()

    assert "No space left on device" in genrun(*submit, exit_code=1).stderr
    folder = RunFolder.open(small_disk / "fake" / "latest")
    done = folder.tally().done
    assert 0 < done < 12
    assert folder.temporary_files() == []
    assert len(folder.result_files()) == done

    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert "cannot be written: Read-only file system." in genrun(*submit, exit_code=1).stderr
    assert folder.tally().done == done

    subprocess.run(["mount", "-o", "remount,rw,size=2m", small_disk], check=True)
    genrun(*submit)
    genrun("verify", str(folder.path))


def test_a_changed_job_starts_another_run_and_is_refused_by_the_old_one(
    genrun: Genrun, write_job: WriteJob, tmp_path: Path
) -> None:
    write_job()
    genrun("submit", "job.yaml")
    old = run_of(tmp_path)
    write_job(seeds=[7])
    assert "'nope': no such run." in genrun("submit", "job.yaml", "-n", "--run", "nope", exit_code=2).stderr
    refusal = genrun("submit", "job.yaml", "--run", str(old.path), exit_code=2).stderr
    assert "    seeds: [0] -> [7]\n" in refusal
    genrun("submit", "job.yaml")
    assert run_of(tmp_path) != old
    assert len(old.records()) == 6
    genrun("verify", str(old.path))


def test_retry_refuses_what_is_done(genrun: Genrun, write_job: WriteJob, tmp_path: Path) -> None:
    write_job()
    genrun("submit", "job.yaml")
    item = run_of(tmp_path).items()[0].id
    assert f"{item}: is done already." in genrun("retry", "--item", item, exit_code=2).stderr


def test_a_worker_that_cannot_start_is_reported_with_its_rank_and_log(
    genrun: Genrun, write_job: WriteJob, tmp_path: Path
) -> None:
    write_job()
    faults.put(tmp_path / "faults", "starting", victim="error")
    stderr = genrun("submit", "job.yaml", exit_code=1).stderr
    (log,) = run_of(tmp_path).logs.glob("*/rank-0.log")
    assert "rank 0: RuntimeError: the model\nbroke\n" in stderr
    assert f"End of {log}:" in stderr


def test_setup_lines_run_before_the_workers(genrun: Genrun, write_job: WriteJob, tmp_path: Path) -> None:
    write_job(launch={"setup": ["touch set-up", "export A='1 2'"]})
    genrun("submit", "job.yaml")
    assert (tmp_path / "set-up").exists()


def test_more_ranks_than_gpus_are_refused_with_their_place_in_the_job(
    genrun: Genrun, write_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genrun.runner.launch import local

    monkeypatch.setattr(local, "gpu_names", lambda: ["H100", "H100"])
    write_job(launch={"kind": "torchrun", "processes": 4})
    result = genrun("submit", "job.yaml", "-n", exit_code=2)
    assert "launch.processes: 4 ranks, and this machine has 2 GPUs" in result.stderr
    assert "job.yaml:" in result.stderr
