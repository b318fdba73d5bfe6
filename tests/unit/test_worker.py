"""A worker makes items until none is left, records what fails, and stops cleanly."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from genrun.adapters.parallel.alarm import BrokenSlotError
from genrun.runner.job.plan import WorkItem
from genrun.runner.parallel.mesh import ALONE, Mesh
from genrun.runner.parallel.team import Solo, join
from genrun.runner.progress import Glimpse, sentence
from genrun.runner.store.environment import versions
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.lease import Leases, Owner, holdings
from genrun.runner.store.order import Order
from genrun.runner.store.processes import current
from genrun.runner.store.records import Record
from genrun.runner.worker.failures import CancelledError, DecodeError, describe, kind_of
from genrun.runner.worker.finish import metadata_of
from genrun.runner.worker.log import section_of
from genrun.runner.worker.luck import BrokenError, Luck
from genrun.runner.worker.progress import Progress
from genrun.runner.worker.sample import BYSTANDER, Maker, wants_latents
from genrun.runner.worker.worker import Rank, ranks_of
from genrun.solvers.contract import NonFiniteError
from tests.fakes import worker
from tests.fakes.items import HOSTILE, dead_process, done, make_folder, make_item, process_elsewhere
from tests.fakes.worker import FakeProducer


@dataclass(frozen=True)
class FakeTeam:
    """A rank whose companions fail as told."""

    others: tuple[dict[str, Any] | None, ...]
    rank: int = 0
    leads: bool = True
    points: None = None
    slot: None = None
    mesh: Mesh = ALONE

    def share(self, value: Any) -> Any:
        return value

    def gather(self, value: Any) -> list[Any]:
        return [value, *self.others]

    def failed(self, error: Exception) -> None:
        pass

    def close(self) -> None:
        pass


def make_maker(folder: RunFolder, producer: Any = None, team: Any = None) -> Maker:
    producer = producer or FakeProducer({}, Solo(), 0)
    return Maker(folder, producer, team or Solo(), "job.0", "logs/job/rank-0.log", versions=versions())


def make(maker: Maker, item: WorkItem, attempt: int = 1) -> Record | None:
    ending = maker.sample(item, attempt, lambda *_: None)
    return ending and ending.finish()


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return make_folder(tmp_path / "run")


def test_a_record_says_who_made_what_with_which_versions(folder: RunFolder) -> None:
    record = make(make_maker(folder), folder.items()[0])
    assert record is not None and record.sampler is not None
    assert (record.status, record.attempt, record.device, record.job) == ("done", 1, "fake", "job.0")
    assert record.host == current().host
    assert record.versions["genrun"] and record.versions["torch"]
    assert folder.record(record.item_id) == record


def test_the_second_to_finish_an_item_drops_its_result(folder: RunFolder) -> None:
    item = folder.items()[0]

    class Overtaken(FakeProducer):
        def write(self, path: Path, frames: bytes, metadata: dict[str, Any]) -> None:
            super().write(path, frames, metadata)
            done(folder, item, b"first")

    assert make(make_maker(folder, Overtaken({}, Solo(), 0)), item) is None
    assert folder.media_path(item, ".png").read_bytes() == b"first"
    assert folder.temporary_files() == []


def test_the_rank_that_failed_is_blamed_not_those_that_heard_of_it(folder: RunFolder) -> None:
    bystander = {"kind": BYSTANDER, "message": "rank 2 failed", "rank": 1}
    culprit = {"kind": "out_of_memory", "message": "no memory", "rank": 2}
    record = make(make_maker(folder, team=FakeTeam((bystander, culprit))), folder.items()[0])
    assert record is not None
    assert (record.status, record.error) == ("failed", culprit)
    assert folder.result_files() == []


def test_ranks_that_do_not_lead_write_nothing(folder: RunFolder) -> None:
    assert make(make_maker(folder, team=FakeTeam((), rank=1, leads=False)), folder.items()[0]) is None
    assert folder.record_files() == []


def test_nothing_is_sampled_when_a_rank_could_not_load(folder: RunFolder) -> None:
    producer = FakeProducer({}, Solo(), 0)
    team = FakeTeam(({"kind": "OSError", "message": "no such checkpoint", "rank": 1},))
    make(make_maker(folder, producer, team), folder.items()[0])
    assert producer.made == []


def test_a_rank_that_must_end_for_others_leaves_the_reason_in_the_record(folder: RunFolder) -> None:
    class Broken(FakeProducer):
        def sample(self, item: Any, on_round: Any) -> Any:
            raise BrokenSlotError("the others wait") from MemoryError("no memory left")

    item = folder.items()[0]
    with pytest.raises(BrokenSlotError):
        make(make_maker(folder, Broken({}, Solo(), 0), FakeTeam((), rank=3, leads=False)), item, 2)
    record = folder.record(item.id)
    assert record is not None and record.error is not None
    assert (record.status, record.attempt, record.error["kind"]) == ("failed", 2, "out_of_memory")
    assert (record.error["message"], record.error["rank"]) == ("no memory left", 3)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError("x"), "out_of_memory"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), "out_of_memory"),
        (NonFiniteError(3, 2), "non_finite"),
        (DecodeError("x"), "decode"),
        (KeyError("x"), "KeyError"),
    ],
)
def test_failures_are_told_apart(error: Exception, kind: str) -> None:
    described = describe(error, rank=3, log="logs/x/rank-3.log")
    assert (described["kind"], described["rank"], described["log"]) == (kind, 3, "logs/x/rank-3.log")
    assert described["message"] and described["remedy"]
    assert kind_of(error) == kind


def test_metadata_hold_the_item_and_nothing_that_changes_between_runs() -> None:
    item = make_item(0, prompt=HOSTILE)
    assert metadata_of(item) == metadata_of(item)
    assert metadata_of(item)["item"] == item.to_dict()


@pytest.mark.parametrize(
    ("job", "wanted"),
    [
        ({}, False),
        ({"output": {"save_latents": True}}, True),
        ({"score": ["latent_worst_block"]}, True),
        ({"score": ["psnr"], "output": {"save_latents": False}}, False),
    ],
)
def test_latents_are_wanted_when_asked_for_or_scored(job: dict[str, Any], wanted: bool) -> None:
    assert wants_latents(job) is wanted


def test_a_rank_of_a_group_of_one_works_alone() -> None:
    assert join(2, Mesh(3, 1)) == Solo(2)


def test_the_log_of_an_item_reaches_from_its_attempt_to_the_next() -> None:
    first, second = "a" * 20, "b" * 20
    log = ["noise", f"10:00:00 {first}: attempt 1", "one", f"10:00:01 {second}: attempt 1", "two"]
    assert section_of(log, first) == log[1:3]
    assert section_of(log, second) == log[3:]
    assert section_of(log, "c" * 20) == []


def test_progress_is_written_at_most_once_per_interval(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "p", interval_s=1000)
    progress.tell(1, 4)
    progress.tell(2, 4)
    assert (tmp_path / "p").read_text() == "[1, 4]"
    progress.close()
    assert not (tmp_path / "p").exists()


def test_progress_lets_others_stop_the_item(tmp_path: Path) -> None:
    def stop() -> None:
        raise CancelledError

    progress = Progress(tmp_path / "p", interval_s=1000, check=stop)
    with pytest.raises(CancelledError, match="taken out of the work by genrun cancel"):
        progress.tell(1, 4)
    progress.tell(2, 4)


def test_the_end_is_foretold_from_items_made_and_items_in_work() -> None:
    glimpse = Glimpse(total=10, done=5, failed=1, made=2, in_work=(0.5,), elapsed_s=50)
    assert glimpse.left_s == pytest.approx(50 / 2.5 * 3.5)
    assert sentence(glimpse) == "5/10 done, 1 failed, 0:00:50 gone, about 0:01:10 left"


def start_worker(folder: RunFolder, order: Order) -> subprocess.Popen[bytes]:
    order.save(folder)
    root = Path(worker.__file__).parents[2]
    environ = {**os.environ, "PYTHONPATH": str(root), worker.NAP: "60"}
    command = [sys.executable, str(worker.__file__), str(folder.path), "--job", order.job]
    return subprocess.Popen(command, env=environ)


def test_luck_runs_out_at_failures_without_a_success_and_never_after_one() -> None:
    failure, success = Record("a", "failed", error={"kind": "RuntimeError"}), Record("b", "done")
    cancelled = Record("c", "failed", error={"kind": "cancelled"})
    luck = Luck(2)
    for record in (failure, None, cancelled):
        luck.note(record)
    luck.check()
    luck.note(failure)
    with pytest.raises(BrokenError, match="the first 2 items all failed here, the last one with RuntimeError"):
        luck.check()
    lucky = Luck(2)
    for record in (failure, success, failure, failure):
        lucky.note(record)
    lucky.check()
    assert not Luck(0).is_out


def test_a_rank_is_torchruns_or_in_a_task_without_one_slurms() -> None:
    slurm = {"SLURM_PROCID": "3", "SLURM_LOCALID": "1"}
    assert ranks_of({**slurm, "RANK": "5", "LOCAL_RANK": "2"}, is_task=True) == (5, 2)
    assert ranks_of(slurm, is_task=True) == (3, 1)
    assert ranks_of(slurm, is_task=False) == (0, 0)


def wait_until(true: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    while not true():
        assert process.poll() is None
        signal.sigtimedwait((), 0.02)


def test_a_worker_that_is_told_to_stop_drops_its_item_and_says_it_is_not_done(folder: RunFolder) -> None:
    process = start_worker(folder, Order("job"))
    wait_until(lambda: bool(list(folder.leases.glob(".*.progress"))), process)
    process.terminate()
    assert process.wait(60) == 3
    assert holdings(folder) == {}
    assert folder.record_files() == []
    assert "rank 0: stopped" in (folder.logs / "job" / "rank-0.log").read_text()


def test_a_worker_lets_go_what_a_killed_one_held_on_a_finished_item(folder: RunFolder) -> None:
    for number, item in enumerate(folder.items()):
        done(folder, item)
        killed = Owner(dead_process() if number else process_elsewhere(), "job.4.0")
        lease = Leases(folder, killed).claim(item.id) or pytest.fail("not claimed")
        lease._released.set()
    Rank(folder, Order("job"), task=4, restart=1).run(lambda *_: pytest.fail("there is nothing to make"))
    assert holdings(folder) == {}


def test_a_worker_stops_by_itself_when_its_launcher_is_gone(folder: RunFolder) -> None:
    launcher = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    from genrun.runner.store.processes import name_of

    process = start_worker(folder, Order("job", launcher=name_of(launcher.pid)))
    wait_until(lambda: bool(holdings(folder)), process)
    launcher.kill()
    launcher.communicate()
    assert process.wait(60) == 3
    assert holdings(folder) == {}
