"""A run folder keeps what it was given, whole or not at all, and one result for each item."""

import errno
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from genrun.runner.errors import StoreError
from genrun.runner.store import files
from genrun.runner.store.files import atomic_write, is_temporary, staged, temporary_name
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.order import Order, open_items
from genrun.runner.store.records import Record, SamplerStats, format_record, parse_record
from genrun.runner.store.results import is_lost
from tests.fakes.items import HOSTILE, digest, document, done, failed, make_folder, make_item


def lost_items(folder: RunFolder) -> list[str]:
    return [item_id for item_id, record in folder.records(check_files=True).items() if is_lost(record)]


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def full_disk(monkeypatch: pytest.MonkeyPatch, after_bytes: int = 0) -> None:
    def write(descriptor: int, data: bytes) -> int:
        if after_bytes and not written:
            written.append(1)
            return real(descriptor, bytes(data)[:after_bytes])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    written: list[int] = []
    real = os.write
    monkeypatch.setattr(files.os, "write", write)


def test_atomic_write_replaces_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.json"
    atomic_write(path, b"old")
    atomic_write(path, b"new")
    assert path.read_bytes() == b"new"
    assert everything(tmp_path) == ["deep", "deep/file.json"]


def test_a_full_disk_leaves_the_old_content_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    atomic_write(path, b"old")
    full_disk(monkeypatch, after_bytes=2)
    with pytest.raises(StoreError) as caught:
        atomic_write(path, b"newer")
    assert str(caught.value) == (
        f"{path}: cannot be written: No space left on device.\n"
        "  The disk is full. Free some space, then run the same command again: finished items are kept."
    )
    assert caught.value.exit_code == 1
    with pytest.raises(StoreError):
        atomic_write(tmp_path / "new" / "folder" / "file.json", b"newer")
    assert path.read_bytes() == b"old"
    assert everything(tmp_path) == ["file.json"]


def test_a_read_only_folder_is_named_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(files.os, "open", refuse)
    with pytest.raises(StoreError) as caught:
        atomic_write(tmp_path / "file", b"")
    assert str(caught.value) == (
        f"{tmp_path / 'file'}: cannot be written: Read-only file system.\n"
        "  The file system is read-only. Make it writable, or write to another folder; runs of a job go where "
        "--set output.dir=FOLDER says."
    )


def test_staged_file_appears_only_after_the_block(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with staged(path) as temporary:
        temporary.write_bytes(b"clip")
        assert not path.exists()
        assert temporary.suffix == ".mp4"
    assert everything(tmp_path) == ["clip.mp4"]


@pytest.mark.parametrize("name", ["", ".", "/"])
def test_a_path_without_a_name_is_refused(name: str) -> None:
    with pytest.raises(StoreError, match="not the name of a file"):
        atomic_write(Path(name), b"text")


def test_staged_file_is_removed_when_the_block_raises(tmp_path: Path) -> None:
    with pytest.raises(KeyError), staged(tmp_path / "clip.mp4") as temporary:
        temporary.write_bytes(b"half")
        raise KeyError
    assert everything(tmp_path) == []


@pytest.mark.parametrize("name", ["a.mp4", "3f9c.json", "latest", "plan.jsonl", ".hidden"])
def test_temporary_names_are_told_from_others(name: str) -> None:
    assert is_temporary(temporary_name(Path(name)).name)
    assert not is_temporary(name)


def test_a_new_run_gives_back_its_plan_and_its_job(tmp_path: Path) -> None:
    items = [make_item(0, prompt=HOSTILE), make_item(1, negative_prompt="\u2028ugly\r\n")]
    job = document(prompts=[HOSTILE])
    folder = RunFolder.create(tmp_path / "run", job, items)
    assert folder.items() == items
    assert folder.job_document() == job
    assert folder.environment()["versions"]["genrun"]
    assert everything(folder.path) == ["env.json", "job.yaml", "plan.jsonl"]


def test_a_run_that_cannot_be_written_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full_disk(monkeypatch)
    with pytest.raises(StoreError, match="No space left"):
        RunFolder.create(tmp_path / "runs" / "run", document(), [make_item(0)])
    assert everything(tmp_path) == ["runs"]


def test_an_existing_run_is_never_overwritten(tmp_path: Path) -> None:
    make_folder(tmp_path / "run")
    with pytest.raises(StoreError, match="cannot be written"):
        make_folder(tmp_path / "run", count=9)
    assert len(RunFolder.open(tmp_path / "run").items()) == 3


def test_a_folder_without_a_plan_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"not a run folder: it has no plan\.jsonl"):
        RunFolder.open(tmp_path)


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    record = Record(
        "ab" * 10,
        "failed",
        3,
        sampler=SamplerStats(50, 9, 60, (3, 50), "sequential", 2),
        error={"kind": "decode", "message": "ü\n", "rank": 1},
        versions={"torch": "2"},
    )
    assert parse_record(format_record(record)) == record


