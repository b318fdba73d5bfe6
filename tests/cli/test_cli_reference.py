"""docs/cli.md: written from the verbs, whole, and not stale."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from docs.tools.reference import _escaped, _verb, reference

from genrun.runner.cli import VERBS
from genrun.runner.cli.base import Verb

REFERENCE = Path(__file__).parents[2] / "docs" / "cli.md"


@click.command(cls=Verb, examples=("genrun try 'a | b'",))
@click.option("--size", metavar="A|B", default=3, show_default=True, help="So many <b>, see `[1|2]`.")
@click.option("--secret", hidden=True)
@click.argument("job")
def attempt(size: int, secret: str, job: str) -> None:
    """Try a job.

    Uses `a|b`, and a_b
    on two lines.
    """


def test_the_reference_is_what_the_verbs_say() -> None:
    assert REFERENCE.read_text(encoding="utf-8") == reference(), "stale: run `make docs`"


def test_every_verb_is_there_with_its_options_and_examples() -> None:
    text = reference()
    for section, verbs in VERBS.items():
        assert f"\n## {section}\n" in text
        for name, line in verbs.items():
            command = line.load()
            assert isinstance(command, Verb)
            _, _, rest = text.partition(f"\n### {name}\n")
            part = rest.partition("\n#")[0]
            options = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
            assert part.count("| `-") == len(options)
            assert all(f"\n{example}\n" in part for example in command.examples)


def test_a_verb_becomes_usage_words_options_and_examples() -> None:
    assert list(_verb("genrun try", attempt)) == [
        "```\ngenrun try [OPTIONS] JOB\n```\n",
        "Try a job.\n",
        "Uses `a|b`, and a\\_b on two lines.\n",
        "| option | what it does |\n|---|---|\n| `--size A\\|B` | So many \\<b\\>, see `[1\\|2]`. \\[default: 3\\] |\n",
        "```bash\ngenrun try 'a | b'\n```\n",
    ]


def test_words_stay_words() -> None:
    assert _escaped("<script> *a* `<b>`") == "\\<script\\> \\*a\\* `<b>`"


def test_the_command_writes_the_file(tmp_path: Path) -> None:
    command = [sys.executable, str(REFERENCE.with_name("tools") / "reference.py"), "-o", str(tmp_path / "cli.md")]
    subprocess.run(command, check=True, timeout=60)
    assert (tmp_path / "cli.md").read_text(encoding="utf-8") == REFERENCE.read_text(encoding="utf-8")


@pytest.mark.parametrize("closed", [">&-", "2>&- >/dev/null", "<&- >&- 2>&-"])
def test_closed_streams_are_nothing_to_stumble_over(closed: str) -> None:
    code = "from genrun.runner.cli import main; main(['solvers'])"
    subprocess.run(["bash", "-c", f'"$0" -c "$1" {closed}', sys.executable, code], check=True, timeout=60)


def test_an_output_that_nobody_reads_any_more_is_no_failed_item() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    code = "from genrun.runner.cli import main; main(['solvers'])"
    ran = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, check=False, timeout=60)
    os.close(writer)
    assert (ran.returncode, ran.stderr) == (141, b"")
