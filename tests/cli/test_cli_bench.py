"""`genrun bench` from its command line to its files."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from genrun.runner.bench import engine
from genrun.runner.bench.engine import EngineQuestion, run_ranks
from genrun.runner.cli import VERBS, main
from genrun.runner.cli.base import Verb
from genrun.runner.errors import LaunchError

SMALL = (
    "--solvers",
    "paradigms,ropa",
    "--workers",
    "2,8",
    "--samples",
    "2",
    "--steps",
    "12",
    "--tolerances",
    "0.05,0.2",
)


def bench(*arguments: str, exit_code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["--traceback", "bench", *arguments], prog_name="genrun")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == exit_code, result.output
    return result


def test_help_agrees_with_the_table_of_verbs_and_names_every_kind_of_bench() -> None:
    line = VERBS["Judge it"]["bench"]
    command = line.load()
    assert isinstance(command, Verb)
    assert (command.help or "").split("\n", 1)[0] == line.help
    text = bench("--help").stdout
    assert all(f"  {example}\n" in text for example in command.examples)
    assert all(f"--{kind}" in text for kind in ("model", "problem", "engine", "solvers", "tolerances"))


def test_a_bench_in_closed_form_writes_tables_and_a_page(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = bench("--problem", "analytic", *SMALL, "--out", str(out))
    with (out / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 2 * 2 * 2
    assert {row["problem"] for row in rows} == {"mixture", "bifurcation", "stiff", "linear"}
    assert all(float(row["rounds"]) <= 12 and row["error"] == "" for row in rows)
    with (out / "pareto.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 4 * 2 * 2 * 3
    whole = json.loads((out / "results.json").read_text())
    assert whole["settings"]["steps"] == 12
    assert len(whole["cells"][0]["by_sample"]) == 2
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["problem", "RMSE", "solver", "K=2", "K=8"]
    assert Path(lines[-1]) == out / "index.html"
    assert "32 cells of 2 samples" in result.stderr
    assert "32/32 done" in result.stderr


def test_the_same_command_again_keeps_every_cell_and_every_byte(tmp_path: Path) -> None:
    arguments = ("--problem", "mixture", *SMALL, "--out", str(tmp_path / "out"), "--json")
    first = json.loads(bench(*arguments).stdout.splitlines()[-1])
    assert (first["cells"], first["measured"], first["refused"]) == (8, 8, 0)
    before = {path: path.read_bytes() for path in sorted((tmp_path / "out").rglob("*.*")) if path.suffix != ".html"}
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cells").iterdir()}
    second = json.loads(bench(*arguments).stdout.splitlines()[-1])
    assert second == first
    assert {path: path.read_bytes() for path in before} == before
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert len(second["pareto"]) == 2 * 2 * 3


def test_more_solvers_join_those_that_are_there_and_other_steps_are_refused(tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "out"))
    bench("--problem", "mixture", *SMALL, *out)
    found = bench("--problem", "mixture", *SMALL, "--solvers", "paradigms,ropa,collocation", *out, "--json")
    assert json.loads(found.stdout.splitlines()[-1])["cells"] == 12
    refused = bench("--problem", "mixture", *SMALL, "--steps", "13", *out, exit_code=2)
    assert "    steps: 12 there, 13 now\n" in refused.stderr
    assert "Choose another folder with --out" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "bench takes one of --model, --problem and --engine; none of them was given."),
        (("--model", "demo-video", "--engine"), "--model and --engine"),
        (("--engine", "--workers", "4"), "--workers means nothing with --engine."),
        (("--problem", "linear", "--ranks", "4"), "--ranks means nothing with --problem."),
        (("--problem", "linear", "--set", "a=1"), "--set means nothing with --problem."),
        (("--problem", "lineal"), "Did you mean 'linear'?"),
        (("--problem", "linear", "--solvers", "rope"), "Did you mean 'ropa'?"),
        (("--model", "demo-vidoe"), "Did you mean 'demo-video'?"),
        (("--model", "demo-image", "--scheduler", "DDIMSchedular"), "Did you mean 'DDIMScheduler'?"),
        (
            ("--model", "demo-image", "--prompts", "no.txt"),
            "--prompts 'no.txt': prompts.file: there is no file 'no.txt'",
        ),
        (("--model", "demo-image", "--guidance", "-1"), "--guidance -1.0: sampling.guidance_scale"),
        (
            ("--model", "demo-image", "--set", "solver.kind=ropa"),
            "a bench has the sections model and sampling of a job.",
        ),
        (("--model", "demo-image", "--set", "sampling.stps=3"), "Did you mean 'steps'?"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_written(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = bench(*arguments, exit_code=2)
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_command_line_does_not_import_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom genrun.runner.cli import main\n"
        "try: main(['bench', '--problem', 'linear', '--solvers', 'rope'])\n"
        "except SystemExit: pass\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def timing(solver: str, ranks: int, loop_s: float = 0.6) -> dict[str, float | str]:
    times = {"loop_s": loop_s, "model_s": 0.5, "exchange_s": 0.04, "cpu_s": 0.03, "setup_s": 0.02}
    return {"solver": solver, "ranks": ranks, "rounds": 10, "nfe": 10 * ranks, **times}


def test_the_engine_is_measured_on_powers_of_two_up_to_the_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(size: int, question: EngineQuestion, environ: object) -> list[dict[str, float | str]]:
        return [timing(name, size, loop) for name in question.solvers for loop in (0.6, 0.9, 0.5)]

    monkeypatch.setattr(engine, "run_ranks", run)
    out = tmp_path / "out"
    result = bench("--engine", "--ranks", "6", "--solvers", "ropa", "--out", str(out), "--json")
    rows = json.loads(result.stdout.splitlines()[-1])["rows"]
    assert [(row["solver"], row["ranks"]) for row in rows] == [
        (name, size) for size in (1, 2, 4, 6) for name in ("sequential", "ropa")
    ]
    assert rows[0]["ratio"] == pytest.approx(60 / 50)
    assert rows[0]["rest_ms"] == pytest.approx(60 - 50 - 4)
    with (out / "engine.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 8
    assert "24/24 done" in result.stderr


@pytest.mark.e2e
def test_ranks_that_die_are_an_error_with_the_end_of_their_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "RANK", "no.such.module")
    question = EngineQuestion(1, 1.0, 2, 1, ["sequential"])
    with pytest.raises(LaunchError, match="1 ranks: ended with exit code 1") as caught:
        list(run_ranks(1, question, {"PATH": ""}))
    assert "No module named 'no'" in str(caught.value)
