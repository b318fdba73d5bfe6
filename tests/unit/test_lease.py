"""One worker at a time holds an item; a dead one's lease is taken over, a live one's is not."""

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from genrun.runner.store.environment import current, is_gone, name_of
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.lease import Leases, Owner, holdings, looks_alive, read
from genrun.runner.store.order import Order
from genrun.runner.worker.queue import Queue
from tests.fakes.items import dead_process, done, failed, make_folder, process_elsewhere

ME = Owner(current(), "me.0")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return make_folder(tmp_path / "run")


def leave_lease(folder: RunFolder, item_id: str, owner: Owner) -> Path:
    """A lease whose owner stopped renewing it."""
    lease = Leases(folder, owner).claim(item_id)
    assert lease is not None
    lease._released.set()
    return folder.leases / item_id


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_held_item_cannot_be_claimed_until_it_is_released(folder: RunFolder) -> None:
    with Leases(folder, ME).claim("a" * 20) or pytest.fail("not claimed"):
        assert Leases(folder, replace(ME, job="other.0")).claim("a" * 20) is None
        assert list(holdings(folder)) == ["a" * 20]
    again = Leases(folder, ME).claim("a" * 20)
    assert again is not None
    again.release()
    assert holdings(folder) == {}


def test_of_many_claims_at_once_one_succeeds(folder: RunFolder) -> None:
    start = threading.Barrier(8)
    won = []

    def claim(number: int) -> None:
        start.wait()
        lease = Leases(folder, replace(ME, rank=number)).claim("a" * 20)
        if lease is not None:
            won.append(lease)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    won[0].release()


def test_a_dead_process_of_this_machine_loses_its_lease_at_once(folder: RunFolder) -> None:
    leave_lease(folder, "a" * 20, Owner(dead_process(), "old.0"))
    lease = Leases(folder, ME).claim("a" * 20)
    assert lease is not None
    assert lease.is_ours()
    lease.release()


def test_a_live_process_of_this_machine_keeps_its_lease_however_silent(folder: RunFolder) -> None:
    path = leave_lease(folder, "a" * 20, ME)
    age(path, 10_000)
    assert Leases(folder, replace(ME, job="other.0")).claim("a" * 20) is None


def test_another_machine_keeps_its_lease_while_it_beats_and_loses_it_when_silent(folder: RunFolder) -> None:
    path = leave_lease(folder, "a" * 20, Owner(process_elsewhere(), "far.0"))
    leases = Leases(folder, ME, stale_s=60)
    age(path, 30)
    assert leases.claim("a" * 20) is None
    age(path, 90)
    lease = leases.claim("a" * 20)
    assert lease is not None
    lease.release()


def test_a_task_that_was_started_again_takes_its_own_leases_back_at_once(folder: RunFolder) -> None:
    leave_lease(folder, "a" * 20, Owner(process_elsewhere(), "slurm-1.3.0"))
    for other in ("slurm-1.4.1", "slurm-1.3.0", "slurm-2.3.1", "slurm-1.3"):
        assert Leases(folder, replace(ME, job=other)).claim("a" * 20) is None
    lease = Leases(folder, replace(ME, job="slurm-1.3.1")).claim("a" * 20)
    assert lease is not None
    lease.release()


def test_whether_an_owner_is_alive_can_be_told_without_writing(folder: RunFolder) -> None:
    now = time.time_ns()
    dead = leave_lease(folder, "a" * 20, Owner(dead_process(), "old.0"))
    mine = leave_lease(folder, "b" * 20, ME)
    far = leave_lease(folder, "c" * 20, Owner(process_elsewhere(), "far.0"))
    age(mine, 10_000)
    before = sorted(folder.leases.iterdir())
    alive = {path: looks_alive(holding, now) for path in (dead, mine, far) if (holding := read(path))}
    assert alive == {dead: False, mine: True, far: True}
    age(far, 130)
    silent = read(far)
    assert silent is not None
    assert not looks_alive(silent, now)
    assert sorted(folder.leases.iterdir()) == before


def test_a_lease_cut_off_while_it_was_written_is_free(folder: RunFolder) -> None:
    folder.leases.mkdir()
    (folder.leases / ("a" * 20)).write_text('{"process": {"ho')
    lease = Leases(folder, ME).claim("a" * 20)
    assert lease is not None
    lease.release()


def test_a_lease_is_renewed_while_it_is_held(folder: RunFolder) -> None:
    lease = Leases(folder, ME, stale_s=0.06).claim("a" * 20)
    assert lease is not None
    path = folder.leases / ("a" * 20)
    age(path, 1000)
    old = path.stat().st_mtime_ns
    deadline = time.monotonic() + 20
    while path.stat().st_mtime_ns == old and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.stat().st_mtime_ns > old
    lease.release()


def test_a_lease_that_was_taken_over_is_left_alone(folder: RunFolder) -> None:
    lease = Leases(folder, ME).claim("a" * 20)
    assert lease is not None
    path = folder.leases / ("a" * 20)
    path.unlink()
    leave_lease(folder, "a" * 20, replace(ME, job="heir.0"))
    assert not lease.is_ours()
    lease.release()
    heir = read(path)
    assert heir is not None and heir.owner is not None
    assert heir.owner.job == "heir.0"


