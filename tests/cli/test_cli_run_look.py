"""`status`, `logs` and `verify` of runs that were made by fake workers."""

import errno
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from genrun.runner.cli import main
from genrun.runner.notes import PROMPT_TRUNCATED
from genrun.runner.store.environment import current
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.lease import Leases, Owner
from genrun.runner.store.records import Note, format_record
from tests.cli.conftest import Genrun
from tests.fakes import faults
from tests.fakes.items import dead_process, failed, make_folder

pytestmark = pytest.mark.e2e
WriteJob = Callable[..., dict[str, Any]]


@pytest.fixture
def one_failed(genrun: Genrun, write_job: WriteJob, tmp_path: Path) -> RunFolder:
    write_job(launch={"max_attempts": 1})
    faults.put(tmp_path / "faults", "sampling", victim="error")
    genrun("submit", "job.yaml", exit_code=1)
    return RunFolder.open(tmp_path / "runs" / "fake" / "latest")


def test_status_counts_by_axis_and_tells_failures(genrun: Genrun, one_failed: RunFolder) -> None:
    result = genrun("status")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["solver", "items", "done", "failed", "running", "pending", "s/item"]
    assert lines[1].split()[:6] == ["sequential", "3", "2", "1", "0", "0"]
    assert lines[-1].split()[:6] == ["all", "6", "5", "1", "0", "0"]
    assert "1 failed: RuntimeError: the model\\nbroke" in result.stderr
    assert "See the log for the traceback, then: genrun retry." in result.stderr


def test_status_json_has_one_row_per_item(genrun: Genrun, one_failed: RunFolder) -> None:
    status = json.loads(genrun("status", "fake", "--json").stdout)
    assert {key: status[key] for key in ("run", "items", "done", "failed", "pending", "jobs")} == {
        "run": str(one_failed.path),
        "items": 6,
        "done": 5,
        "failed": 1,
        "pending": 0,
        "jobs": [],
    }
    rows = {row["id"]: row for row in status["rows"]}
    assert list(rows) == [item.id for item in one_failed.items()]
    for row in rows.values():
        if row["status"] == "done":
            assert Path(row["media"]).is_file()
            assert (row["rounds"], row["nfe"], row["attempt"]) == (2, 6, 1)
        else:
            assert row["error"]["kind"] == "RuntimeError"
    assert status["rows"][2]["prompt"] == 'a "dog"\n<script>alert(1)</script>'


def test_status_of_a_run_that_has_not_begun(genrun: Genrun, tmp_path: Path) -> None:
    make_folder(tmp_path / "run")
    status = json.loads(genrun("status", "run", "--json").stdout)
    assert status["pending"] == 3
    assert {row["status"] for row in status["rows"]} == {"pending"}