def test_an_item_with_a_spoilt_record_is_one_to_make_again(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run")
    item = folder.items()[0]
    done(folder, item)
    atomic_write(folder.record_path(item.id), b'{"item_id": ')
    record = folder.records()[item.id]
    assert folder.record(item.id) == record
    assert (record.status, (record.error or {})["kind"]) == ("failed", "damaged_record")
    assert lost_items(folder) == [item.id]
    assert done(folder, item, b"again")
    assert folder.tally().done == 1


@pytest.mark.parametrize(
    "spoil", [Path.unlink, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"pic")]
)
def test_an_item_whose_picture_is_lost_is_one_to_make_again(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    folder = make_folder(tmp_path / "run")
    item = folder.items()[0]
    done(folder, item)
    assert lost_items(folder) == []
    spoil(folder.media_path(item, ".png"))
    assert lost_items(folder) == [item.id]
    assert (folder.tally().done, folder.tally().failed) == (0, 1)
    assert open_items(folder, Order("again", items=(item.id,))) == [item.id]
    assert done(folder, item, b"again")
    assert folder.media_path(item, ".png").read_bytes() == b"again"
    assert folder.tally().done == 1


def test_file_names_hold_no_prompt_text(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", document(), [make_item(0, prompt="../../secret")])
    (item,) = folder.items()
    assert folder.relative(folder.media_path(item, ".mp4")) == f"media/{item.id[:2]}/{item.id}.mp4"
    assert folder.relative(folder.latents_path(item.id)) == f"latents/{item.id[:2]}/{item.id}.safetensors"
    assert folder.relative(folder.record_path(item.id)) == f"items/{item.id[:2]}/{item.id}.json"


def test_a_done_item_is_never_replaced(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run")
    item = folder.items()[0]
    assert done(folder, item, b"first")
    assert not done(folder, item, b"second")
    assert not failed(folder, item)
    assert folder.media_path(item, ".png").read_bytes() == b"first"
    assert folder.temporary_files() == []


def test_a_failed_item_is_replaced_by_a_later_attempt(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run")
    item = folder.items()[0]
    assert failed(folder, item)
    assert done(folder, item, attempt=2)
    record = folder.record(item.id)
    assert record is not None
    assert (record.status, record.attempt) == ("done", 2)


def test_of_many_that_finish_at_once_one_result_stays_whole(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run")
    item = folder.items()[0]
    start = threading.Barrier(8)
    wins: list[int] = []

    def finish(number: int) -> None:
        start.wait()
        if done(RunFolder.open(folder.path), item, b"%d" % number * 1000):
            wins.append(number)

    threads = [threading.Thread(target=finish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    record = folder.record(item.id)
    assert record is not None
    content = folder.media_path(item, ".png").read_bytes()
    assert len(wins) == 1
    assert content == b"%d" % wins[0] * 1000
    assert record.sha256 == hashlib.sha256(content).hexdigest()


def test_a_full_disk_at_the_record_leaves_the_item_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder(tmp_path / "run")
    item = folder.items()[0]
    full_disk(monkeypatch)
    with pytest.raises(StoreError, match="disk is full"):
        done(folder, item)
    assert folder.record(item.id) is None
    assert folder.temporary_files() == []


def test_temporary_files_of_one_item_are_told_from_the_others(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run")
    first, second = folder.items()[:2]
    left = [temporary_name(folder.media_path(item, ".png")) for item in (first, second)]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    assert folder.temporary_files(first.id) == [left[0]]
    assert sorted(folder.temporary_files()) == sorted(left)


def test_tally_counts_planned_items_only(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run", count=4)
    items = folder.items()
    done(folder, items[0])
    failed(folder, items[1])
    folder.write_record(Record(digest("stranger"), "done"))
    tally = folder.tally()
    assert (tally.items, tally.done, tally.failed, tally.pending) == (4, 1, 1, 2)


def test_nothing_takes_the_place_of_a_device_or_a_pipe(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "null"
    os.mkfifo(pipe)
    link.symlink_to(os.devnull)
    atomic_write(link, b"goes where all that is written there goes")
    with pytest.raises(StoreError, match="pipe"):
        atomic_write(pipe, b"nobody reads it")
    with pytest.raises(StoreError, match="nothing may take its place"), staged(link):
        pass
    assert pipe.is_fifo()
    assert link.is_symlink() and link.is_char_device()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["null", "pipe"]
