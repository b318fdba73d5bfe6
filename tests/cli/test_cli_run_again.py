"""A job that is submitted again uses what earlier runs made, makes what was lost, and rewrites what is out of date."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genrun.runner.store import repair
from genrun.runner.store.folder import RunFolder
from tests.cli.conftest import Genrun, last_json
from tests.fakes import faults
from tests.fakes.worker import picture

pytestmark = pytest.mark.e2e

WriteJob = Callable[..., dict[str, Any]]
PROMPTS = ["a cat", "a dog", "a bird"]


def run_of(path: Path) -> RunFolder:
    return RunFolder.open(path / "runs" / "fake" / "latest")


def runs(path: Path) -> list[Path]:
    return sorted(found for found in (path / "runs" / "fake").glob("2*") if found.is_dir())


def test_items_of_earlier_runs_are_reused_and_outlive_them(genrun: Genrun, write_job: WriteJob, tmp_path: Path) -> None:
    write_job(prompts=PROMPTS[:2])
    genrun("submit", "job.yaml")
    old = run_of(tmp_path)
    write_job(prompts=PROMPTS, seeds=[0, 1], score=["psnr"])
    preview = last_json(genrun("submit", "job.yaml", "-n", "--json"))
    assert (preview["run"], preview["reused"], preview["pending"], preview["done"]) == (None, 4, 8, 0)
    assert "4 reused, 8 new." in genrun("submit", "job.yaml", "-n").stderr
    assert len(runs(tmp_path)) == 1

    said = genrun("submit", "job.yaml", "--json")
    new = run_of(tmp_path)
    assert f"{new.path}: 4 reused, 8 new." in said.stderr
    assert "12/12 done" in said.stderr
    assert (last_json(said)["reused"], last_json(said)["done"]) == (4, 12)
    records = new.records()
    for item_id, record in old.records().items():
        assert records[item_id].reused_from == old.path.name
        assert records[item_id].host == record.host and records[item_id].elapsed_s == record.elapsed_s
        assert (new.path / str(record.media)).stat().st_ino == (old.path / str(record.media)).stat().st_ino
    assert sum(record.reused_from is None for record in records.values()) == 8
    genrun("verify")

    shutil.rmtree(old.path)
    genrun("verify")
    write_job(prompts=PROMPTS[1:], seeds=[1])
    said = genrun("submit", "job.yaml")
    assert ": 4 reused, 0 new." in said.stderr
    assert {record.reused_from for record in run_of(tmp_path).records().values()} == {new.path.name}
    genrun("verify")


def test_a_new_run_is_made_of_the_same_items_when_asked_for(
    genrun: Genrun, write_job: WriteJob, tmp_path: Path
) -> None:
    write_job(prompts=PROMPTS[:1])
    genrun("submit", "job.yaml")
    said = genrun("submit", "job.yaml", "--new", "--json")
    assert last_json(said)["reused"] == 0 and len(runs(tmp_path)) == 2
    assert all(record.reused_from is None for record in run_of(tmp_path).records().values())
    refusal = genrun("submit", "job.yaml", "--new", "--run", "fake", exit_code=2).stderr
    assert "--new makes a run, and --run names one" in refusal


def test_damaged_files_and_files_written_otherwise_are_not_reused(
    genrun: Genrun, write_job: WriteJob, tmp_path: Path
) -> None:
    write_job(prompts=PROMPTS, matrix={})
    genrun("submit", "job.yaml")
    first, *_ = run_of(tmp_path).items()
    media = run_of(tmp_path).media_path(first, ".png")
    stamp = media.stat()
    media.write_bytes(b"damaged" * 100)
    os.utime(media, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    write_job(prompts=PROMPTS, matrix={}, seeds=[0, 1])
    assert ": 2 reused, 4 new." in genrun("submit", "job.yaml").stderr
    genrun("verify")
    write_job(prompts=PROMPTS, matrix={}, seeds=[0, 1, 2], output={"format": "mp4"})
    assert "reused" not in genrun("submit", "job.yaml").stderr
    write_job(prompts=PROMPTS, matrix={}, seeds=[1], output={"format": "mp4", "save_latents": True})
    assert "reused" not in genrun("submit", "job.yaml").stderr
    genrun("verify")


def test_lost_files_are_made_again_by_the_same_command(genrun: Genrun, write_job: WriteJob, tmp_path: Path) -> None:
    write_job()
    genrun("submit", "job.yaml")
    folder = run_of(tmp_path)
    gone, empty, flipped, *_ = [folder.media_path(item, ".png") for item in folder.items()]
    gone.unlink()
    empty.write_bytes(b"")
    flipped.write_bytes(flipped.read_bytes()[:-1] + b"?")
    said = genrun("submit", "job.yaml", "-n")
    assert "3 lost, made again" in said.stderr and "3 of 6 items would run" in said.stderr
    assert {record.status for record in folder.records().values()} == {"done"}
    said = genrun("submit", "job.yaml", "--json")
    assert f"{folder.path}: 3 lost, made again: media/" in said.stderr
    for why in ("is not there", "is empty", "is not the file that was written: its SHA-256 differs"):
        assert why in said.stderr
    assert (last_json(said)["lost"], last_json(said)["done"]) == (3, 6)
    genrun("verify")
    assert run_of(tmp_path) == folder


def test_retry_makes_a_lost_item_again_whatever_its_time_stamp_says(
    genrun: Genrun, write_job: WriteJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of a large run, submit reads what was written since; retry reads the item that is named.
    monkeypatch.setattr(repair, "READ_ANYWAY", 0)
    write_job(prompts=PROMPTS[:1])
    genrun("submit", "job.yaml")
    folder = run_of(tmp_path)
    first, second = folder.items()
    media = folder.media_path(first, ".png")
    media.write_bytes(bytes(media.stat().st_size))
    os.utime(media, (1, 1))
    genrun("submit", "job.yaml")
    genrun("verify", exit_code=1)
    assert "1 lost, made again" in genrun("retry", "--item", first.id).stderr
    genrun("verify")
    folder.media_path(second, ".png").unlink()
    assert "1 failed and 0 missing items." in genrun("retry").stderr
    genrun("verify")


def test_media_are_written_again_from_their_latents_when_output_changes(
    genrun: Genrun, write_job: WriteJob, tmp_path: Path
) -> None:
    write_job(output={"save_latents": True, "format": "mp4"})
    genrun("submit", "job.yaml")
    folder = run_of(tmp_path)
    before = folder.records()
    # Were anything sampled, it would fail.
    faults.put(tmp_path / "faults", "sampling", victim="error", times=20)
    write_job(output={"save_latents": True, "format": "mp4", "crf": 30})
    said = genrun("submit", "job.yaml", "--json")
    assert f"{folder.path}: 6 are written again from their latents, as `output` has changed." in said.stderr
    assert last_json(said)["rewritten"] == 6
    for item in folder.items():
        record = folder.record(item.id)
        assert record is not None and record.output == {"format": "mp4", "fps": None, "crf": 30}
        assert folder.media_path(item, ".mp4").read_bytes() == picture(item) + b"crf 30"
        assert record.latents_sha256 == before[item.id].latents_sha256
        assert record.elapsed_s == before[item.id].elapsed_s
    assert folder.job_document()["output"]["crf"] == 30
    genrun("verify")

    write_job(output={"save_latents": True, "format": "png"})
    genrun("submit", "job.yaml")
    assert {path.suffix for path in folder.result_files()} == {".png", ".safetensors"}
    genrun("verify")


def test_media_that_cannot_be_written_again_keep_what_there_was(
    genrun: Genrun, write_job: WriteJob, tmp_path: Path
) -> None:
    write_job(prompts=PROMPTS[:1], output={"save_latents": True, "format": "mp4"})
    genrun("submit", "job.yaml")
    folder = run_of(tmp_path)
    before = {path: path.read_bytes() for path in folder.result_files()}
    faults.put(tmp_path / "faults", "sampling", victim="error", times=20)
    faults.put(tmp_path / "faults", "decoding", victim="error", times=4)
    write_job(prompts=PROMPTS[:1], output={"save_latents": True, "format": "png"})
    genrun("submit", "job.yaml", exit_code=1)
    assert {path: path.read_bytes() for path in folder.result_files()} == before
    assert [record.attempt for record in folder.records().values()] == [3, 3]
    assert {line.rpartition(": ")[2] for line in genrun("verify", exit_code=1).stdout.splitlines()} == {
        "failed (decode); genrun retry tries again"
    }
    genrun("submit", "job.yaml")
    assert {path.suffix for path in folder.result_files()} == {".png", ".safetensors"}
    genrun("verify")


def test_latents_that_are_damaged_are_no_way_out(genrun: Genrun, write_job: WriteJob, tmp_path: Path) -> None:
    write_job(prompts=PROMPTS[:1], output={"save_latents": True})
    genrun("submit", "job.yaml")
    folder = run_of(tmp_path)
    first, second = folder.items()
    folder.media_path(first, ".png").unlink()
    folder.latents_path(first.id).write_bytes(b"?")
    folder.latents_path(second.id).unlink()
    assert "2 lost, made again" in genrun("submit", "job.yaml").stderr
    genrun("verify")
    assert folder.latents_path(second.id).read_bytes() == b"latents " + picture(second)[:100]


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ({"format": "mp4"}, "output.format: png -> mp4"),
        ({"save_latents": True}, "output.save_latents: False -> True"),
    ],
)
def test_output_that_finished_items_cannot_have_is_refused(
    genrun: Genrun, write_job: WriteJob, tmp_path: Path, output: dict[str, Any], told: str
) -> None:
    write_job()
    genrun("submit", "job.yaml")
    folder = run_of(tmp_path)
    stored = (folder.path / "job.yaml").read_bytes()
    write_job(output=output)
    assert "6 items are done, and" in genrun("submit", "job.yaml", "-n", exit_code=2).stderr
    refusal = genrun("submit", "job.yaml", exit_code=2).stderr
    assert "6 items are done, and their latents were not saved" in refusal
    assert (
        f"    {told}\n  Restore the old values, or make all items again in a new run: genrun submit JOB --new."
        in refusal
    )
    assert (folder.path / "job.yaml").read_bytes() == stored
    genrun("verify")
    # What no file depends on is followed at once.
    write_job(output={"crf": 30})
    genrun("submit", "job.yaml")
    assert folder.job_document()["output"]["crf"] == 30
    assert len(runs(tmp_path)) == 1


def test_runs_go_where_the_command_says_and_an_unknown_run_is_wrong_usage(
    genrun: Genrun, write_job: WriteJob, tmp_path: Path
) -> None:
    write_job(prompts=PROMPTS[:1])
    run = json.loads(genrun("submit", "job.yaml", "--runs", "else where", "--json").stdout.splitlines()[-1])["run"]
    assert Path(run).parent == tmp_path / "else where" / "fake"
    assert RunFolder.open(Path(run)).job_document()["output"]["dir"] == "else where"
    assert not (tmp_path / "runs").exists()
    assert "'nope': no such run." in genrun("submit", "job.yaml", "--run", "nope", exit_code=2).stderr
    assert "0 of 2 items would run" in genrun("submit", "job.yaml", "--runs", "else where", "-n").stderr


def test_a_home_is_filled_in(
    genrun: Genrun, write_job: WriteJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write_job(prompts=PROMPTS[:1], output={"dir": "~/runs"})
    run = Path(genrun("submit", "job.yaml").stdout.strip())
    assert run.is_relative_to(tmp_path / "home" / "runs" / "fake")
    assert not (tmp_path / "~").exists()


def test_a_run_that_was_begun_with_eight_workers_goes_on_with_them(genrun: Genrun, write_job: WriteJob) -> None:
    # Up to 0.1.0 that was the default; now a job that says no number has as many as its mesh has time ranks.
    write_job(solver={"kind": "ropa", "workers": 8}, matrix={}, prompts=["a cat"])
    older = last_json(genrun("submit", "job.yaml", "--json"))
    write_job(solver="ropa", matrix={}, prompts=["a cat"])
    again = genrun("submit", "job.yaml", "--json")
    named = genrun("submit", "job.yaml", "--run", older["run"], "--json")
    fresh = last_json(genrun("submit", "job.yaml", "--new", "--json"))
    known = last_json(genrun("submit", "job.yaml", "--json"))

    assert "goes on with 8 workers, as it was begun" in again.stderr
    assert {last_json(each)["run"] for each in (again, named)} == {older["run"]}
    assert fresh["run"] != older["run"] and known["run"] == fresh["run"]