def test_a_lease_goes_also_when_its_worker_is_stopped_while_it_lets_it_go(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = Leases(folder, ME).claim("a" * 20)
    assert lease is not None
    join, stops = lease._thread.join, [KeyboardInterrupt]

    def stopped_once() -> None:
        if stops:
            raise stops.pop()
        join()

    monkeypatch.setattr(lease._thread, "join", stopped_once)
    with pytest.raises(KeyboardInterrupt):
        lease.release()
    assert holdings(folder) == {}


def test_sweep_removes_the_leases_of_the_dead_and_tells_of_the_living(folder: RunFolder) -> None:
    leave_lease(folder, "a" * 20, Owner(dead_process(), "old.0"))
    leave_lease(folder, "b" * 20, ME)
    assert not Leases(folder, ME).sweep()
    assert list(holdings(folder)) == ["b" * 20]
    (folder.leases / ("b" * 20)).unlink()
    assert Leases(folder, ME).sweep()


def test_a_process_is_told_from_a_later_one_with_its_number() -> None:
    assert is_gone(current()) is False
    assert is_gone(dead_process()) is True
    assert is_gone(replace(current(), pid=2**22 + 1)) is True
    assert is_gone(process_elsewhere()) is None
    assert name_of(os.getpid()) == current()


def take_all(queue: Queue) -> list[str]:
    taken = []
    while (claim := queue.next()) is not None:
        taken.append(claim.item.id)
        done(queue._folder, claim.item)
        claim.lease.release()
    return taken


def make_queue(folder: RunFolder, order: Order | None = None) -> Queue:
    return Queue(Leases(folder, ME), order or Order("me"), folder.items(), poll_s=0.01)


def test_the_queue_hands_out_every_item_once_in_order(folder: RunFolder) -> None:
    assert take_all(make_queue(folder)) == [item.id for item in folder.items()]
    assert take_all(make_queue(folder)) == []


def test_the_queue_prefers_the_model_in_use(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "models", count=4)
    items = [replace(item, model={"adapter": f"m{number % 2}"}) for number, item in enumerate(folder.items())]
    queue = Queue(Leases(folder, ME), Order("me"), items)
    claim = queue.next({"adapter": "m1"})
    assert claim is not None
    assert claim.item == items[1]
    claim.lease.release()


def test_failed_items_are_tried_up_to_max_attempts_counted_from_the_order(folder: RunFolder) -> None:
    first, second, third = folder.items()
    failed(folder, first, attempt=2)
    failed(folder, second, attempt=2)
    done(folder, third)
    order = Order("me", max_attempts=2, spent={second.id: 2})
    claim = make_queue(folder, order).next()
    assert claim is not None
    assert (claim.item, claim.attempt) == (second, 3)
    claim.lease.release()


def test_items_at_which_somebody_failed_come_last(folder: RunFolder) -> None:
    first, second, third = (item.id for item in folder.items())
    failed(folder, folder.items()[0])
    assert take_all(make_queue(folder)) == [second, third, first]


def test_a_cancelled_item_is_settled_until_another_launch_begins(folder: RunFolder) -> None:
    first, second, third = (item.id for item in folder.items())
    failed(folder, folder.items()[0], kind="cancelled")
    assert take_all(make_queue(folder, Order("me", max_attempts=5))) == [second, third]
    assert take_all(make_queue(folder, Order("later", max_attempts=5, spent={first: 1}))) == [first]


def test_a_queue_is_empty_when_every_item_is_settled_whoever_holds_it(folder: RunFolder) -> None:
    first, second, third = folder.items()
    done(folder, first)
    failed(folder, second, attempt=2)
    assert not make_queue(folder).is_empty
    failed(folder, third, attempt=2)
    assert make_queue(folder).is_empty


def test_an_order_for_some_items_leaves_the_others(folder: RunFolder) -> None:
    wanted = folder.items()[1].id
    assert take_all(make_queue(folder, Order("me", items=(wanted,)))) == [wanted]


def test_items_of_the_same_launch_are_left_to_their_workers(folder: RunFolder) -> None:
    first = folder.items()[0].id
    leave_lease(folder, first, replace(ME, rank=1))
    assert first not in take_all(make_queue(folder))


def test_an_item_of_a_silent_stranger_is_waited_for_and_left_to_him_when_he_lives(folder: RunFolder) -> None:
    first = folder.items()[0].id
    path = leave_lease(folder, first, Owner(process_elsewhere(), "far.0"))
    timer = threading.Timer(0.2, os.utime, (path,))
    timer.start()
    assert first not in take_all(make_queue(folder))
    timer.join()


def test_an_item_of_a_silent_stranger_is_taken_when_his_lease_runs_out(folder: RunFolder) -> None:
    first = folder.items()[0].id
    leave_lease(folder, first, Owner(process_elsewhere(), "far.0"))
    queue = Queue(Leases(folder, ME, stale_s=0.2), Order("me"), folder.items(), poll_s=0.01)
    assert take_all(queue)[-1] == first


def test_an_order_comes_back_as_it_was_saved(folder: RunFolder) -> None:
    order = Order("job-1", 2, 3, 4, 5, ("a", "b"), {"a": 1}, current())
    order.save(folder)
    assert Order.load(folder, "job-1") == order
