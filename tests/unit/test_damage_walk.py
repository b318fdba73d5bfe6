"""Every kind of damage to every kind of file of a run: it is named, no verb breaks, and the same submission mends it."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from genrun.runner.api import launching
from genrun.runner.cli import main
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.verify import verify
from genrun.runner.submit import lock
from tests.fakes import at_once
from tests.fakes.damage import (
    DAMAGES,
    Damage,
    a_file,
    a_folder,
    a_loop,
    dangling,
    deleted,
    denied,
    emptied,
    furnish,
    no_text,
)

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
JOB = {
    "name": "fake",
    "model": "test/fake",
    "prompts": ["a cat"],
    "matrix": {"solver": ["sequential", {"kind": "ropa", "workers": 4}]},
}
ROOMS = ("items", "media", "latents", "prompts", "leases", "logs", "scores", "report")
VERBS = (
    ("score", "--metrics", "psnr", "--json"),
    ("report", "--json"),
    ("compare", "--by", "solver", "--json"),
    ("logs",),
    ("cancel",),
    ("history", "--rebuild", "--json"),
    ("decode", "--json"),
    ("pin",),
    ("retry", "--json"),
    ("submit", "job.yaml", "-n", "--json"),
)
READERS = (("status", "--json"), ("verify", "--json"), *VERBS)
SMALL = 12
"""Every so manieth combination is walked beside the other unit tests; `-m e2e` walks all."""


@dataclass(frozen=True)
class Stage:
    """A folder with a furnished run, and a copy of it to damage."""

    base: Path
    whole: Path
    kinds: dict[str, Path]

    @property
    def run(self) -> Path:
        return self.base / "runs" / "fake" / self.whole.name

    def reset(self) -> None:
        shutil.rmtree(self.base / "runs", ignore_errors=True)
        self.run.parent.mkdir(parents=True)
        shutil.copytree(self.whole, self.run, symlinks=True)
        (self.run.parent / "latest").symlink_to(self.run.name)


def call(*args: str) -> Result:
    result = CliRunner().invoke(main, args, prog_name="genrun")
    assert result.exception is None or isinstance(result.exception, SystemExit), (args, result.exc_info)
    assert "genrun itself" not in result.output, f"{args}: {result.output}"
    assert "Traceback" not in result.output, f"{args}: {result.output}"
    assert "elete that file" not in result.output, f"{args}: {result.output}"
    assert result.exit_code in (0, 1, 2, 3), f"{args}: {result.output}"
    if "--json" in args and (result.stdout or result.exit_code == 0):
        json.loads(result.stdout.splitlines()[-1])
    return result


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    base = tmp_path_factory.mktemp("walk")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(base)
        patch.setattr(launching, "make_launcher", at_once.make_launcher)
        (base / "job.yaml").write_text(yaml.safe_dump(JOB))
        call("submit", "job.yaml")
        made = RunFolder.open(base / "runs" / "fake" / "latest")
        call("score", "--metrics", "psnr")
        call("report")
        kinds = furnish(made)
        shutil.copytree(made.path, base / "whole" / made.path.name)
        yield Stage(base, base / "whole" / made.path.name, kinds)


def walk(kinds: dict[str, Path]) -> list[tuple[str, Path, Damage]]:
    files = [(kind, path, damage) for kind, path in kinds.items() for damage in DAMAGES]
    return files + [(f"{room}/", Path(room), damage) for room in ROOMS for damage in (deleted, a_file)]


def look_and_mend(stage: Stage, number: int, path: Path, damage: Damage) -> set[str]:
    """Damage one thing, look at it in many ways, submit again; return what verify named."""
    stage.reset()
    damage(stage.run / path)
    if path == stage.kinds["lease"] and (stage.run / path).is_file():
        os.utime(stage.run / path, (0, 0))
    verified = call("verify", "--json")
    for args in (("status", "--json"), VERBS[number % len(VERBS)], VERBS[(number + 5) % len(VERBS)]):
        call(*args)
    mend(stage)
    flaws = json.loads(verified.stdout)["flaws"]
    own = {flaw["kind"] for flaw in flaws} - (set() if path == stage.kinds["lease"] else {"lease"})
    assert verified.exit_code == (1 if flaws else 0)
    return own


def mend(stage: Stage) -> None:
    submitted = call("submit", "job.yaml")
    assert submitted.exit_code == 0, submitted.output
    assert verify(RunFolder.open(stage.run.parent / "latest")) == [], submitted.output
    beside = {each for each in stage.run.parent.iterdir() if not each.is_symlink()}
    assert beside <= {stage.run, stage.run.parent / lock.FILE}


def named(stage: Stage, step: int = 1) -> dict[str, set[str]]:
    """What verify calls each kind of file when it is damaged, or gone."""
    found: dict[str, set[str]] = {}
    for number, (kind, path, damage) in list(enumerate(walk(stage.kinds)))[::step]:
        try:
            flaws = look_and_mend(stage, number, path, damage)
        except AssertionError as error:
            pytest.fail(f"{kind} {damage.__name__}: {error}")
        gone = damage in (deleted, dangling)
        found.setdefault(f"{kind} {'gone' if gone else 'damaged'}", set()).update(flaws or {"nothing"})
    return found


def rows() -> dict[str, set[str]]:
    """The table of the page: file and damage -> what verify may say."""
    table: dict[str, set[str]] = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0].startswith("`"):
            for state, cell in (("damaged", cells[1]), ("gone", cells[2])):
                table[f"{cells[0].strip('`')} {state}"] = {word.strip(" `") for word in cell.split(",")}
    return table


def test_damage_is_named_breaks_no_verb_and_does_not_outlast_the_next_submission(stage: Stage) -> None:
    table = rows()
    for what, kinds in named(stage, SMALL).items():
        assert kinds <= table[what], what


@pytest.mark.e2e
def test_the_table_of_the_page_is_what_verify_says_of_all_damage(stage: Stage) -> None:
    assert named(stage) == rows()


def test_what_may_not_be_read_stops_the_work_and_is_left_as_it_is(stage: Stage) -> None:
    places = {**stage.kinds, **{f"{room}/": Path(room) for room in ("items", "leases")}}
    for number, (kind, path) in enumerate(places.items()):
        stage.reset()
        before = snapshot(stage.run)
        with denied(stage.run / path):
            for args in (*READERS[:2], VERBS[number % len(VERBS)], VERBS[(number + 5) % len(VERBS)]):
                result = call(*args)
                if kind in ("plan.jsonl", "record", "items/") and args[0] not in ("logs", "history", "cancel"):
                    assert result.exit_code == 1, (kind, args, result.output)
            if kind not in ("log", "report", "encodings"):
                assert call("verify").exit_code == 1, kind
            if kind in ("plan.jsonl", "job.yaml", "record", "items/", "media"):
                refused = call("submit", "job.yaml")
                assert refused.exit_code == 1, (kind, refused.output)
                assert "Nothing was changed." in refused.output and "chmod" in refused.output, refused.output
        kept = snapshot(stage.run)
        assert before.get(path) == kept.get(path), kind
        mend(stage)


def snapshot(run: Path) -> dict[Path, bytes]:
    return {path.relative_to(run): path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.mark.parametrize("damage", [deleted, a_file, a_folder, a_loop, dangling])
@pytest.mark.parametrize("link", ["latest", "pinned"])
def test_links_beside_the_runs(stage: Stage, link: str, damage: Damage) -> None:
    stage.reset()
    call("pin")
    damage(stage.run.parent / link)
    for args in READERS:
        call(*args)
    submitted = call("submit", "job.yaml")
    assert submitted.exit_code == 0, submitted.output
    assert (stage.run.parent / "latest").resolve() == stage.run
    assert verify(RunFolder.open(stage.run)) == []


@pytest.mark.parametrize("damage", [deleted, emptied, a_folder, no_text, a_loop])
def test_the_list_of_nights(stage: Stage, damage: Damage) -> None:
    stage.reset()
    call("history", "--rebuild")
    damage(stage.base / "runs" / "history.sqlite3")
    call("history", "--json")
    rebuilt = call("history", "--rebuild", "--json")
    assert damage in (a_folder,) or json.loads(rebuilt.stdout)[0]["run"] == stage.run.name


Spoil = Callable[[dict[str, object]], object]


@pytest.mark.e2e
@pytest.mark.parametrize(
    "spoil",
    [
        lambda record: record.update(status="dond"),
        lambda record: record.update(status=None),
        lambda record: record.update(status=5),
        lambda record: record.pop("status"),
        lambda record: record.update(attempt="x"),
        lambda record: record.update(attempt=True),
        lambda record: record.update(elapsed_s=None),
        lambda record: record.update(elapsed_s=10**400),
        lambda record: record.update(media=["a"]),
        lambda record: record.update(media="../../etc/passwd"),
        lambda record: record.update(media="/etc/passwd"),
        lambda record: record.update(media="media/../../x.png"),
        lambda record: record.update(media=None),
        lambda record: record.update(sha256=None),
        lambda record: record.update(sha256="0" * 64),
        lambda record: record.update(media_bytes=-1),
        lambda record: record.update(item_id="0" * 20),
        lambda record: record.update(sampler={"num_steps": 4}),
        lambda record: record.update(sampler={"num_steps": 4, "rounds": 0, "nfe": 1}),
        lambda record: record.update(sampler=[]),
        lambda record: record.update(versions=[1]),
        lambda record: record.update(mesh={"time": "2"}),
        lambda record: record.update(memory_bytes=5),
        lambda record: record.update(error="no"),
        lambda record: record.clear(),
    ],
)
def test_a_record_that_no_worker_writes_is_made_again(stage: Stage, spoil: Spoil) -> None:
    stage.reset()
    path = stage.run / stage.kinds["record"]
    record = json.loads(path.read_text())
    spoil(record)
    path.write_text(json.dumps(record))
    assert call("verify").exit_code == 1
    for args in READERS:
        if args[0] != "retry":
            call(*args)
    mend(stage)
    assert json.loads(path.read_text())["status"] == "done"


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a dog"},
        {"seed": 1},
        {"pair": "0" * 20},
        {"id": "0" * 20},
        {"solver": {"kind": "ropa", "workers": 5}},
    ],
)
def test_a_line_of_the_plan_that_does_not_fit_its_id_is_named_and_written_again(
    stage: Stage, change: dict[str, object]
) -> None:
    stage.reset()
    plan = stage.run / "plan.jsonl"
    first, *others = plan.read_text().splitlines()
    plan.write_text("\n".join([json.dumps(json.loads(first) | change), *others]) + "\n")
    flaws = json.loads(call("verify", "--json").stdout)["flaws"]
    assert ("plan", "plan.jsonl:1") in [(flaw["kind"], flaw["path"]) for flaw in flaws]
    mend(stage)
    assert plan.read_text().splitlines()[0] == first


def test_a_line_that_is_there_twice_is_named(stage: Stage) -> None:
    stage.reset()
    plan = stage.run / "plan.jsonl"
    plan.write_text(plan.read_text() + plan.read_text().splitlines()[0] + "\n")
    assert "plan.jsonl:3: the item" in call("verify").stdout
    mend(stage)


@pytest.mark.parametrize("damage", [deleted, emptied, no_text])
def test_retry_writes_a_damaged_plan_again_from_the_stored_job(stage: Stage, damage: Damage) -> None:
    stage.reset()
    before = (stage.run / "plan.jsonl").read_bytes()
    damage(stage.run / "plan.jsonl")
    assert call("retry", str(stage.run)).exit_code == 0
    assert (stage.run / "plan.jsonl").read_bytes() == before


def test_retry_makes_a_changed_picture_again(stage: Stage) -> None:
    stage.reset()
    media = stage.run / stage.kinds["media"]
    before, stamp = media.read_bytes(), media.stat().st_mtime_ns
    media.write_bytes(before[:-1] + b"?")
    os.utime(media, ns=(stamp, stamp))
    assert call("retry", str(stage.run), "--item", media.stem).exit_code == 0
    assert media.read_bytes() == before
    assert (stage.run / "damaged" / stage.kinds["media"]).read_bytes() == before[:-1] + b"?"
    assert call("retry", str(stage.run), "--item", media.stem).exit_code == 2


def test_an_older_run_that_is_damaged_does_not_keep_a_new_job_from_running(stage: Stage) -> None:
    stage.reset()
    (stage.run / "plan.jsonl").write_bytes(b"?")
    result = call("submit", "job.yaml", "--set", "seeds=[5]", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout.splitlines()[-1])["run"] != str(stage.run)
