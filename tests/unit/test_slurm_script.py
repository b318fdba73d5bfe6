"""Batch scripts: what stands in a #SBATCH line, what reaches a shell, and what is refused."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrun.slurm.sbatch import blame
from genrun.slurm.template import (
    GENERATION,
    Script,
    ScriptError,
    directive_value,
    directives,
    log_pattern,
    mistake_in,
    shell,
)

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=40)
VALUES = {
    "version": "1",
    "run": "/runs/x",
    "order": "slurm-1",
    "cwd": "/",
    "python": "/usr/bin/python3",
    "setup": [],
    "threads": 1,
    "redirect": False,
    "worker": ["-m", "x"],
    "nodes": 1,
    "ranks_per_node": 2,
    "agent": "torchrun",
    "exclude": "",
    "warning_s": 60,
    "tries": 4,
    "give_up": 2,
}


def sbatch_reads(line: str) -> str:
    """What sbatch makes of the value in a line: quotes, backslashes and comments, but no shell."""
    value, quote, escaped = "", "", False
    for char in line.partition("=")[2]:
        if escaped:
            value, escaped = value + char, False
        elif char == "\\":
            escaped = True
        elif quote and char == quote:
            quote = ""
        elif not quote and char in "\"'":
            quote = char
        elif not quote and (char.isspace() or char == "#"):
            break
        else:
            value += char
    return value


@given(TEXT)
def test_any_text_without_control_characters_survives_a_directive(text: str) -> None:
    (line,) = directives({"comment": text})
    assert "\n" not in line
    assert sbatch_reads(line) == text


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "\x00", "tab\t"])
def test_control_characters_are_refused_in_a_directive(text: str) -> None:
    with pytest.raises(ScriptError, match="control characters") as caught:
        directive_value("comment", text)
    assert caught.value.option == "comment"


def test_flags_numbers_and_options_that_are_left_out() -> None:
    options = {"exclusive": True, "nodes": 2, "mem": None, "requeue": False, "time": "04:00:00"}
    assert directives(options) == ["#SBATCH --exclusive", "#SBATCH --nodes=2", "#SBATCH --time=04:00:00"]


@pytest.mark.parametrize("name", ["", "-x", "Mem", "a b", "a=b", "mail_type", "x\n#SBATCH --hold"])
def test_a_name_that_is_no_long_option_is_refused(name: str) -> None:
    with pytest.raises(ScriptError, match="is no option of sbatch"):
        directives({name: "1"})


@given(st.lists(TEXT.filter(lambda text: "\x00" not in text), min_size=1, max_size=4))
def test_words_quoted_for_a_shell_come_back(words: list[str]) -> None:
    assert shlex.split(shell(words)) == words
    assert shlex.split(shell(words[0])) == [words[0]]


def test_a_percent_sign_of_a_folder_is_no_pattern_and_a_backslash_cannot_be_written() -> None:
    assert log_pattern(Path("/a%b/task-%a.log")) == "/a%%b/task-%a.log"
    assert log_pattern(Path("/a\\b/task-%a.log")) is None
    assert log_pattern(Path("/a\nb/task-%a.log")) is None


@pytest.mark.parametrize(
    "changes", [{}, {"agent": "srun"}, {"nodes": 2}, {"setup": ["module load x"]}, {"exclude": "n[1-2]"}]
)
def test_every_form_of_the_script_is_bash(changes: dict[str, object]) -> None:
    text = Script("x.1", {"nodes": 1}, {**VALUES, **changes}).render(GENERATION)
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "#SBATCH --job-name=x.1\n#SBATCH --nodes=1\n" in text


def test_workers_inherit_no_rank() -> None:
    text = Script("x.1", {}, dict(VALUES)).render(GENERATION)
    (line,) = (line for line in text.splitlines() if line.startswith("unset -v "))
    others = {"RANK": "3", "LOCAL_WORLD_SIZE": "8", "PET_NNODES": "2", "TORCHELASTIC_RUN_ID": "x", "SLURM_PROCID": "1"}
    for environ in (others, {}):
        ran = subprocess.run(
            ["bash", "-c", f"set -euo pipefail\n{line}\nenv"],
            env={"PATH": os.environ["PATH"], **environ},
            capture_output=True,
            text=True,
            check=True,
        )
        found = {entry.partition("=")[0] for entry in ran.stdout.splitlines()}
        assert others.keys() & found == environ.keys() & {"SLURM_PROCID"}


def test_a_hostile_run_folder_is_quoted_everywhere(tmp_path: Path) -> None:
    run = f"{tmp_path}/$(touch {tmp_path}/pwned)'\"`;\n"
    text = Script("x.1", {}, {**VALUES, "run": run, "cwd": run}).render(GENERATION)
    assert text.count(shlex.quote(run)) == 2
    assert "$(touch" not in text.replace(shlex.quote(run), "")


def test_a_template_cannot_reach_python(tmp_path: Path) -> None:
    template = tmp_path / "mine.j2"
    template.write_text("{{ ''.__class__.__mro__ }}")
    with pytest.raises(ScriptError, match="unsafe"):
        Script("x.1", {}, VALUES, template).render()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a\n\n{{ 1 / 0 }}", "mine.j2:3: ZeroDivisionError: division by zero."),
        ("a\n{{ nope }}", "mine.j2:2: UndefinedError: 'nope' is undefined."),
        ("a\n{% if %}", "mine.j2:2: Expected an expression, got 'end of statement block'."),
        ("a\n{% include 'x' %}", "mine.j2:2: TypeError: no loader for this environment specified."),
        ("a\n{{ name | nope }}", "mine.j2:2: No filter named 'nope'.."),
        ("{% for i in range(10**9) %}{% endfor %}", "mine.j2:1: OverflowError: Range too big."),
        ("{% macro m() %}{{ m() }}{% endmacro %}\n{{ m() }}", "RecursionError"),
    ],
)
def test_a_mistake_in_a_template_is_told_with_its_line(text: str, told: str, tmp_path: Path) -> None:
    template = tmp_path / "mine.j2"
    template.write_text(text)
    with pytest.raises(ScriptError) as caught:
        Script("x.1", {}, VALUES, template).render()
    assert told in str(caught.value)
    assert caught.value.option == ""


def test_every_value_of_a_script_may_be_used_in_a_template(tmp_path: Path) -> None:
    template = tmp_path / "mine.j2"
    template.write_text("".join(f"{{{{ {name} }}}}\n" for name in sorted({*VALUES, "name", "directives"})))
    assert mistake_in(template) == ""
    assert mistake_in(Path(__file__).parents[2] / "slurm" / GENERATION) == ""


def test_what_is_no_template_is_told(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"a\n\xff")
    assert mistake_in(tmp_path / "binary") == f"{tmp_path / 'binary'}:2: byte 0xff is not UTF-8"
    assert mistake_in(tmp_path) == f"{tmp_path}: cannot be read: Is a directory"
    (tmp_path / "large").write_bytes(b"a" * 2_000_000)
    assert mistake_in(tmp_path / "large").endswith("cannot be read: 2,000,000 bytes, more than 1,048,576")


@pytest.mark.parametrize(
    ("message", "option"),
    [
        (
            "invalid partition specified: nope; Batch job submission failed: Invalid partition name specified",
            "partition",
        ),
        ("Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)", "time"),
        ("Batch job submission failed: Invalid job array specification", "array"),
        ("unrecognized option '--nonsense=3'", "nonsense"),
        ("Invalid --mem specification", "mem"),
        ("Batch job submission failed: Invalid account or account/partition combination specified", "partition"),
        ("Batch job submission failed: Invalid qos specification", "qos"),
        ("Batch job submission failed: Requested node configuration is not available", "gpus-per-node"),
        ("Batch job submission failed: Something unheard of", ""),
    ],
)
def test_slurms_words_are_traced_to_an_option(message: str, option: str) -> None:
    assert blame(message, {"gpus-per-node", "nodes"}) == option
