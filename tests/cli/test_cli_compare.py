"""`genrun compare`: exit codes, JSON, the files for CI systems, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import parse

import pytest

from genrun.runner.notes import SAFETY_CHECKER
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.records import Note, format_record
from tests.cli.conftest import Genrun
from tests.fakes.scores import Value, scored_run


def level(value: float) -> Value:
    return lambda item, number: value + 0.01 * (number % 3)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs of one job, of which the newer has a psnr that is 10 % lower."""
    gates: dict[str, Any] = {"psnr": {"max_drop": "5%"}}
    scored_run(tmp_path / "runs" / "a" / "1", {"psnr": level(1.0)}, gates=gates)
    scored_run(tmp_path / "runs" / "a" / "2", {"psnr": level(0.9)}, gates=gates)
    return tmp_path / "runs"


def test_a_regression_is_exit_code_1_and_the_same_run_is_0(genrun: Genrun, runs: Path) -> None:
    failed = genrun("compare", "a/1", "a/2", exit_code=1)
    assert "FAILED  sequential  psnr max_drop 5%" in failed.stdout
    assert "Worst pairs of ropa by psnr:\n" in failed.stdout
    assert "2 gates: 2 failed.\n" in failed.stderr
    assert "2 gates: 2 passed.\n" in genrun("compare", "a/1", "a/1").stderr


def test_json_and_files_say_the_same(genrun: Genrun, runs: Path, tmp_path: Path) -> None:
    files = ("--junit", "out/gates.xml", "--markdown", "out/summary.md")
    found = json.loads(genrun("compare", "a/1", "a/2", "--json", *files, exit_code=1).stdout)
    assert (found["state"], len(found["cells"])) == ("failed", 2)
    psnr = found["cells"][0]["differences"][0]
    assert (psnr["metric"], psnr["verdict"], psnr["losses"]) == ("psnr", "worse", 3)
    assert found["cells"][0]["gates"][0]["state"] == "failed"
    assert parse(tmp_path / "out" / "gates.xml").getroot().get("failures") == "2"
    assert (tmp_path / "out" / "summary.md").read_text().startswith("## ❌")


@pytest.mark.parametrize(
    ("verb", "option", "begin"),
    [
        (("compare", "a/1", "a/2"), "--latex", "\\begin{table}"),
        (("compare", "a/1", "a/2"), "--markdown", "## "),
        (("compare", "a/1", "a/2"), "--junit", "<?xml"),
        (("score", "a/1", "--metrics", "latent_rmse"), "--latex", "\\begin{table}"),
        (("schema",), "-o", "{"),
    ],
)
def test_a_dash_prints_what_a_file_would_hold(
    genrun: Genrun, runs: Path, verb: tuple[str, ...], option: str, begin: str
) -> None:
    exit_code = 1 if verb[0] == "compare" else 0
    printed = genrun(*verb, option, "-", exit_code=exit_code).stdout
    genrun(*verb, option, "file", exit_code=exit_code)
    assert printed == Path("file").read_text() and begin in printed
    assert not Path("-").exists()
    assert "wanted the name of a file, or - to print it" in genrun(*verb, option, "", exit_code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compare", "a/1", "--latex", "-", "--json"), "--latex - and --json: only one can go to stdout."),
        (("compare", "a/1", "--latex", "-", "--junit", "-"), "--junit - and --latex -: only one can go to stdout."),
        (("score", "a/1", "--latex", "-", "--json"), "--latex - and --json: only one can go to stdout."),
        (("compare", "a/1", "--pdf", "-"), "a PDF is not printed: name a file."),
        (("report", "a/1", "--pdf", "-"), "not the name of a PDF"),
        (("export", "a/1", "--to", "-"), "wanted the name of a folder; got '-'."),
        (("export", "a/1", "--to", ""), "wanted the name of a folder; got ''."),
        (("bench", "--problem", "linear", "--out", ""), "wanted the name of a folder; got ''."),
        (("status", "--runs", "-"), "wanted the name of a folder; got '-'."),
    ],
)
def test_names_that_cannot_be_written_are_refused(
    genrun: Genrun, runs: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert message in genrun(*arguments, exit_code=2).stderr
    assert not Path("-").exists()


def test_gates_of_another_job_file(genrun: Genrun, runs: Path, tmp_path: Path) -> None:
    text = "model: demo-video\nprompts: [a cat]\ngates: {psnr: {max_drop: 50%}}\n"
    (tmp_path / "gates.yaml").write_text(text)
    assert "2 passed" in genrun("compare", "a/1", "a/2", "--gates", "gates.yaml").stderr
    (tmp_path / "gates.yaml").write_text(text.replace("max_drop", "max_drp"))
    wrong = genrun("compare", "a/1", "a/2", "--gates", "gates.yaml", exit_code=2)
    assert "gates.yaml:3:16: gates.psnr.max_drp: unknown option. Did you mean 'max_drop'?" in wrong.stderr


def test_cells_of_one_run_and_too_little_to_judge(genrun: Genrun, runs: Path) -> None:
    one = json.loads(genrun("compare", "a/1", "--by", "solver", "--baseline", "ropa", "--json").stdout)
    assert [cell["label"] for cell in one["cells"]] == ["sequential"]
    (runs / "a" / "2" / "scores" / "psnr.jsonl").unlink()
    genrun("compare", "a/1", "a/2", exit_code=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a/1", "a/2", "a/3"), "wanted two runs, or one with --by and --baseline."),
        (("a/1", "a/2", "--by", "solver"), "wanted two runs, or one with --by and --baseline."),
        (("a/1", "--by", "solvr"), "no axis 'solvr'. Did you mean 'solver'?"),
        (("a/1", "a/9"), "'a/9': no such run."),
        (("a/1", "a/2", "--drift", "psn"), "--drift psn: no such metric. Did you mean 'psnr'?"),
        (("a/1", "a/2", "--worst", "psrn"), "--worst psrn: is not compared. Did you mean 'psnr'?"),
    ],
)
def test_what_cannot_be_meant_is_refused(genrun: Genrun, runs: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in genrun("compare", *arguments, exit_code=2).stderr


def test_pictures_that_a_safety_checker_replaced_are_told_of_each_side(genrun: Genrun, runs: Path) -> None:
    folder = RunFolder(runs / "a" / "2")
    record = folder.record(folder.items()[0].id)
    assert record is not None
    black = replace(record, notes=(Note(SAFETY_CHECKER, "it flagged it"),))
    folder.record_path(record.item_id).write_bytes(format_record(black))
    said = genrun("compare", "a/1", "a/2", exit_code=1).stderr
    assert "Candidate: 1 item: the checkpoint's safety checker made the picture black" in said
    assert "Baseline: 1 item" not in said