def test_status_escapes_what_a_terminal_would_obey(genrun: Genrun, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run", count=1)
    failed(folder, folder.items()[0], kind="\x1b[2J")
    assert "\x1b" not in genrun("status", "run").output


def test_logs_of_a_run_a_rank_and_an_item(genrun: Genrun, one_failed: RunFolder) -> None:
    everything = genrun("logs").stdout
    assert everything.count(": attempt 1") == 6
    assert genrun("logs", "fake", "--rank", "0").stdout == everything
    assert genrun("logs", "--rank", "1").stdout == ""
    (broken,) = [item_id for item_id, record in one_failed.records().items() if record.error]
    about = genrun("logs", broken[:8]).stdout
    assert about == genrun("logs", "fake", broken).stdout
    assert about.splitlines()[0].endswith(f"{broken}: attempt 1")
    assert "RuntimeError: the model" in about
    assert about.splitlines()[-1].split(": ", 1)[1].startswith("failed: RuntimeError in ")
    assert about.count(": attempt") == 1


def test_following_the_logs_of_a_run_that_is_over_ends(genrun: Genrun, one_failed: RunFolder) -> None:
    # This process, which followed the workers, lives on.
    assert genrun("logs", "-f").stdout == genrun("logs").stdout
    order = json.loads(next(one_failed.logs.glob("*/order.json")).read_text())
    order["launcher"] = asdict(dead_process())
    next(one_failed.logs.glob("*/order.json")).write_text(json.dumps(order))
    assert genrun("logs", "-f").stdout == genrun("logs").stdout


def test_logs_before_the_first_launch_are_refused(genrun: Genrun, tmp_path: Path) -> None:
    make_folder(tmp_path / "run")
    assert "has no logs: nothing was launched." in genrun("logs", "run", exit_code=2).stderr


def test_verify_json_names_the_flaws(genrun: Genrun, one_failed: RunFolder) -> None:
    verdict = json.loads(genrun("verify", "--json", exit_code=1).stdout)
    assert not verdict["ok"]
    assert [flaw["kind"] for flaw in verdict["flaws"]] == ["failed"]


def test_an_unknown_run_is_refused_with_what_there_is(genrun: Genrun, one_failed: RunFolder) -> None:
    assert "'fakee': no such run. Did you mean 'fake'?" in genrun("status", "fakee", exit_code=2).stderr


def test_decode_with_nothing_to_decode_says_so(genrun: Genrun, one_failed: RunFolder) -> None:
    assert "No saved latents wait to be decoded." in genrun("decode").stderr


def test_a_name_that_no_run_can_have_is_wrong_usage(genrun: Genrun) -> None:
    for verb in ("status", "score", "report", "verify", "retry", "history"):
        assert genrun(verb, "nope", exit_code=2).stdout == ""
        told = genrun(verb, "x" * 5000, exit_code=2).stderr
        assert len(told) < 400 or verb == "history"
    assert "has a character that no command line can hold" in genrun("status", "a\0b", exit_code=2).output
    assert "has a character that no command line can hold" in genrun("status", "\ud800", exit_code=2).output


def test_what_the_machine_refuses_is_no_error_of_genruns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/somewhere")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("genrun.runner.store.runs.resolve", refuse)
    result = CliRunner().invoke(main, ["status", "x"])
    assert result.exit_code == 1
    assert result.stderr.startswith("/somewhere: cannot be read: Permission denied.\n")


def test_rerun_refuses_a_picture_of_somebody_else(genrun: Genrun, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (4, 4)).save(tmp_path / "picture.png")
    stderr = genrun("rerun", "picture.png", exit_code=2).stderr
    assert "picture.png: does not say how it was made" in stderr


def test_a_cancelled_item_is_settled_until_retry_makes_it(genrun: Genrun, write_job: WriteJob, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "runs" / "fake" / "run", count=1)
    item = folder.items()[0].id
    assert genrun("cancel", "fake", "--item", item[:6]).stdout == f"{item}\n"
    status = json.loads(genrun("status", "fake", "--json").stdout)
    assert (status["failed"], status["rows"][0]["error"]["kind"]) == (1, "cancelled")
    assert "To make it after all: genrun retry." in genrun("status", "fake").stderr


def test_cancel_keeps_what_is_done_and_says_when_there_is_nothing_to_stop(
    genrun: Genrun, one_failed: RunFolder
) -> None:
    done = next(item_id for item_id, record in one_failed.records().items() if record.status == "done")
    assert "is done already, and kept." in genrun("cancel", "fake", "--item", done).stderr
    order = next(one_failed.logs.glob("*/order.json"))
    order.write_text(json.dumps({**json.loads(order.read_text()), "launcher": None}))
    assert "nothing of it waits or works." in genrun("cancel", "fake").stderr
    assert "wanted the number of a task" in genrun("cancel", "fake", "--task", "x", exit_code=2).stderr
    assert "no such task waits or works" in genrun("cancel", "fake", "--task", "3", exit_code=2).stderr


def test_a_lease_whose_owner_is_gone_is_no_work(genrun: Genrun, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run", count=2)
    first, second = folder.items()
    leases = [Leases(folder, Owner(owner, "x.0")) for owner in (dead_process(), current())]
    held = [lease.claim(item.id) for lease, item in zip(leases, (first, second), strict=True)]
    states = [row["status"] for row in json.loads(genrun("status", "run", "--json").stdout)["rows"]]
    assert states == ["pending", "running"]
    for lease in held:
        assert lease is not None
        lease.release()


def test_status_tells_what_is_to_be_known_about_done_items(genrun: Genrun, one_failed: RunFolder) -> None:
    record = next(record for record in one_failed.records().values() if record.status == "done")
    noted = replace(record, notes=(Note(PROMPT_TRUNCATED, "its encoder saw \x1b[2J 77 of 90 tokens"),))
    one_failed.record_path(record.item_id).write_bytes(format_record(noted))
    told = genrun("status").stderr
    assert "1 item: the prompt is longer than the window of a text encoder" in told
    assert "\x1b" not in told
    status = json.loads(genrun("status", "--json").stdout)
    assert status["notes"] == {PROMPT_TRUNCATED: 1}
    rows = {row["id"]: row for row in status["rows"]}
    assert rows[record.item_id]["notes"] == [{"kind": PROMPT_TRUNCATED, "message": noted.notes[0].message}]
    assert "1 item: the prompt is longer" in genrun("retry").stderr
