"""`validate`, `show` and `plan`: results on stdout, talk on stderr, exit codes, and no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from genrun.runner.cli import main

JOB = "model: org/name\nprompts: [a red kite, '<script>']\nseeds: [0, 1]\nmatrix: {solver: [sequential, ropa]}\n"


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("job.yaml").write_text(JOB, encoding="utf-8")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def test_a_valid_job_is_one_line() -> None:
    result = run("validate", "job.yaml")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "job.yaml: ok, 8 items\n", "")


def test_every_bad_job_is_reported_with_exit_code_2() -> None:
    Path("bad.yaml").write_text("model: org/name\nprompts: [a]\nsolver: {kind: ropa, wrkers: 2}\nseeds: [x]\n")
    result = run("validate", "bad.yaml", "job.yaml", "no.yaml")
    assert result.exit_code == 2
    assert result.stdout == "job.yaml: ok, 8 items\n"
    assert result.stderr.splitlines() == [
        "bad.yaml:3:22: solver.wrkers: unknown option. Did you mean 'workers'?",
        "bad.yaml:4:9: seeds[0]: wanted a whole number, got 'x'.",
        "no.yaml: cannot be read: No such file or directory.",
    ]


def test_problems_as_json() -> None:
    result = run("validate", "job.yaml", "--set", "seeds=[-1]", "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout) == [
        {
            "job": "job.yaml",
            "ok": False,
            "items": 0,
            "problems": [
                {
                    "file": "--set seeds=[-1]",
                    "line": 0,
                    "column": 0,
                    "path": "seeds[0]",
                    "message": "wanted at least 0, got -1.",
                }
            ],
        }
    ]


@pytest.mark.parametrize("verb", ["show", "plan"])
def test_a_bad_job_is_refused_by_every_verb(verb: str) -> None:
    result = run(verb, "job.yaml", "--set", "seeds=[-1]")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "--set seeds=[-1]: seeds[0]: wanted at least 0, got -1.\n"


def test_show_prints_a_job_file_that_plans_the_same_items() -> None:
    Path("again.yaml").write_text(run("show", "job.yaml", "--origin").stdout)
    assert run("plan", "again.yaml", "--json").stdout == run("plan", "job.yaml", "--json").stdout


def test_show_says_where_each_value_came_from() -> None:
    lines = run("show", "job.yaml", "--origin", "--set", "output.crf=30").stdout.splitlines()
    text = {line.split(":")[0].strip(): line.partition("  #")[2].strip() for line in lines if "  #" in line}
    assert text["checkpoint"] == "job.yaml:1:8"
    assert text["crf"] == "--set output.crf=30"
    assert text["dtype"] == "default of auto"
    assert text["dir"] == "default"


def test_show_as_json() -> None:
    shown = json.loads(run("show", "job.yaml", "--origin", "--json").stdout)
    assert shown["job"]["prompts"] == ["a red kite", "<script>"]
    assert shown["origin"]["prompts[1]"] == "job.yaml:2:23"


def test_plan_counts_by_axis() -> None:
    result = run("plan", "job.yaml")
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["solver", "prompts", "seeds", "items"],
        ["sequential", "2", "2", "4"],
        ["ropa", "2", "2", "4"],
    ]
    count, ranks, time = result.stderr.splitlines()
    assert (count, ranks) == ("8 items", "Ranks: data x time = 1 x 1 (inline); as the job says.")
    assert time.startswith("Time: not known for every solver before a run of it")


def test_plan_counts_prompts_of_one_text_that_differ_otherwise() -> None:
    prompts = "prompts=[a, {prompt: a, negative_prompt: b}, {prompt: a, steps: 3}]"
    (_, row, *_) = run("plan", "job.yaml", "--set", prompts).stdout.splitlines()
    assert row.split() == ["sequential", "3", "2", "6"]


def test_plan_lists_items_with_their_ids() -> None:
    items = json.loads(run("plan", "job.yaml", "--json").stdout)
    lines = run("plan", "job.yaml", "--list").stdout.splitlines()[1:]
    assert [line.split()[0] for line in lines] == [item["id"] for item in items]
    assert len(items) == 8


def test_control_characters_of_a_prompt_do_not_reach_the_terminal() -> None:
    Path("p.jsonl").write_text(json.dumps({"prompt": "\x1b[2Jgone\u202e"}) + "\n")
    output = run("plan", "job.yaml", "--list", "--set", "prompts={file: p.jsonl}").stdout
    assert "\\x1b[2Jgone\\u202e" in output
    assert "\x1b" not in output


def test_a_secret_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_hidden")
    for arguments in (["show", "--json", "--origin"], ["show"], ["validate"]):
        result = run(arguments[0], "job.yaml", *arguments[1:], "--set", "launch.setup=['export T=${HF_TOKEN}']")
        assert result.exit_code == 0
        assert "hidden" not in result.output


VERBS = (
    ["validate", "job.yaml", "--set", "score=[psnr]", "--set", "launch=torchrun"],
    ["validate", "job.yaml", "--set", "sampling.scheduler=DDIMScheduler"],
    ["validate", "bad.yaml"],
    ["show", "job.yaml", "--origin"],
    ["plan", "job.yaml"],
    ["schema"],
    ["models"],
    ["solvers"],
    ["--help"],
    ["plan", "--help"],
)


def test_no_verb_imports_torch_or_what_imports_it() -> None:
    """One after another in one process, where what one of them has imported stays."""
    Path("bad.yaml").write_text("model: org/name\nprompts: [a]\nseeds: [x]\n")
    program = (
        "import sys\n"
        "from genrun.runner.cli import main\n"
        f"for arguments in {VERBS!r}:\n"
        "    main(arguments, standalone_mode=False)\n"
        "    found = {'torch', 'diffusers', 'transformers', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "    print('imported:', *sorted(found), arguments if found else '', file=sys.stderr)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    lines = [line.rstrip() for line in ran.stderr.splitlines() if line.startswith("imported:")]
    assert lines == ["imported:"] * len(VERBS)


def test_help_imports_neither_pydantic_nor_yaml_nor_rich() -> None:
    program = (
        "import sys\n"
        "from genrun.runner.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "print(sorted({'pydantic', 'yaml', 'rich', 'torch'} & set(sys.modules)), file=sys.stderr)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stderr.splitlines()[-1] == "[]"


def test_an_argument_that_is_not_utf_8_is_refused_without_a_traceback() -> None:
    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            "from genrun.runner.cli import main; main()",
            "validate",
            "job.yaml",
            "--set",
            b"a=\xff",
        ],
        capture_output=True,
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stderr.decode() == (
        "--set a=\\udcff: character U+DCFF is not allowed in YAML. Write it as an escape in double quotes.\n"
    )
