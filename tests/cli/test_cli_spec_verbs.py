"""The group of verbs, and those that look around: schema, models, solvers, doctor."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from genrun.runner.cli import VERBS, doctor, main
from genrun.runner.cli.base import Verb, VerbGroup, VerbLine
from genrun.runner.cli.output import one_line, printable
from genrun.runner.errors import IncompleteError, StoreError

OURS = ("validate", "show", "plan", "schema", "models", "solvers", "doctor")
SCHEMA = Path(__file__).parents[2] / "jobs" / "schema.json"
LINES = {verb: line for verbs in VERBS.values() for verb, line in verbs.items()}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def test_help_lists_every_verb_in_its_section() -> None:
    text = run("--help").stdout
    for section, verbs in VERBS.items():
        assert f"\n{section}:\n" in text
        for verb, line in verbs.items():
            assert f"  {verb} " in text
            assert line.help[:40] in text


@pytest.mark.parametrize("verb", OURS)
def test_a_verbs_own_help_agrees_with_the_table_and_has_examples(verb: str) -> None:
    command = LINES[verb].load()
    assert isinstance(command, Verb)
    assert (command.help or "").split("\n", 1)[0] == LINES[verb].help
    assert command.examples
    assert all(example.startswith(f"genrun {verb}") for example in command.examples)
    text = run(verb, "--help").stdout
    assert all(f"  {example}\n" in text for example in command.examples)


def test_an_unknown_verb_names_the_one_that_was_meant() -> None:
    result = run("validat")
    assert result.exit_code == 2
    assert "Error: No verb 'validat'. Did you mean 'validate'? There are: validate, show, plan," in result.stderr


def failing(error: Exception) -> VerbGroup:
    @click.command(cls=Verb)
    def fail() -> None:
        raise error

    class Line(VerbLine):
        def load(self) -> click.Command:
            return fail

    group = VerbGroup("genrun", sections={"S": {"fail": Line("x:y", "Fail.")}})
    group.params.append(click.Option(["--traceback"], is_flag=True))
    return group


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (StoreError("the disk is full", remedy="free space"), 1, "the disk is full\n  free space\n"),
        (IncompleteError("3 items are missing"), 3, "3 items are missing\n"),
    ],
)
def test_an_error_is_a_message_and_an_exit_code(error: Exception, code: int, text: str) -> None:
    result = CliRunner().invoke(failing(error), ["fail"])
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", text)


def test_an_unexpected_error_is_short_and_its_traceback_is_in_a_file() -> None:
    result = CliRunner().invoke(failing(KeyError("x")), ["fail"])
    assert result.exit_code == 1
    first, second = result.stderr.splitlines()
    assert first == "KeyError: 'x'"
    log = Path(second.split("Traceback: ")[1].split(", or run: ")[0])
    assert "raise error" in log.read_text()
    log.unlink()


def test_traceback_shows_an_unexpected_error() -> None:
    with pytest.raises(KeyError):
        CliRunner().invoke(failing(KeyError("x")), ["--traceback", "fail"], catch_exceptions=False)


def test_the_packaged_schema_is_what_genrun_schema_prints() -> None:
    printed = run("schema").stdout
    assert SCHEMA.read_text(encoding="utf-8") == printed, "stale: run `genrun schema -o jobs/schema.json`"


def test_the_schema_knows_shorthands_and_the_options_of_each_solver() -> None:
    schema = json.loads(run("schema").stdout)
    solvers = {part["title"]: part for part in schema["$defs"]["SolverSpec"]["oneOf"]}
    assert "workers" in solvers["ropa"]["properties"]
    assert "description" in solvers["ropa"]["properties"]["workers"]
    assert "workers" not in solvers["sequential"]["properties"]
    assert "ropa" in schema["properties"]["solver"]["anyOf"][0]["enum"]
    assert "extends" in schema["properties"]


def test_the_schema_is_written_to_a_file(tmp_path: Path) -> None:
    result = run("schema", "-o", str(tmp_path / "schema.json"))
    assert (result.exit_code, result.stdout) == (0, "")
    assert json.loads((tmp_path / "schema.json").read_text())["title"] == "genrun job"
    assert run("schema", "-o", str(tmp_path / "no" / "schema.json")).exit_code == 1


def test_the_page_of_models_in_docs_is_the_one_that_is_printed() -> None:
    page = SCHEMA.parents[1] / "docs" / "models.md"
    printed = run("models", "--markdown").stdout
    assert page.read_text(encoding="utf-8") == printed, "stale: run `genrun models --markdown > docs/models.md`"
    for row in json.loads(run("models", "--json").stdout):
        assert row["name"] == "auto" or f"\n## {row['name']}\n" in printed


def test_models_are_listed_with_their_defaults() -> None:
    rows = {row["name"]: row for row in json.loads(run("models", "--json").stdout)}
    assert rows["auto"]["checkpoint"] is None
    text = run("models").stdout
    assert all(name in text and row["title"] in text for name, row in rows.items())


def test_solvers_are_listed_with_their_options() -> None:
    (solver,) = json.loads(run("solvers", "ropa", "--json").stdout)
    workers = next(option for option in solver["options"] if option["name"] == "workers")
    assert (workers["type"], workers["default"]) == ("int or auto", "auto")
    assert all(option["help"] for option in solver["options"])
    text = run("solvers").stdout
    assert solver["title"] in text
    assert workers["help"] in text


def test_an_unknown_solver_is_refused() -> None:
    result = run("solvers", "rope")
    assert result.exit_code == 2
    assert result.stderr.startswith("there is no solver 'rope'. Did you mean 'ropa'? There are: sequential,")


WANTED = ["av>=17", "pillow>=11", "click>=8.1", "peft>=0.19; extra == 'loras'", "gguf>=0.17; extra == 'gguf'"]
GOOD = {name: {"ok": True, "found": "1.0"} for name in doctor.FIXES}


def test_doctor_passes_on_a_machine_that_has_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "probe", lambda: GOOD)
    result = run("doctor")
    assert result.exit_code == 0
    assert "ok    torch: 1.0\n" in result.stdout


def test_doctor_names_the_fix_of_each_failing_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "probe", lambda: {name: {"ok": False, "found": "ImportError: x"} for name in GOOD})
    result = run("doctor")
    assert result.exit_code == 1
    for name, fix in doctor.FIXES.items():
        assert f"FAIL  {name}: ImportError: x\n      fix: {fix}\n" in result.stdout
    findings = json.loads(run("doctor", "--json").stdout)
    assert all(finding["fix"] for finding in findings)


def test_doctor_names_packages_that_are_too_old_and_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"av": "16.1.0", "peft": "0.18.1", "pillow": None, "gguf": None, "click": "99.1"}

    def version(name: str) -> str:
        if (found := versions.get(name, "99")) is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(doctor, "probe", lambda: GOOD)
    monkeypatch.setattr(doctor.metadata, "version", version)
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: WANTED)
    result = run("doctor")
    assert result.exit_code == 1
    assert "FAIL  av: 16.1.0, and genrun needs >=17\n      fix: pip install 'av>=17'\n" in result.stdout
    assert "FAIL  pillow: not installed, and genrun needs >=11\n      fix: pip install 'pillow>=11'\n" in result.stdout
    assert "note  peft: 0.18.1, and genrun needs >=0.19\n      fix: pip install 'peft>=0.19'\n" in result.stdout
    assert "gguf:" not in result.stdout and "click:" not in result.stdout
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: ["click>=8.1", "gguf>=0.17; extra == 'gguf'"])
    assert "ok    packages: 1, none too old\n" in run("doctor").stdout


def test_doctor_looks_on_where_genrun_runs_from_a_checkout_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "probe", lambda: GOOD)
    monkeypatch.setattr(metadata.Distribution, "discover", lambda **_: iter(()))
    result = run("doctor")
    assert result.exit_code == 0
    assert "note  packages: genrun itself is not installed" in result.stdout


def test_doctor_finds_none_of_these_packages_too_old() -> None:
    assert [each for each in doctor.packages() if not each.ok] == []


@pytest.mark.parametrize(
    "program", ["import os; os._exit(3)", "print('no json')", "import os; os.kill(os.getpid(), 9)"]
)
def test_doctor_survives_a_library_that_kills_its_process(program: str) -> None:
    found = doctor.probe(program)
    assert set(found) == set(doctor.FIXES)
    assert not any(each["ok"] for each in found.values())


def test_what_is_printed_holds_no_control_characters() -> None:
    assert (
        printable("a\x1b[0m\x9b\u202e\ud800\tb\n\N{PILE OF POO}") == "a\\x1b[0m\\x9b\\u202e\\ud800\tb\n\N{PILE OF POO}"
    )
    assert one_line("a\nb\t" + "c" * 100, 10) == "a\\nb\\tccc…"
