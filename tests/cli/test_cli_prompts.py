"""`genrun prompts`: what a list becomes, its tokens, and what would be cut."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from genrun.adapters.registry import get
from genrun.runner.cli import main

DEMO_IMAGE = Path(get("demo-image").checkpoint)


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str, code: int = 0) -> tuple[str, str]:
    result = CliRunner().invoke(main, ["prompts", *arguments])
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr


def test_a_file_is_listed_with_what_its_rows_have_of_their_own() -> None:
    Path("p.csv").write_text("prompt,name,steps,seed\na red square,first,4,7\n\x1b[31m,,,\n")
    table, talk = run("p.csv")
    assert "name first, steps 4" in table
    assert "\x1b" not in table
    assert "2 prompts" in talk
    (first, _) = json.loads(run("p.csv", "--json")[0])["prompts"]
    assert (first["prompt"], first["place"], first["seeds"], first["steps"]) == ("a red square", "p.csv:2:1", [7], 4)


def test_tokens_are_counted_for_each_encoder_and_what_is_cut_is_told() -> None:
    Path("p.txt").write_text("a red square\n" + "a blue circle " * 40 + "at the end\n")
    answer = json.loads(run("p.txt", "--model", "demo-image", "--json")[0])
    short, long = (prompt["tokens"] for prompt in answer["prompts"])
    assert sorted(short) == ["tokenizer", "tokenizer_2", "tokenizer_3"]
    for count, window, lost in short.values():
        assert 3 <= count <= window
        assert lost == ""
    for count, window, lost in long.values():
        assert count > window
        assert lost.endswith("at the end")
    assert "does not see" in run("p.txt", "--model", "demo-image")[1]


def test_a_tokenizer_in_place_of_the_checkpoints_counts() -> None:
    own = DEMO_IMAGE / "tokenizer"
    Path("mine").mkdir()
    spelling = json.loads((own / "tokenizer.json").read_text())
    spelling["model"]["merges"] = []
    Path("mine", "tokenizer.json").write_text(json.dumps(spelling))
    config = json.loads((own / "tokenizer_config.json").read_text())
    Path("mine", "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 5}))
    Path("job.yaml").write_text(f"model: {{checkpoint: {DEMO_IMAGE}}}\nprompts: [a red square]\n")
    before = json.loads(run("job.yaml", "--json")[0])["prompts"][0]["tokens"]
    components = ("--set", "model.components.tokenizer=mine")
    after = json.loads(run("job.yaml", "--json", *components)[0])["prompts"][0]["tokens"]
    # Letter by letter, between two marks.
    assert after == {**before, "tokenizer": [2 + len("aredsquare"), 5, "d square"]} != before
    Path("mine", "tokenizer.json").unlink()
    assert "the tokenizer in 'mine' has no vocabulary" in run("job.yaml", *components, code=2)[1]


def test_a_job_shows_what_templates_and_wildcards_become() -> None:
    Path("job.yaml").write_text(
        "model: demo-image\nprompts: {template: 'a {{ c }} {kite|ball}', variables: {c: [red, blue]}, wildcards: true}\n"
    )
    answer = json.loads(run("job.yaml", "--json", "-n", "3")[0])
    assert [each["prompt"] for each in answer["prompts"]] == ["a red kite", "a red ball", "a blue kite"]
    assert "a job names its own model" in run("job.yaml", "--model", "sd2", code=2)[1]


def test_problems_are_told_as_those_of_a_job() -> None:
    Path("p.csv").write_text("prompt,image\na,none.png\n")
    assert "p.csv:2:1: image: 'none.png': there is no such file." in run("p.csv", code=2)[1]
