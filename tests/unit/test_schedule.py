"""Installing a nightly command: what is written, what is called, and that nothing foreign reaches a shell unquoted."""

import os
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from genrun.runner.errors import RunError, UsageError
from genrun.runner.schedule import ScheduledCommand, kinds, merged, plan

HOSTILE = 'we\'ird $(touch pwned) `x`; %a "b" \\c'


def night(here: Path, **changes: Any) -> ScheduledCommand:
    job = here / HOSTILE / "job.yaml"
    return replace(ScheduledCommand("demo", ("touch", str(job)), here, "02:05", here / "config"), **changes)


def program(folder: Path, name: str, text: str) -> None:
    (folder / "bin").mkdir(exist_ok=True)
    path = folder / "bin" / name
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


def environ(folder: Path) -> dict[str, str]:
    return {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}


@pytest.mark.parametrize("kind", kinds())
def test_the_script_runs_the_command_in_its_folder_whatever_their_names(tmp_path: Path, kind: str) -> None:
    (tmp_path / HOSTILE).mkdir()
    here = tmp_path / HOSTILE
    program(tmp_path, "sbatch", "exit 0")
    installation = plan(kind, night(tmp_path, cwd=here))
    script = next(text for path, text in installation.files.items() if path.suffix == ".sh")
    (tmp_path / "config").mkdir()
    subprocess.run(["bash"], input=script, text=True, check=True, env=environ(tmp_path))
    assert (here / "job.yaml").is_file()
    assert not list(tmp_path.rglob("pwned"))


def test_cron_keeps_what_it_has_and_replaces_what_was_installed_before(tmp_path: Path) -> None:
    table = tmp_path / "table"
    table.write_text("# mine\n5 4 * * * other\n")
    program(
        tmp_path,
        "crontab",
        f'[ "$1" = -l ] && cat {table} || cat >{table}.new && mv {table}.new {table} 2>/dev/null; true',
    )
    plan("cron", night(tmp_path)).install(environ(tmp_path))
    plan("cron", night(tmp_path, at="23:00")).install(environ(tmp_path))
    lines = table.read_text().splitlines()
    assert lines[:2] == ["# mine", "5 4 * * * other"]
    key = night(tmp_path).key
    script = tmp_path / "config" / f"{key}.sh"
    assert lines[2:] == [f"# >>> {key}", f"0 23 * * * bash {script}", f"# <<< {key}"]
    assert script.is_file()


def test_a_percent_sign_is_escaped_for_cron_and_for_systemd(tmp_path: Path) -> None:
    folder = tmp_path / "a%b $x"
    (call,) = plan("cron", night(tmp_path, folder=folder)).calls
    assert call.stdin is not None
    assert r"a\%b $x" in call.stdin.replace("'", "")
    service = next(
        text for path, text in plan("systemd", night(tmp_path, folder=folder)).files.items() if "service" in path.name
    )
    assert "a%%b $$x" in service


def test_scron_options_stand_before_the_line(tmp_path: Path) -> None:
    (call,) = plan("scron", night(tmp_path, options={"partition": "gpu", "account": None})).calls
    assert list(call.command) == ["scrontab", "-"]
    lines = (call.stdin or "").splitlines()
    assert "#SCRON --partition=gpu" in lines
    assert lines[-2] == f"5 2 * * * bash {shlex.quote(str(night(tmp_path).script))}"


def test_a_job_that_submits_itself_begins_at_the_hour_and_goes_on_when_that_fails(tmp_path: Path) -> None:
    program(tmp_path, "sbatch", "exit 1")
    installation = plan("begin", night(tmp_path))
    script = installation.files[night(tmp_path).script]
    assert "#SBATCH --begin=02:05\n" in script
    assert "#SBATCH --dependency=singleton\n" in script
    (tmp_path / HOSTILE).mkdir()
    (tmp_path / "config").mkdir()
    subprocess.run(["bash"], input=script, text=True, check=True, env=environ(tmp_path))
    assert (tmp_path / HOSTILE / "job.yaml").is_file()


@pytest.mark.parametrize("at", ["2:00", "24:00", "02:60", "noon", "02:00\n"])
def test_a_time_that_is_none_is_refused(tmp_path: Path, at: str) -> None:
    with pytest.raises(UsageError, match="wanted a time such as 02:00"):
        plan("cron", night(tmp_path, at=at))


def test_a_folder_that_no_crontab_can_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="control characters"):
        plan("cron", night(tmp_path, folder=tmp_path / "a\nb"))


def test_a_program_that_is_missing_or_fails_is_told_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="No such file or directory"):
        plan("scron", night(tmp_path)).install({"PATH": str(tmp_path)})
    program(tmp_path, "scrontab", "echo 'scrontab: error: scron is disabled' >&2; exit 1")
    with pytest.raises(RunError, match="scron is disabled"):
        plan("scron", night(tmp_path)).install(environ(tmp_path))


def test_a_block_is_replaced_in_its_place_and_others_are_left_alone() -> None:
    first = merged("a\n", "k1", "one")
    both = merged(first, "k2", "two")
    assert merged(both, "k1", "three").splitlines() == [
        "a",
        "# >>> k2",
        "two",
        "# <<< k2",
        "# >>> k1",
        "three",
        "# <<< k1",
    ]
