"""Nights: what is done, taken up, done twice, late or cut off; what they are held against; what is removed and told."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from genrun.runner import history
from genrun.runner.errors import IncompleteError, LaunchError, StoppedError, StoreError
from genrun.runner.job.schema import JobSpec
from genrun.runner.nightly import due as due_module
from genrun.runner.nightly.due import alone, due
from genrun.runner.nightly.run import Outcome, Tools, notify, run_night
from genrun.runner.store.environment import current
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.nights import Attempt, Night, amend, read_night
from genrun.runner.store.runs import pin
from genrun.runner.submit.resume import SubmittedJob
from tests.fakes.items import dead_process, done, failed, make_item
from tests.fakes.scores import give

MORNING = datetime.fromisoformat("2026-01-10T02:00:05+01:00")


@dataclass
class World:
    """A job of four items whose clock, scores and accidents are set by the test."""

    base: Path
    monkeypatch: pytest.MonkeyPatch
    now: datetime = MORNING
    nightly: dict[str, Any] = field(default_factory=dict)
    gates: dict[str, Any] = field(default_factory=lambda: {"psnr": {"min": 0.5, "max_drop": 0.1}})
    level: float = 1.0
    accident: Callable[[RunFolder], None] | None = None
    busy: set[Path] = field(default_factory=set)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("judge.wanted_metrics", "judge.score_run"):
            self.monkeypatch.setattr(f"genrun.runner.nightly.{name}", getattr(self, name.partition(".")[2]))

    def wanted_metrics(self, run: RunFolder) -> list[Any]:
        return []

    def score_run(self, run: RunFolder, metrics: list[Any]) -> list[Any]:
        if not run.scores_path("psnr").exists():
            give(run, "psnr", lambda item, number: self.level + 0.01 * number)
        return []

    def make_items(self, folder: RunFolder) -> None:
        if self.accident is not None:
            self.accident(folder)
        for item in folder.items():
            record = folder.record(item.id)
            if record is None or record.status == "failed":
                done(folder, item)

    def job(self) -> SubmittedJob:
        document = {
            "name": "demo",
            "model": {"adapter": "auto", "checkpoint": "test/fake"},
            "prompts": ["a"],
            "score": ["psnr"],
            "gates": self.gates,
            "nightly": self.nightly,
        }
        items = [make_item(number) for number in range(4)]
        return SubmittedJob(JobSpec.model_validate(document), document, items)

    def run(self, *, again: bool = False, hours: float = 0.0, **changes: Any) -> Outcome:
        self.now += timedelta(hours=hours)
        tools = Tools(
            make_items=self.make_items,
            is_at_work=lambda folder: folder.path in self.busy,
            report=lambda folder: folder.report_dir / "index.html",
            now=lambda: self.now,
            say=self.said.append,
            environ={"PATH": "/usr/bin:/bin"},
        )
        return run_night(self.job(), self.base, replace(tools, **changes), again=again)

    def nights(self) -> list[Night]:
        return history.read(self.base, "demo")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("now", "night"),
    [
        ("2026-01-10T02:00:00", "2026-01-10"),
        ("2026-01-10T01:59:59", "2026-01-09"),
        ("2026-01-10T23:00:00", "2026-01-10"),
    ],
)
def test_a_call_belongs_to_the_night_that_was_due_last(now: str, night: str) -> None:
    assert due(datetime.fromisoformat(f"{now}+01:00"), "02:00").night == night


def test_the_first_night_is_open_until_a_baseline_is_pinned_and_the_second_is_held_against_it(world: World) -> None:
    first = world.run()
    assert (first.night.state, first.exit_code) == ("incomplete", 3)
    assert "1 of 2 gates are open without a baseline (genrun pin demo)" in first.night.summary
    pin(first.folder)
    second = world.run(hours=24)
    assert (second.night.state, second.exit_code, second.folder == first.folder) == ("passed", 0, False)
    assert (second.night.baseline, second.night.previous) == (str(first.folder.path), str(first.folder.path))
    assert second.night.summary == (
        "demo 2026-01-11: passed; 4 of 4 items; all 2 gates passed; since last night nothing changed: "
        "all files are identical."
    )
    assert [(night.night, night.state) for night in world.nights()] == [
        ("2026-01-10", "incomplete"),
        ("2026-01-11", "passed"),
    ]


def test_a_regression_fails_the_night_and_says_what_changed(world: World) -> None:
    pin(world.run().folder)
    world.run(hours=24)
    world.level = 0.7
    outcome = world.run(hours=24)
    assert (outcome.night.state, outcome.exit_code) == ("failed", 1)
    assert "sequential: psnr drop of 0.3 dB [0.3, 0.3], allowed 0.1 dB" in outcome.night.summary
    assert outcome.night.changed == {"sequential psnr": "worse"}
    assert outcome.night.summary.isprintable()


def test_a_night_that_is_done_is_left_alone_and_counted_as_doubled(world: World) -> None:
    pin(world.run().folder)
    first = world.run(hours=24)
    world.accident = lambda folder: pytest.fail("made again")
    second = world.run(hours=1)
    assert (second.folder, second.is_doubled, second.exit_code) == (first.folder, True, 0)
    assert world.nights()[-1].marks == ["doubled"]


def test_again_makes_another_run_of_the_same_night(world: World) -> None:
    pin(world.run().folder)
    first, second = world.run(hours=24), world.run(again=True, hours=1)
    assert first.folder != second.folder
    assert first.night.night == second.night.night
    assert second.night.previous != str(first.folder.path)


@pytest.mark.parametrize("error", [StoppedError("stopped"), KeyboardInterrupt(), OSError("disk")])
def test_a_night_that_was_cut_off_is_taken_up_where_it_stopped(world: World, error: BaseException) -> None:
    def cut_off(folder: RunFolder) -> None:
        done(folder, folder.items()[0])
        raise error

    world.accident = cut_off
    with pytest.raises(type(error)):
        world.run()
    (night,) = world.nights()
    assert (night.state, night.marks) == ("interrupted", ["interrupted"])
    world.accident = None
    again = world.run(hours=0.5)
    assert [attempt.end for attempt in again.night.attempts] == ["interrupted", "finished"]
    assert (again.night.done, len(world.nights())) == (4, 1)


def test_a_call_whose_process_was_killed_is_told_as_interrupted(world: World) -> None:
    outcome = world.run()
    killed = Attempt("2026-01-10T03:00:00+01:00", "", "running", dead_process())
    night = amend(outcome.folder, lambda night: replace(night, attempts=(*night.attempts, killed), state="running"))
    history.record(world.base, night)
    (seen,) = world.nights()
    assert (seen.state, seen.marks) == ("interrupted", ["interrupted"])
    assert replace(night, attempts=(replace(killed, process=current()),)).observed().state == "running"


def test_a_night_that_begins_late_says_how_late(world: World) -> None:
    assert world.run(hours=3.2).night.marks == ["late 3:12"]
    assert world.run(hours=21.3).night.marks == []


def test_two_calls_at_once_are_told_apart(world: World) -> None:
    def call_again(folder: RunFolder) -> None:
        world.accident = None
        with pytest.raises(IncompleteError, match="another genrun nightly is at this night's work"):
            world.run()

    world.accident = call_again
    outcome = world.run()
    assert [attempt.end for attempt in outcome.night.attempts] == ["finished", "doubled"]


def test_items_that_failed_fail_the_night_and_workers_that_died_leave_it_open(world: World) -> None:
    pin(world.run().folder)

    def fail(folder: RunFolder) -> None:
        for item in folder.items()[1:]:
            done(folder, item)
        failed(folder, folder.items()[0])

    outcome = world.run(hours=24, make_items=fail)
    assert (outcome.night.state, outcome.night.failed) == ("failed", 1)
    assert "3 of 4 items, 1 failed" in outcome.night.summary

    def die(folder: RunFolder) -> None:
        raise LaunchError("rank 0 was killed")

    outcome = world.run(hours=24, make_items=die)
    assert (outcome.night.state, outcome.exit_code, outcome.night.notes) == ("incomplete", 3, ("rank 0 was killed",))


def test_a_baseline_may_be_last_night_or_a_run(world: World) -> None:
    world.nightly = {"baseline": "last"}
    first = world.run()
    assert world.run(hours=24).night.baseline == str(first.folder.path)
    world.nightly = {"baseline": f"demo/{first.folder.path.name}"}
    assert world.run(hours=24).night.state == "passed"
    world.nightly = {"baseline": "nowhere"}
    lost = world.run(hours=24)
    assert lost.night.state == "incomplete"
    assert lost.night.notes[0].startswith("baseline: 'nowhere': no such run.")


def test_old_nights_are_removed_but_never_the_baseline_nor_one_at_work(world: World) -> None:
    world.nightly = {"keep": 2}
    pin(world.run().folder)
    runs = [world.run(hours=24).folder for _ in range(2)]
    world.busy = {runs[0].path}
    runs += [world.run(hours=24).folder for _ in range(2)]
    there = {path.name for path in (world.base / "demo").glob("2*")}
    assert there == {night.run for night in world.nights() if not night.is_removed}
    assert [night.is_removed for night in world.nights()] == [False, False, True, False, False]
    assert not list((world.base / "demo").glob(".*.removing"))


def test_history_is_made_again_from_the_run_folders(world: World) -> None:
    world.nightly = {"keep": 1}
    pin(world.run().folder)
    for _ in range(3):
        world.run(hours=24)
    before = world.nights()
    (world.base / "history.sqlite3").write_bytes(b"no database at all, but long enough to look like one" * 20)
    with pytest.raises(Exception, match="genrun history --rebuild"):
        world.nights()
    assert history.rebuild(world.base) == len(before) == 4
    assert world.nights() == before
    assert any(night.is_removed for night in before)


def test_a_full_disk_is_no_damage_and_an_archive_can_be_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.run()
    before = world.nights()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(StoreError, match="Free some space"):
            world.nights()
        with pytest.raises(StoreError, match="Free some space"):
            history.rebuild(world.base)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert world.nights() == before
    # A user who may write everything stands for one who may not: what counts is that nothing is written.
    monkeypatch.setattr(os, "access", lambda *args: False)
    opened = []
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda name, **options: opened.append(name) or connect(name, **options))
    assert world.nights() == before
    assert [str(name).endswith("history.sqlite3?immutable=1") for name in opened] == [True]
    with pytest.raises(StoreError, match="read-only"):
        history.rebuild(world.base)


def test_a_damaged_history_is_no_obstacle_for_a_night(world: World) -> None:
    world.run()
    (world.base / "history.sqlite3").write_bytes(b"x" * 5000)
    world.run(hours=24)
    assert len(world.nights()) == 2


def test_the_history_is_a_database_that_others_may_read_meanwhile(world: World) -> None:
    import sqlite3

    world.run()
    with sqlite3.connect(world.base / "history.sqlite3") as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert database.execute("PRAGMA user_version").fetchone() == (1,)
        assert database.execute("SELECT job, night, state, done FROM nights").fetchall() == [
            ("demo", "2026-01-10", "incomplete", 4)
        ]
        assert ("psnr",) in database.execute("SELECT DISTINCT metric FROM measures").fetchall()
        database.execute("PRAGMA user_version = 7")
    with pytest.raises(Exception, match="written by a newer genrun"):
        world.nights()


def test_a_night_survives_its_file(world: World) -> None:
    pin(world.run().folder)
    outcome = world.run(hours=24)
    assert read_night(outcome.folder.night_path) == outcome.night
    assert history.Night.from_dict(json.loads(json.dumps(outcome.night.to_dict()))) == outcome.night


def test_a_command_that_repeats_a_secret_or_cannot_be_given_to_a_system_does_no_harm() -> None:
    secret = {"MY_TOKEN": "hush-hush"}
    script = ["sh", "-c", "echo could not reach $0 >&2; exit 6", "https://x/hush-hush"]
    assert notify(script, {}, 10, secret) == "notify: sh ended with 6: could not reach https://x/${MY_TOKEN}"
    assert notify(["a\0b"], {}, 10, {}) == "notify: a\0b cannot be run: embedded null byte"


def test_the_command_is_told_and_its_trouble_noted(world: World, tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    world.nightly = {"notify": {"command": ["sh", "-c", f"cat > '{told}'"]}}
    outcome = world.run()
    heard = json.loads(told.read_text())
    assert (heard["summary"], heard["exit_code"]) == (outcome.night.summary, 3)
    assert heard["run"] == str(outcome.folder.path)
    world.nightly = {"notify": {"command": ["sh", "-c", "echo it hurts >&2; exit 3", "s3cret"]}}
    assert world.run(hours=24).night.notes == ("notify: sh ended with 3: it hurts",)
    world.nightly = {"notify": {"command": ["/no/such/s3cret-dir/mailer"]}}
    assert world.run(hours=24).night.notes == ("notify: mailer cannot be run: No such file or directory",)
    world.nightly = {"notify": {"command": ["sh", "-c", "sleep 60 & wait"], "timeout_s": 1}}
    assert world.run(hours=24).night.notes == ("notify: sh was stopped after 1 s",)


def test_only_trouble_is_told_when_that_is_wanted(world: World, tmp_path: Path) -> None:
    told = tmp_path / "told"
    pin(world.run().folder)
    world.nightly = {"notify": {"command": ["touch", str(told)], "when": "trouble"}}
    world.run(hours=24)
    assert not told.exists()
    world.level = 0.1
    world.run(hours=24)
    assert told.exists()


def test_a_report_that_cannot_be_written_leaves_the_verdict(world: World) -> None:
    pin(world.run().folder)

    def broken(folder: RunFolder) -> Path:
        raise ValueError("no page")

    outcome = world.run(hours=24, report=broken)
    assert (outcome.night.state, outcome.report) == ("passed", None)
    assert outcome.night.notes == ("report: ValueError: no page",)


def test_a_removed_baseline_is_told(world: World) -> None:
    first = world.run()
    pin(first.folder)
    shutil.rmtree(first.folder.path)
    outcome = world.run(hours=24)
    assert outcome.night.state == "incomplete"
    assert "not a run folder" in outcome.night.notes[0]


def test_only_one_call_is_alone(tmp_path: Path) -> None:
    with alone(tmp_path) as first, alone(tmp_path) as second:
        assert (first, second) == (True, False)
    with alone(tmp_path) as third:
        assert third
    assert due_module.nights_of(tmp_path) == []


def test_a_name_that_no_text_can_hold_has_no_nights(tmp_path: Path) -> None:
    history.rebuild(tmp_path)
    assert history.read(tmp_path, "\udcff") == []
