"""What is damaged is named; the rest is scored, and nothing is lost."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genrun.adapters.media import write_video
from genrun.runner.job.plan import WorkItem
from genrun.runner.score.metrics import wanted_metrics
from genrun.runner.score.scoring import Shard, score_run
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.scores import read_scores
from tests.sample_run import CAPTIONS, ROPA, SEQUENTIAL, make_run

METRICS = ("psnr", "temporal_flicker", "checker")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "demo" / "run", prompts=CAPTIONS[:3])


def victim(run: RunFolder) -> WorkItem:
    return next(item for item in run.items() if item.solver["kind"] == "ropa")


def adopt(run: RunFolder, item: WorkItem, path: Path, media: str | None = None) -> None:
    """Have the record say that the file is as it was made."""
    record = run.record(item.id)
    assert record is not None
    run.record_path(item.id).unlink()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    run.write_record(replace(record, sha256=digest, media=media or record.media))


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_between_frames(path: Path) -> None:
    """A clip whose index lists nine frames and whose data end behind an earlier one: nothing in it is damaged."""
    import av

    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        end = sorted((packet.pos or 0) + packet.size for packet in packets)[4]
    path.write_bytes(path.read_bytes()[:end])


def of_one_frame(path: Path) -> None:
    write_video(path, np.zeros((1, 64, 64, 3), np.uint8), fps=8)


def of_another_size(path: Path) -> None:
    write_video(path, np.zeros((9, 32, 48, 3), np.uint8), fps=8)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut_in_half, "cut off or damaged"),
        (cut_between_frames, "of 9 frames are there"),
        (empty, "the file is empty"),
        (of_one_frame, "has 1 frame, 9 were asked for"),
        (of_another_size, "is 48x32 pixels, 64x64 were asked for"),
    ],
    ids=["cut", "cut between frames", "empty", "one frame", "size"],
)
@pytest.mark.parametrize("recorded", [True, False], ids=["as recorded", "changed since"])
def test_a_damaged_clip_is_named_and_the_rest_scored(
    run: RunFolder, damage: Callable[[Path], None], reason: str, recorded: bool
) -> None:
    item = victim(run)
    path = run.media_path(item, ".mp4")
    damage(path)
    if recorded:
        adopt(run, item, path)
    rows = score_run(run, wanted_metrics(run, METRICS))
    assert {row.metric for row in rows} >= set(METRICS)
    for row in (row for row in rows if row.item_id == item.id):
        assert row.value is None
        assert row.reason is not None and path.name in row.reason and reason in row.reason
        assert ("not the file that was made" in row.reason) is not recorded
    others = [row for row in rows if row.item_id != item.id and row.metric != "psnr"]
    assert others and all(row.value is not None for row in others)


def test_an_empty_picture_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo" / "run", image=True)
    item = victim(run)
    path = run.media_path(item, ".png")
    path.write_bytes(b"")
    adopt(run, item, path)
    rows = {row.item_id: row for row in score_run(run, wanted_metrics(run, ["psnr"]))}
    assert rows[item.id].reason == f"media file cannot be decoded: {path.name}: the file is empty"


def test_a_file_that_changed_since_is_named_with_both_hashes_and_its_old_score_comes_back_with_it(
    run: RunFolder,
) -> None:
    metrics = wanted_metrics(run, ["temporal_flicker"])
    first = score_run(run, metrics)
    path = run.media_path(victim(run), ".mp4")
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0")
    row = next(row for row in score_run(run, metrics) if row.item_id == victim(run).id)
    assert row.value is None and row.reason is not None
    for data in (whole, whole + b"\0"):
        assert hashlib.sha256(data).hexdigest()[:12] in row.reason
    path.write_bytes(whole)
    assert score_run(run, metrics) == first


def test_a_changed_reference_is_said_to_be_the_reference(run: RunFolder) -> None:
    reference = next(item for item in run.items() if item.is_reference)
    path = run.media_path(reference, ".mp4")
    path.write_bytes(path.read_bytes() + b"\0")
    rows = score_run(run, wanted_metrics(run, ["psnr"]))
    wrong = [row for row in rows if row.reason and row.reason.startswith("the sequential item: ")]
    assert len(wrong) == 1


@pytest.mark.parametrize("at", [0.3, 0.5, 0.8])
def test_a_score_file_that_is_cut_is_named_and_completed(run: RunFolder, at: float) -> None:
    metrics = wanted_metrics(run, METRICS)
    first = score_run(run, metrics)
    path = run.scores_path("checker")
    data = path.read_bytes()
    path.write_bytes(data[: int(at * len(data))])
    notes: list[str] = []
    assert score_run(run, metrics, note=notes.append) == first
    assert notes and all("checker.jsonl" in note and "measured again" in note for note in notes)
    assert path.read_bytes() == data


def test_an_entry_of_which_only_some_rows_are_left_does_not_pass_for_whole(run: RunFolder) -> None:
    first = score_run(run, wanted_metrics(run, ["checker"]))
    path = run.scores_path("checker")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]))
    notes: list[str] = []
    left = read_scores(run, notes.append)
    assert len(left) == len(first) - 6
    assert [note.partition(": ")[2][:14] for note in notes] == ["4 of 6 rows of"]


def test_garbage_in_a_score_file_is_named_by_line(run: RunFolder) -> None:
    first = score_run(run, wanted_metrics(run, ["psnr"]))
    path = run.scores_path("psnr")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b"\xff\xfe{]\n", *lines[1:], b"[1]\n", b'{"item_id": 3}\n']))
    notes: list[str] = []
    assert score_run(run, wanted_metrics(run, ["psnr"]), note=notes.append) == first
    assert [note.split(":")[1] for note in notes] == ["2", str(len(lines) + 2), str(len(lines) + 3)]


def test_shards_measure_every_pair_once_and_keep_what_the_others_entered(tmp_path: Path) -> None:
    whole = make_run(tmp_path / "a" / "run", prompts=CAPTIONS, solvers=(SEQUENTIAL, ROPA))
    parts = make_run(tmp_path / "b" / "run", prompts=CAPTIONS, solvers=(SEQUENTIAL, ROPA))
    expected = score_run(whole, wanted_metrics(whole, METRICS))
    assert len(score_run(parts, wanted_metrics(parts, METRICS), shard=Shard(0, 3))) < len(expected)
    for index in (2, 1):
        rows = score_run(parts, wanted_metrics(parts, METRICS), shard=Shard(index, 3))
    assert rows == expected
