"""Verification passes a whole run, and names each thing that is wrong with any other."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from genrun.runner.store.environment import current
from genrun.runner.store.files import atomic_write, temporary_name
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.lease import Leases, Owner
from genrun.runner.store.records import Record, format_record
from genrun.runner.store.verify import verify
from tests.fakes.damage import denied
from tests.fakes.items import dead_process, digest, done, failed, make_folder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    whole = make_folder(tmp_path / "run")
    for item in whole.items():
        done(whole, item, item.id.encode())
    return whole


def found(folder: RunFolder) -> list[tuple[str, str]]:
    return [(flaw.kind, flaw.path) for flaw in verify(folder)]


def media_of(folder: RunFolder, number: int = 0) -> Path:
    return folder.media_path(folder.items()[number], ".png")


def test_a_whole_run_has_no_flaws(folder: RunFolder) -> None:
    assert verify(folder) == []


def test_a_missing_record_is_a_missing_item_and_leaves_an_orphan(folder: RunFolder) -> None:
    item = folder.items()[0]
    folder.record_path(item.id).unlink()
    assert found(folder) == [("missing", item.id), ("orphan", folder.relative(media_of(folder)))]


def test_a_failed_item_is_a_flaw_with_its_reason(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "failed", count=1)
    failed(folder, folder.items()[0])
    (flaw,) = verify(folder)
    assert str(flaw) == f"{folder.items()[0].id}: failed (out_of_memory); genrun retry tries again"


def test_a_lost_file_is_named(folder: RunFolder) -> None:
    media_of(folder).unlink()
    assert found(folder) == [("lost", folder.relative(media_of(folder)))]


def test_one_changed_byte_is_found(folder: RunFolder) -> None:
    content = bytearray(media_of(folder).read_bytes())
    content[3] ^= 1
    media_of(folder).write_bytes(content)
    assert found(folder) == [("changed", folder.relative(media_of(folder)))]


def test_changed_latents_are_found(folder: RunFolder) -> None:
    item = folder.items()[0]
    latents = folder.latents_path(item.id)
    atomic_write(latents, b"latents")
    record = folder.record(item.id)
    assert record is not None
    with_latents = replace(record, latents=folder.relative(latents), latents_sha256="0" * 64)
    folder.record_path(item.id).write_bytes(format_record(with_latents))
    assert found(folder) == [("changed", folder.relative(latents))]


def test_a_file_without_a_record_is_an_orphan(folder: RunFolder) -> None:
    stranger = folder.path / "media" / "zz" / "stranger.mp4"
    atomic_write(stranger, b"?")
    assert found(folder) == [("orphan", "media/zz/stranger.mp4")]


def test_temporary_files_are_flaws(folder: RunFolder) -> None:
    left = temporary_name(media_of(folder))
    left.write_bytes(b"half")
    assert found(folder) == [("temporary", folder.relative(left))]


def test_a_held_lease_is_a_flaw(folder: RunFolder) -> None:
    item = folder.items()[0]
    with Leases(folder, Owner(current(), "me.0")).claim(item.id) or pytest.fail("not claimed"):
        (flaw,) = verify(folder)
        assert (flaw.kind, flaw.path) == ("lease", item.id)
        assert flaw.message == f"a worker still holds this item: process {os.getpid()} on {current().host}, me.0"


def test_a_lease_of_a_killed_worker_is_told_from_one_of_a_worker_that_lives(folder: RunFolder) -> None:
    item = folder.items()[0]
    lease = Leases(folder, Owner(dead_process(), "me.0")).claim(item.id) or pytest.fail("not claimed")
    lease._released.set()
    (flaw,) = verify(folder)
    assert str(flaw) == f"{item.id}: is still held by a worker that was killed; the next submit lets it go"


def test_an_unplanned_record_is_a_flaw(folder: RunFolder) -> None:
    stranger = digest("stranger")
    folder.write_record(Record(stranger, "failed", error={"kind": "x"}))
    assert found(folder) == [("unplanned", stranger)]


def test_a_spoilt_record_is_a_flaw_and_the_rest_is_still_checked(folder: RunFolder) -> None:
    item = folder.items()[0]
    folder.record_path(item.id).write_bytes(b"{")
    media_of(folder, 1).unlink()
    kinds = [kind for kind, _ in found(folder)]
    assert sorted(kinds) == ["lost", "orphan", "unreadable"]


def test_a_record_under_another_name_is_a_flaw(folder: RunFolder) -> None:
    path = folder.record_path(folder.items()[0].id)
    fields = json.loads(path.read_bytes()) | {"item_id": digest("other")}
    path.write_text(json.dumps(fields))
    assert ("unreadable", folder.relative(path)) in found(folder)


def test_files_are_not_accused_while_their_records_may_not_be_looked_into(folder: RunFolder) -> None:
    with denied(folder.path / "items"):
        assert found(folder) == [("denied", "items")]
    item = folder.items()[0]
    with denied(folder.record_path(item.id)):
        assert found(folder) == [("denied", folder.relative(folder.record_path(item.id)))]
