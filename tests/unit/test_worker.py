"""A worker makes items until none is left, records what fails, and stops cleanly."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from genrun.adapters.parallel.slot import BrokenSlotError
from genrun.runner.job.plan import WorkItem
from genrun.runner.parallel.mesh import ALONE, Mesh
from genrun.runner.parallel.team import ElasticTeam, Solo, join
from genrun.runner.progress import Progress, ProgressFile, progress_line
from genrun.runner.store.environment import current, versions
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.lease import Leases, Owner, holdings
from genrun.runner.store.order import Order
from genrun.runner.store.planfile import wants_latents
from genrun.runner.store.records import Record
from genrun.runner.worker.failures import CancelledError, DecodeError, describe, kind_of
from genrun.runner.worker.finish import metadata_of
from genrun.runner.worker.loop import BrokenError, FailureBudget
from genrun.runner.worker.main import Rank, ranks_of
from genrun.runner.worker.queue import Queue
from genrun.runner.worker.rank import section_of
from genrun.runner.worker.sample import BYSTANDER, ItemSampler
from genrun.solvers.contract import NonFiniteError
from tests.fakes import worker
from tests.fakes.items import HOSTILE, dead_process, document, done, make_folder, make_item, process_elsewhere
from tests.fakes.worker import FakeProducer


@dataclass(frozen=True)
class FakeTeam:
    """A rank whose companions fail as told."""

    others: tuple[dict[str, Any] | None, ...]
    rank: int = 0
    leads: bool = True
    exchange_group: None = None
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


def make_sampler(folder: RunFolder, producer: Any = None, team: Any = None) -> ItemSampler:
    producer = producer or FakeProducer({}, Solo(), 0)
    return ItemSampler(folder, producer, team or Solo(), "job.0", "logs/job/rank-0.log", versions=versions())


def make(sampler: ItemSampler, item: WorkItem, attempt: int = 1) -> Record | None:
    pending = sampler.sample(item, attempt, lambda *_: None)
    return pending and pending.finish()


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return make_folder(tmp_path / "run")


def test_a_record_says_who_made_what_with_which_versions(folder: RunFolder) -> None:
    record = make(make_sampler(folder), folder.items()[0])
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

    assert make(make_sampler(folder, Overtaken({}, Solo(), 0)), item) is None
    assert folder.media_path(item, ".png").read_bytes() == b"first"
    assert folder.temporary_files() == []


def test_the_rank_that_failed_is_blamed_not_those_that_heard_of_it(folder: RunFolder) -> None:
    bystander = {"kind": BYSTANDER, "message": "rank 2 failed", "rank": 1}
    culprit = {"kind": "out_of_memory", "message": "no memory", "rank": 2}
    record = make(make_sampler(folder, team=FakeTeam((bystander, culprit))), folder.items()[0])
    assert record is not None
    assert (record.status, record.error) == ("failed", culprit)
    assert folder.result_files() == []


def test_ranks_that_do_not_lead_write_nothing(folder: RunFolder) -> None:
    assert make(make_sampler(folder, team=FakeTeam((), rank=1, leads=False)), folder.items()[0]) is None
    assert folder.record_files() == []


def test_nothing_is_sampled_when_a_rank_could_not_load(folder: RunFolder) -> None:
    producer = FakeProducer({}, Solo(), 0)
    team = FakeTeam(({"kind": "OSError", "message": "no such checkpoint", "rank": 1},))
    make(make_sampler(folder, producer, team), folder.items()[0])
    assert producer.made == []


def test_a_rank_that_must_end_for_others_leaves_the_reason_in_the_record(folder: RunFolder) -> None:
    class Broken(FakeProducer):
        def sample(self, item: Any, on_round: Any) -> Any:
            raise BrokenSlotError("the others wait") from MemoryError("no memory left")

    item = folder.items()[0]
    with pytest.raises(BrokenSlotError):
        make(make_sampler(folder, Broken({}, Solo(), 0), FakeTeam((), rank=3, leads=False)), item, 2)
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
    progress = ProgressFile(tmp_path / "p", interval_s=1000)
    progress.update(1, 4)
    progress.update(2, 4)
    assert (tmp_path / "p").read_text() == "[1, 4]"


def test_progress_lets_others_stop_the_item(tmp_path: Path) -> None:
    def stop() -> None:
        raise CancelledError

    progress = ProgressFile(tmp_path / "p", interval_s=1000, check=stop)
    with pytest.raises(CancelledError, match="taken out of the work by genrun cancel"):
        progress.update(1, 4)
    progress.update(2, 4)


def test_the_end_is_foretold_from_items_made_and_items_in_work() -> None:
    progress = Progress(total=10, done=5, failed=1, made=2, in_work=(0.5,), elapsed_s=50)
    assert progress.left_s == pytest.approx(50 / 2.5 * 3.5)
    assert progress_line(progress) == "5/10 done, 1 failed, 0:00:50 elapsed, about 0:01:10 left"


def start_worker(folder: RunFolder, order: Order) -> subprocess.Popen[bytes]:
    order.save(folder)
    root = Path(worker.__file__).parents[2]
    environ = {**os.environ, "PYTHONPATH": str(root), worker.NAP: "60"}
    command = [sys.executable, str(worker.__file__), str(folder.path), "--job", order.job]
    return subprocess.Popen(command, env=environ)


def test_the_failure_budget_is_spent_by_failures_without_a_success_and_never_after_one() -> None:
    failure, success = Record("a", "failed", error={"kind": "RuntimeError"}), Record("b", "done")
    cancelled = Record("c", "failed", error={"kind": "cancelled"})
    budget = FailureBudget(2)
    for record in (failure, None, cancelled):
        budget.count(record)
    budget.check()
    budget.count(failure)
    with pytest.raises(BrokenError, match="the first 2 items all failed here, the last one with RuntimeError"):
        budget.check()
    successful = FailureBudget(2)
    for record in (failure, success, failure, failure):
        successful.count(record)
    successful.check()
    assert not FailureBudget(0).is_spent


def test_a_rank_is_torchruns_or_in_a_task_without_one_slurms() -> None:
    slurm = {"SLURM_PROCID": "3", "SLURM_LOCALID": "1"}
    assert ranks_of({**slurm, "RANK": "5", "LOCAL_RANK": "2"}, is_task=True) == (5, 2)
    assert ranks_of(slurm, is_task=True) == (3, 1)
    assert ranks_of(slurm, is_task=False) == (0, 0)


class OneRankElasticTeam(ElasticTeam):
    """The first of two data groups, which takes every wave; the other group makes nothing."""

    def __init__(self) -> None:
        self._base = self._now = Solo()
        self.waves: list[Any] = []

    def announce(self, value: Any) -> Any:
        self.waves.append(value)
        assert len(self.waves) < 50, "the loop does not end"
        return value

    def arrange(self, widths: Sequence[int]) -> int | None:
        return 0


@pytest.fixture
def elastic_team(monkeypatch: pytest.MonkeyPatch) -> OneRankElasticTeam:
    team = OneRankElasticTeam()
    monkeypatch.setattr("genrun.runner.worker.main.join", lambda *_, **__: team)
    return team


@pytest.fixture
def parallel_folder(tmp_path: Path) -> RunFolder:
    items = [make_item(number, solver={"kind": "ropa", "workers": 8 if number else 1}) for number in range(3)]
    return RunFolder.create(tmp_path / "parallel", document(), items[::-1])


def test_an_elastic_rank_makes_items_apart_and_then_what_is_kept_back_in_waves(
    parallel_folder: RunFolder, elastic_team: OneRankElasticTeam
) -> None:
    last, second, first = parallel_folder.items()
    producer = FakeProducer({}, Solo(), 0)
    Rank(parallel_folder, Order("job", data=2, elastic=True)).run(lambda *_: producer)
    assert producer.made == [first.id, last.id, second.id], "what one rank alone can work on comes first"
    assert elastic_team.waves == [1, [(second.id, 2)], None]
    assert parallel_folder.tally().done == 3 and holdings(parallel_folder) == {}


@pytest.mark.parametrize(("asked", "device"), [("cpu", "cpu"), ("auto", "cuda:1")])
def test_ranks_gather_outputs_where_the_job_runs_and_not_wherever_there_is_a_gpu(
    asked: str, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    joined: list[Any] = []
    monkeypatch.setattr("genrun.runner.worker.main.join", lambda *args, **_: joined.append(args) or Solo())
    run = RunFolder.create(tmp_path / "run", document(model={"device": asked}), [make_item(0)])
    Rank(run, Order("job", time=2), rank=1, local_rank=3).run(lambda *_: FakeProducer({}, Solo(), 0))
    assert [args[2] for args in joined] == [device]


def test_an_elastic_rank_ends_when_its_failure_budget_is_spent_in_a_wave(
    parallel_folder: RunFolder, elastic_team: OneRankElasticTeam
) -> None:
    class Failing(FakeProducer):
        def sample(self, item: WorkItem, on_round: Any) -> Any:
            raise RuntimeError("the model broke")

    rank = Rank(parallel_folder, Order("job", data=2, elastic=True, max_attempts=3), give_up=8)
    with pytest.raises(BrokenError, match="the first 8 items"):
        rank.run(lambda *_: Failing({}, Solo(), 0))
    assert len(elastic_team.waves) == 2 and holdings(parallel_folder) == {}


def test_a_claim_goes_with_its_lease_and_its_progress(folder: RunFolder) -> None:
    queue = Queue(Leases(folder, Owner(current(), "job.0")), Order("job"), folder.items())
    claim = queue.next() or pytest.fail("not claimed")
    ProgressFile(claim.progress_path).update(1, 4)
    assert folder.progress_path(claim.item.id).exists() and list(holdings(folder)) == [claim.item.id]
    for _ in range(2):
        claim.release()
        assert not folder.progress_path(claim.item.id).exists() and holdings(folder) == {}


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
    from genrun.runner.store.environment import name_of

    process = start_worker(folder, Order("job", launcher=name_of(launcher.pid)))
    wait_until(lambda: bool(holdings(folder)), process)
    launcher.kill()
    launcher.communicate()
    assert process.wait(60) == 3
    assert holdings(folder) == {}
