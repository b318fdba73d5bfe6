"""Finishing an item beside the next one's sampling: overlap, bounded, the same bytes, and nothing lost when it fails."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from genrun.runner.job.plan import WorkItem
from genrun.runner.parallel.team import Solo
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.lease import holdings
from genrun.runner.store.order import Order
from genrun.runner.store.records import Record
from genrun.runner.store.verify import verify
from genrun.runner.worker.engine import Engine
from genrun.runner.worker.finish import Background, has_dropped_work
from genrun.runner.worker.main import Rank
from genrun.runner.worker.sample import ItemSampler
from tests.fakes.items import document, make_folder, make_item
from tests.fakes.worker import FakeProducer, FakeSample, picture
from tests.tiny.checkpoints import save

WAIT_S = 60.0


def nothing() -> None:
    pass


def make_all(folder: RunFolder, producer: Any, attempts: int = 2) -> None:
    Rank(folder, Order("job", max_attempts=attempts)).run(lambda *_: producer)


@dataclass
class Threads:
    """Told of moments, and waits for others."""

    seen: list[str] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def tell(self, moment: str) -> None:
        with self.changed:
            self.seen.append(moment)
            self.changed.notify_all()

    def wait(self, moment: str) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: moment in self.seen, WAIT_S), f"{moment}: {self.seen}"


class Watched(FakeProducer):
    """Its samples tell when they are begun and decoded; `decoding` comes first at each decoding."""

    def __init__(self, decoding: Callable[[int, Threads], None], *, can_overlap: bool = True) -> None:
        super().__init__({}, Solo(), 0)
        self.threads, self.decoding, self.can_overlap = Threads(), decoding, can_overlap

    def sample(self, item: WorkItem, on_round: Callable[[int, int], None]) -> FakeSample:
        self.threads.tell(f"sample {item.seed}")

        def meet(moment: str, item_id: str) -> None:
            if moment == "decoding":
                self.decoding(item.seed, self.threads)
                self.threads.tell(f"decoded {item.seed}")

        return replace(super().sample(item, on_round), meet=meet, can_overlap=self.can_overlap)


def test_an_item_is_decoded_while_the_next_one_is_sampled(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run", 3)

    def decoding(number: int, threads: Threads) -> None:
        if number < 2:
            threads.wait(f"sample {number + 1}")

    producer = Watched(decoding)
    make_all(folder, producer)
    assert folder.tally().done == 3 and verify(folder) == [] and holdings(folder) == {}
    assert all(folder.media_path(item, ".png").read_bytes() == picture(item) for item in folder.items())


def test_at_most_one_item_waits_to_be_decoded(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run", 4)
    producer = Watched(lambda *_: None)
    make_all(folder, producer)
    seen = producer.threads.seen
    for number in range(2):
        assert seen.index(f"decoded {number}") < seen.index(f"sample {number + 2}")


def test_what_cannot_be_decoded_apart_is_decoded_before_the_next_is_sampled(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run", 3)
    producer = Watched(lambda *_: None, can_overlap=False)
    make_all(folder, producer)
    assert producer.threads.seen == [f"{what} {number}" for number in range(3) for what in ("sample", "decoded")]


def test_the_last_item_is_tried_again_when_its_decoding_fails_beside(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run", 2)
    failures = []

    def decoding(number: int, threads: Threads) -> None:
        if number == 1 and not failures:
            failures.append(number)
            raise RuntimeError("the decoder broke")

    make_all(folder, Watched(decoding))
    records = folder.records()
    assert [records[item.id].attempt for item in folder.items()] == [1, 2]
    assert folder.tally().done == 2 and failures == [1]
    assert verify(folder) == [], "latents of the first attempt are left"


def test_a_decoding_that_fails_beside_keeps_the_latents(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run", 2)

    def decoding(number: int, threads: Threads) -> None:
        if number == 0:
            raise RuntimeError("the decoder broke")

    make_all(folder, Watched(decoding), attempts=1)
    first, second = (folder.records()[item.id] for item in folder.items())
    assert (first.status, second.status) == ("failed", "done")
    assert first.error is not None and first.error["kind"] == "decode" and first.latents is not None
    assert (folder.path / first.latents).is_file() and holdings(folder) == {}
    assert [flaw.kind for flaw in verify(folder)] == ["failed"]


def test_latents_of_a_failed_decoding_outlive_an_attempt_that_fails_earlier(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run", 1)

    def decoding(number: int, threads: Threads) -> None:
        raise RuntimeError("the decoder broke")

    make_all(folder, Watched(decoding), attempts=1)
    (item,) = folder.items()
    before = folder.records()[item.id]
    folder.write_record(Record(item.id, "failed", 2, error={"kind": "error", "message": "the model broke"}))
    after = folder.records()[item.id]
    assert (after.attempt, after.latents, after.latents_sha256) == (2, before.latents, before.latents_sha256)
    assert [flaw.kind for flaw in verify(folder)] == ["failed"]


def test_memory_that_is_too_small_for_both_is_used_one_after_the_other(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run", 4)
    main, where = threading.current_thread(), []

    def decoding(number: int, threads: Threads) -> None:
        where.append((number, threading.current_thread() is main))
        if threading.current_thread() is not main:
            raise MemoryError("no memory left")

    make_all(folder, Watched(decoding))
    assert where == [(0, False), (0, True), (1, True), (2, True), (3, True)]
    records = folder.records().values()
    assert all((record.status, record.attempt, record.saving) == ("done", 1, ()) for record in records)


def test_a_success_beside_counts_before_a_worker_is_taken_for_broken(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run", 4)

    class Failing(Watched):
        def sample(self, item: WorkItem, on_round: Callable[[int, int], None]) -> FakeSample:
            if item.seed in (0, 2):
                self.threads.tell(f"failed {item.seed}")
                raise RuntimeError("the model broke")
            return super().sample(item, on_round)

    def decoding(number: int, threads: Threads) -> None:
        if number == 1:
            threads.wait("failed 2")

    producer = Failing(decoding)
    Rank(folder, Order("job", max_attempts=1), give_up=2).run(lambda *_: producer)
    states = [folder.records()[item.id].status for item in folder.items()]
    assert states == ["failed", "done", "failed", "done"]


def test_a_failed_disk_ends_the_worker_as_ever(tmp_path: Path) -> None:
    from genrun.runner.errors import StoreError

    folder = make_folder(tmp_path / "run", 3)

    class Full(Watched):
        def write(self, path: Path, frames: bytes, metadata: dict[str, Any]) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="No space left on device"):
        make_all(folder, Full(lambda *_: None))
    assert folder.record_files() == [] and folder.temporary_files() == [] and holdings(folder) == {}


def test_a_stop_lets_the_item_beside_end_and_drops_the_one_in_work(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run", 3)

    class Stopped(Watched):
        def sample(self, item: WorkItem, on_round: Callable[[int, int], None]) -> FakeSample:
            if item.seed == 1:
                self.threads.tell("stop")
                raise KeyboardInterrupt
            return super().sample(item, on_round)

    with pytest.raises(KeyboardInterrupt):
        make_all(folder, Stopped(lambda number, threads: threads.wait("stop")))
    assert [path.stem for path in folder.record_files()] == [folder.items()[0].id]
    assert holdings(folder) == {} and folder.temporary_files() == []


def test_work_that_does_not_end_is_dropped_when_the_process_has_to() -> None:
    go, dropped = threading.Event(), []

    def work() -> None:
        go.wait(WAIT_S)

    with pytest.raises(KeyboardInterrupt), Background(stop_wait_s=0.01) as background:
        background.start(work, lambda: dropped.append(1))
        raise KeyboardInterrupt
    assert dropped == [1] and has_dropped_work()
    go.set()
    background.wait()
    assert not has_dropped_work()


def test_what_the_work_raises_is_raised_where_it_is_waited_for() -> None:
    def work() -> None:
        raise ValueError("of the work")

    with Background() as background:
        background.start(work, nothing)
        with pytest.raises(ValueError, match="of the work"):
            background.start(nothing, nothing)
        assert background.is_idle


CACHED = {"kind": "first_block", "threshold": 0.5}


@pytest.mark.e2e
def test_the_bytes_are_those_of_one_item_after_the_other(tmp_path: Path) -> None:
    """With a cache, whose contents are the denoiser's own, and a scheduler that remembers steps."""
    model = {"adapter": "auto", "checkpoint": str(save("wan21", tmp_path / "weights")), "dtype": "float32"}
    sampling = {"steps": 4, "height": 32, "width": 32, "num_frames": 5, "guidance_scale": 3.0}
    items = [make_item(number, model=model, sampling=sampling, cache=CACHED) for number in range(3)]
    folders = [RunFolder.create(tmp_path / name, document(), items) for name in ("beside", "alone")]
    threads = torch.get_num_threads()
    apart: list[bool] = []

    class Noting(Engine):
        def sample(self, item: WorkItem, on_round: Callable[[int, int], None]) -> Any:
            sample = super().sample(item, on_round)
            apart.append(sample.can_overlap)
            return sample

    make_all(folders[0], Noting({}))
    engine = Engine({})
    engine.begin(folders[1], items)
    for item in items:
        pending = ItemSampler(folders[1], engine, Solo(), "job.0", "log").sample(item, 1, lambda *_: None)
        assert pending is not None and pending.finish() is not None
    torch.set_num_threads(threads)
    beside, alone = ({key: each.sha256 for key, each in folder.records().items()} for folder in folders)
    assert apart == [True] * 3
    assert None not in beside.values() and beside == alone
