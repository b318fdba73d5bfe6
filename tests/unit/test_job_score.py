"""Metrics with options in a job, prompts of known sets, and shards: right ones are read, wrong ones named by place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from genrun.adapters.scorers import registry as metrics
from genrun.adapters.scorers.clip_score import ClipScore
from genrun.adapters.scorers.vbench.environment import metric_defaults
from genrun.adapters.scorers.vbench.metric import VBenchMetric
from genrun.runner.errors import UsageError
from genrun.runner.job import resolve as job
from genrun.runner.job.errors import JobFileError
from genrun.runner.job.options import Registries
from genrun.runner.job.prompts import coco_texts, vbench_texts
from genrun.runner.score.metrics import wanted_metrics
from genrun.runner.score.scoring import WHOLE, Shard, shard_of
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.scores import metrics_of
from tests.fakes.registries import fake_registries
from tests.sample_run import make_run

BASE = "model: tiny-video\nprompts: [a]\n"
SUITE = [
    {"prompt_en": "a red bird", "dimension": ["color", "object_class"]},
    {"prompt_en": "a person is swimming", "dimension": ["human_action"]},
    {"prompt_en": "a blue car", "dimension": ["color"]},
    {"prompt_en": "a red bird", "dimension": ["color"]},
]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GENRUN_VBENCH_PYTHON", raising=False)


def registries() -> Registries:
    fake = fake_registries()
    return Registries(fake.adapters, fake.solvers, fake.launchers, metrics)


def load(text: str) -> job.LoadedJob:
    Path("job.yaml").write_text(text)
    return job.load("job.yaml", environ={}, registries=registries())


def problems(text: str) -> list[str]:
    with pytest.raises(JobFileError) as caught:
        load(text)
    return [str(problem).removeprefix("job.yaml:") for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("score", "message"),
    [
        ("[{kind: clip_scor}]", "3:16: score[0].kind: there is no metric 'clip_scor'. Did you mean 'clip_score'?"),
        ("[psnr, {kind: clip_score, frame: 3}]", "3:34: score[1].frame: unknown option. Did you mean 'frames'?"),
        ("[{kind: psnr, frames: 3}]", "3:22: score[0].frames: unknown option. There are none."),
        ("[{kind: clip_score, frames: x}]", "3:36: score[0].frames: wanted a whole number, got 'x'."),
        ("[{kind: clip_score, frames: 0}]", "3:36: score[0].frames: wanted at least 1, got 0."),
        ("[{kind: clip_score, dtype: int8}]", "3:35: score[0].dtype: wanted float32, bfloat16 or float16, got 'int8'."),
        ("[{kind: vbench, dimensions: [colour]}]", "3:36: score[0].dimensions: there is no 'colour'; there are: "),
        ("[7]", "3:9: score[0]: wanted the name of a metric, or a mapping of its kind and options"),
        ("[{frames: 3}]", "3:9: score[0]: wanted the name of a metric, or a mapping of its kind and options"),
        ("[{kind: 3}]", "3:9: score[0]: wanted the name of a metric, or a mapping of its kind and options"),
        ("psnr", "3:8: score: wanted a list, got 'psnr'."),
    ],
)
def test_wrong_metrics_and_options_are_named_by_place(score: str, message: str) -> None:
    (found,) = problems(f"{BASE}score: {score}\n")
    assert found.startswith(message)


def test_right_options_are_stored_and_files_by_their_absolute_names() -> None:
    Path("clip").mkdir()
    entries = "[psnr, {kind: clip_score, checkpoint: clip, frames: 3}, {kind: fid, reference: gone}]"
    document = load(f"{BASE}score: {entries}\n").document
    assert document["score"] == [
        "psnr",
        {"kind": "clip_score", "checkpoint": str(Path("clip").absolute()), "frames": 3},
        {"kind": "fid", "reference": "gone"},
    ]
    assert list(metrics_of(document)) == ["psnr", "clip_score", "fid"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    made = make_run(tmp_path / "runs" / "demo" / "run", files=False, latents=False)
    score = ["psnr", {"kind": "clip_score", "frames": 3, "batch": 2}, {"kind": "vbench", "dimensions": ["color"]}]
    monkeypatch.setattr(RunFolder, "job_document", lambda self: {"score": score})
    return made


def test_options_come_from_the_machine_then_the_job_then_the_command_line(run: RunFolder) -> None:
    defaults = {"vbench": {"python": "/p", "dimensions": ["scene"]}}
    _, clip, vbench = wanted_metrics(run, options={"clip_score": {"frames": 5}}, defaults=defaults)
    assert isinstance(clip, ClipScore)
    assert (clip.options.frames, clip.options.batch) == (5, 2)
    assert isinstance(vbench, VBenchMetric)
    assert vbench.options.python == Path("/p")
    assert vbench.options.dimensions == ("color",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_score": {"frame": 1}}, "options of clip_score: unknown option. Did you mean 'frames'?"),
        ({"clip_score": {"frames": "x"}}, "options of clip_score: frames: Input should be a valid integer"),
        ({"clip_score": {"frames": 0}}, "options of clip_score: frames: wanted at least 1"),
        ({"psnr": {"frames": 0}}, "options of psnr: it has none"),
        ({"ssim": {"frames": 0}}, "ssim is given options, but is not measured."),
    ],
)
def test_options_on_the_command_line_that_cannot_be_meant_are_refused(
    run: RunFolder, options: dict[str, dict[str, object]], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        wanted_metrics(run, options=options)
    assert caught.value.message.startswith(message)


def test_the_environment_says_where_vbench_is(tmp_path: Path) -> None:
    assert metric_defaults(tmp_path, {}) == {}
    assert metric_defaults(tmp_path, {"GENRUN_VBENCH_PYTHON": "/v/bin/python"}) == {
        "vbench": {"python": "/v/bin/python"}
    }
    home = tmp_path / ".vbench"
    home.mkdir()
    (home / "genrun-ready").touch()
    assert metric_defaults(tmp_path, {}) == {"vbench": {"python": str(home / "bin" / "python")}}


def test_the_suite_is_every_distinct_prompt_of_its_dimensions_in_order() -> None:
    Path("info.json").write_text(json.dumps(SUITE))
    assert vbench_texts(Path("info.json"), ["color"]) == ["a red bird", "a blue car"]
    loaded = load("model: tiny-video\nprompts: {suite: vbench, full_info: info.json}\n")
    assert [prompt.text for prompt in loaded.cells[0].prompts] == ["a red bird", "a person is swimming", "a blue car"]
    loaded = load("model: tiny-video\nprompts: {suite: vbench, full_info: info.json, dimensions: [color], limit: 1}\n")
    assert [prompt.text for prompt in loaded.cells[0].prompts] == ["a red bird"]
    assert loaded.document["prompts"]["suite"] == "vbench"


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ("{suite: vbnch}", "2:18: prompts.suite: wanted vbench, got 'vbnch'."),
        (
            "{suite: vbench}",
            "2:18: prompts.suite: vbench, whose list of prompts this is, is not installed: genrun doctor",
        ),
        (
            "{suite: vbench, full_info: info.json, dimensions: [colour]}",
            "2:61: prompts.dimensions[0]: there is no dimension of VBench 'colour'. Did you mean 'color'?",
        ),
        ("{suite: vbench, full_info: none.json}", "2:37: prompts.full_info: none.json cannot be read"),
        (
            "{suite: vbench, full_info: info.json, limits: 3}",
            "2:48: prompts.limits: unknown option. Did you mean 'limit'",
        ),
        (
            "{suite: vbench, full_info: info.json, dimensions: [scene]}",
            "2:37: prompts.full_info: 'info.json' has no such prompts.",
        ),
        ("{coco: none.json}", "2:17: prompts.coco: none.json cannot be read"),
        ("{coco: info.json}", "2:17: prompts.coco: info.json is no captions file of COCO: wanted a list `annotations`"),
        ("{coco: coco.json, sample: 9}", "2:17: prompts.coco: coco.json has 3 different captions, fewer than 9."),
        ("{coco: coco.json, seeds: 9}", "2:28: prompts.seeds: unknown option. Did you mean 'seed'?"),
    ],
)
def test_wrong_suites_are_named_by_place(prompts: str, message: str) -> None:
    Path("info.json").write_text(json.dumps(SUITE))
    write_coco(Path("coco.json"))
    found = problems(f"model: tiny-video\nprompts: {prompts}\n")
    assert found[0].startswith(message)


I2V = "{suite: vbench, full_info: i2v.json, images: crop"


@pytest.mark.parametrize(
    ("prompts", "entry", "message"),
    [
        (
            "{suite: vbench, images: crop}",
            {},
            "2:34: prompts.images: vbench's package has no list of its image-to-video",
        ),
        (I2V + "}", {}, "i2v.json: image: '"),
        (I2V + ", dimensions: [colour]}", {}, "prompts.dimensions[0]: there is no dimension of VBench 'colour'."),
        (I2V + ", dimensions: [scene]}", {}, "2:37: prompts.full_info: 'i2v.json' has no such prompts."),
        *(
            (I2V + "}", {"image_name": name}, "wanted image_name, the name of a file")
            for name in ("../a", "/etc/x", "", "..", 3)
        ),
    ],
)
def test_a_start_image_is_a_file_of_the_folder_that_the_job_names(
    prompts: str, entry: dict[str, object], message: str
) -> None:
    listed = [{"prompt_en": "a", "dimension": ["i2v_subject"], "image_name": "a.png", **entry}]
    Path("i2v.json").write_text(json.dumps(listed))
    assert message in problems(f"model: tiny-video\nprompts: {prompts}\n")[0]


def write_coco(path: Path) -> None:
    rows = [(5, 90, "A cat  on a\nmat. "), (5, 12, "A cat."), (3, 40, "A dog."), (9, 1, "A bird."), (8, 2, "A dog.")]
    annotations = [{"image_id": image, "id": number, "caption": caption} for image, number, caption in rows]
    path.write_text(json.dumps({"annotations": annotations}))


def test_coco_gives_the_first_caption_of_each_picture_and_the_same_sample_for_the_same_seed(tmp_path: Path) -> None:
    path = tmp_path / "coco.json"
    write_coco(path)
    assert coco_texts(path, None, 0) == ["A dog.", "A cat.", "A bird."]
    samples = {tuple(coco_texts(path, 2, seed)) for seed in range(20)}
    assert len(samples) == 3 and all(len(set(sample)) == 2 for sample in samples)
    assert coco_texts(path, 2, 7) == coco_texts(path, 2, 7)
    loaded = load("model: tiny-video\nprompts: {coco: coco.json, sample: 2, seed: 7}\n")
    assert [prompt.text for prompt in loaded.cells[0].prompts] == coco_texts(path, 2, 7)


@pytest.mark.parametrize(
    ("text", "environ", "expected"),
    [
        ("", {}, WHOLE),
        ("2/8", {"RANK": "5", "WORLD_SIZE": "6"}, Shard(1, 8)),
        ("", {"RANK": "5", "WORLD_SIZE": "6"}, Shard(5, 6)),
        ("", {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, Shard(1, 2)),
        ("", {"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, WHOLE),
        ("", {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2"}, WHOLE),
        ("", {"RANK": "x"}, WHOLE),
    ],
)
def test_a_shard_is_told_or_follows_from_rank_and_task(text: str, environ: dict[str, str], expected: Shard) -> None:
    assert shard_of(text, environ) == expected


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "a/b", "1/2/3"])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="wanted I/N"):
        shard_of(text, {})


def test_every_pair_is_in_exactly_one_shard() -> None:
    assert all(sum(Shard(index, 5).takes(number) for index in range(5)) == 1 for number in range(23))
