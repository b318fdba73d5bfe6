"""`genrun score` with options, shards and damaged files; `genrun doctor` on vbench."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from genrun.adapters.scorers import registry
from genrun.runner.cli import main
from genrun.runner.store.folder import RunFolder
from tests.sample_run import make_run


def genrun(*args: str, exit_code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["--traceback", *args], prog_name="genrun")
    assert result.exit_code == exit_code, result.output
    return result


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GENRUN_VBENCH_PYTHON", raising=False)
    return make_run(tmp_path / "runs" / "demo" / "run", latents=False)


def test_options_are_typed(run: RunFolder) -> None:
    args = ("--metrics", "clip_score,vbench", "--set", "clip_score.frames=2", "--set", "vbench.dimensions=color,scene")
    rows = json.loads(genrun("score", str(run.path), *args, "--json").stdout)
    assert {row["metric"] for row in rows} == {
        "clip_score",
        "clip_score.cosine",
        "vbench.color",
        "vbench.scene",
    }
    stored = json.loads(run.scores_path("clip_score").read_text().splitlines()[0])
    assert stored["settings"]["frames"] == 2


@pytest.mark.parametrize("text", ["frames=2", "clip_score.frames", "=2", ".frames=2"])
def test_an_option_that_is_none_is_refused(run: RunFolder, text: str) -> None:
    result = genrun("score", str(run.path), "--set", text, exit_code=2)
    assert "wanted METRIC.OPTION=VALUE" in result.stderr


def test_shards_together_are_the_whole(run: RunFolder) -> None:
    first = json.loads(genrun("score", str(run.path), "--metrics", "psnr", "--shard", "1/2", "--json").stdout)
    both = json.loads(genrun("score", str(run.path), "--metrics", "psnr", "--shard", "2/2", "--json").stdout)
    assert (len(first), len(both)) == (2, 4)


def test_a_share_that_the_environment_names_is_told(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = genrun("score", str(run.path), "--metrics", "psnr")
    assert "Shard 1/2, as RANK and WORLD_SIZE say" in result.stderr
    assert "To measure all: --shard 1/1." in result.stderr
    assert "Shard" not in genrun("score", str(run.path), "--metrics", "psnr", "--shard", "1/1").stderr


def test_a_cut_score_file_and_a_damaged_clip_are_named_on_stderr(run: RunFolder) -> None:
    genrun("score", str(run.path), "--metrics", "psnr")
    path = run.scores_path("psnr")
    path.write_bytes(path.read_bytes()[:-30])
    media = run.media_path(run.items()[1], ".mp4")
    media.write_bytes(media.read_bytes()[:100])
    result = genrun("score", str(run.path), "--metrics", "psnr,temporal_flicker")
    assert "psnr.jsonl:4: this line is cut off or broken; what it said is measured again." in result.stderr
    assert f"{media.name} is not the file that was made" in result.stderr


def test_the_table_shows_parts_when_there_is_no_total(run: RunFolder) -> None:
    from genrun.runner.store.records import Score

    rows = [
        Score("set:sequential", "vbench.color", 0.5, True),
        Score("set:sequential", "vbench.scene", None, True, "x"),
    ]
    lines = [json.dumps({**vars(row), "inputs": [], "part": row.metric}) + "\n" for row in rows]
    run.scores_path("vbench").parent.mkdir()
    run.scores_path("vbench").write_text("".join(lines))
    result = genrun("score", str(run.path), "--metrics", "vbench", "--set", "vbench.dimensions=motion_smoothness")
    heading, *table = result.stdout.splitlines()
    assert "VBench: color" in heading
    assert "0.5" in table[0]


def test_the_list_names_every_metric_its_needs_and_options() -> None:
    found = {each["name"]: each for each in json.loads(genrun("score", "--list", "--json").stdout)}
    assert set(found) == set(registry.names())
    assert found["vbench"]["of"] == "sets" and found["psnr"]["of"] == "items"
    assert "frames" in {option["name"] for option in found["clip_score"]["options"]}
    assert all(option["help"] for metric in found.values() for option in metric["options"])
    assert "clip_score: CLIPScore" in genrun("score", "--list").stdout


def test_the_plan_of_vbenchs_environment_is_printed_and_nothing_made(run: RunFolder) -> None:
    result = genrun("doctor", "--install", "vbench", "-n", "--python", "/usr/bin/python3.11")
    assert "/usr/bin/python3.11 -m venv" in result.stdout and "vbench==0.1.5" in result.stdout
    assert "GB to download" in result.stderr and "minutes" in result.stderr
    assert not Path("runs/.vbench").exists()


def test_the_weights_of_all_dimensions_are_listed_with_what_is_there(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "weights"))
    path = tmp_path / "weights" / "amt_model" / "amt-s.pth"
    path.parent.mkdir(parents=True)
    path.touch()
    result = genrun("doctor", "--weights", "vbench", "--json")
    found = {each["dimension"]: each for each in json.loads(result.stdout)}
    assert len(found) == 18
    assert [name for name, each in found.items() if each["ready"]] == ["temporal_flickering", "motion_smoothness"]
    assert found["motion_smoothness"]["there"] == [str(path)]
    assert f"{tmp_path}/weights/umt_model/l16" in found["human_action"]["lacking"][0]
    text = genrun("doctor", "--weights", "vbench").stdout
    assert "ok    temporal_flickering: needs no weights" in text
