"""kill -9 at random file operations of four commands, and that what looks for faults afterwards finds them."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from genrun.runner.store.folder import RunFolder
from tests.bench import kills
from tests.fakes.killer.sitecustomize import TOKEN_SUFFIX, VARIABLE

pytestmark = pytest.mark.e2e

KILLS = {"submit, inline": 5, "score": 2, "report": 2, "nightly": 3}
WAYS = [replace(way, share=KILLS[way.name]) for way in kills.WAYS if way.name in KILLS]
ITEMS = 6


def run_of(folder: Path) -> RunFolder:
    (run,) = kills.run_folders(folder)
    return run


def picture(folder: Path) -> Path:
    return run_of(folder).result_files()[-1]


def lose_record(folder: Path) -> None:
    run_of(folder).record_files()[0].unlink()


def write_record_again(folder: Path) -> None:
    path = run_of(folder).record_files()[0]
    path.write_bytes(path.read_bytes() + b" ")


def copy_run(folder: Path) -> None:
    run = run_of(folder).path
    shutil.copytree(run, run.with_name("2000-01-01T00-00-00-abcd"))


def leave(name: str) -> Callable[[Path], object]:
    return lambda folder: (run_of(folder).path / name).mkdir(parents=True)


DAMAGES = {
    "a record is gone": (lose_record, {"lost", "not clean"}),
    "a record was written once more": (write_record_again, {"doubled"}),
    "a picture is cut": (lambda folder: picture(folder).write_bytes(b"P"), {"lost", "not clean"}),
    "a picture is gone": (lambda folder: picture(folder).unlink(), {"lost", "not clean"}),
    "two runs": (copy_run, {"doubled"}),
    "a temporary file": (leave("media/.a.png.1-2-3-4.tmp.png"), {"left behind"}),
    "a file set aside": (leave("damaged/media/a.png"), {"left behind"}),
    "a temporary file among logs": (leave("logs/.order.json.1-2-3-4.tmp.json"), {"left behind"}),
    "a page that is cut": (lambda folder: (run_of(folder).report_dir / "index.html").write_text("<html>"), {"lost"}),
    "scores that are gone": (lambda folder: run_of(folder).scores_path("mean_byte").write_text(""), {"lost"}),
}


OPERATIONS = """
import os, shutil, sqlite3
from pathlib import Path
Path("runs/a").write_text("x" * 1000)
shutil.copyfile("runs/a", "runs/b")
descriptor = os.open("runs/c", os.O_WRONLY | os.O_CREAT)
os.write(descriptor, b"z" * 100)
os.fsync(descriptor)
os.rename("runs/c", "runs/d")
with sqlite3.connect("runs/e") as database:
    database.execute("CREATE TABLE t (a)")
    database.execute("INSERT INTO t VALUES (1)")
"""
DEATHS = [
    ("open", {}),
    ("write", {"a": 500}),
    ("open", {"a": 1000}),
    ("sendfile", {"a": 1000, "b": 500}),
    ("sendfile", {"a": 1000, "b": 1000}),
    ("open", {"a": 1000, "b": 1000}),
    ("write", {"a": 1000, "b": 1000, "c": 50}),
    ("fsync", {"a": 1000, "b": 1000, "c": 100}),
    ("os.rename", {"a": 1000, "b": 1000, "c": 100}),
]
STATEMENTS = ["sqlite CREATE TABLE t (a)", "sqlite BEGIN", "sqlite INSERT INTO t VALUES (1)", "sqlite COMMIT"]


def die_at(at: int, folder: Path) -> tuple[str, dict[str, int]]:
    (folder / "runs").mkdir(parents=True)
    token = folder / "token"
    token.touch()
    plan = {"scope": str(folder / "runs"), "role": "command", "at": at, "token": str(token), "counts": str(folder)}
    environ = {**os.environ, "PYTHONPATH": str(kills.KILLER), VARIABLE: json.dumps(plan)}
    died = subprocess.run([sys.executable, "-c", OPERATIONS], cwd=folder, env=environ, timeout=60, check=False)
    assert died.returncode == -signal.SIGKILL
    sizes = {path.name: path.stat().st_size for path in sorted((folder / "runs").iterdir())}
    return token.with_name(f"{token.name}{TOKEN_SUFFIX}").read_text().strip(), sizes


def test_a_process_dies_before_or_in_the_middle_of_every_kind_of_operation(tmp_path: Path) -> None:
    met = [die_at(at, tmp_path / str(at)) for at in range(1, 1 + len(DEATHS) + len(STATEMENTS))]

    assert [(what.split()[0], sizes) for what, sizes in met[: len(DEATHS)]] == DEATHS
    assert [what for what, _ in met[len(DEATHS) :]] == STATEMENTS


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[kills.Bench]]:
    with kills.benches(WAYS, tmp_path_factory.mktemp("kills") / "ways") as benches:
        yield benches


def test_killed_at_random_the_same_command_again_makes_everything_whole(made: list[kills.Bench]) -> None:
    trials = kills.measure(made, sum(KILLS.values()), 1, 2)

    assert [trial for trial in trials if trial.faults] == []
    assert len(trials) == sum(KILLS.values())
    assert all(trial.killed for trial in trials)


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_kind_of_fault_is_found(made: list[kills.Bench], tmp_path: Path, damage: str) -> None:
    do, kinds = DAMAGES[damage]
    (whole,) = (bench.root / "whole" for bench in made if bench.way.name == "report")
    folder = Path(shutil.copytree(whole, tmp_path / "trial", symlinks=True))
    before, known = kills.finished(folder), kills.contents(folder)
    assert len(before) == ITEMS
    assert kills.inspect(folder, before, known) == {}

    do(folder)

    assert kinds <= set(kills.inspect(folder, before, known))
