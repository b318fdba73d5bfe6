"""VBench: the leaderboard's arithmetic, staging, and everything that can go wrong named by dimension and video."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrun.adapters.media import write_video
from genrun.adapters.scorers.contract import Sample, UnscoredError
from genrun.adapters.scorers.vbench import environment
from genrun.adapters.scorers.vbench.dimensions import ALL, DIMENSIONS, combined
from genrun.adapters.scorers.vbench.measurer import missing
from genrun.adapters.scorers.vbench.metric import VBenchMetric, VBenchOptions
from genrun.adapters.scorers.vbench.video_folder import read_suite, stage
from genrun.runner.score.scoring import score_run
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.scores import read_scores
from tests.sample_run import ROPA, SEQUENTIAL, make_run

FAKE = Path(__file__).parents[1] / "fakes" / "vbench_package"
FLICKER = "vbench.temporal_flickering"
SUITE = [
    {"prompt_en": "a person is swimming", "dimension": ["human_action", "temporal_flickering"]},
    {"prompt_en": "a red bird", "dimension": ["color"], "auxiliary_info": {"color": {"color": "red"}}},
]


def metric(**options: Any) -> VBenchMetric:
    chosen: dict[str, Any] = {"python": Path(sys.executable), "dimensions": ("temporal_flickering",), **options}
    return VBenchMetric(VBenchOptions(device="cpu", **chosen))


def scored(run: RunFolder, chosen: VBenchMetric) -> dict[tuple[str, str], tuple[float | None, str | None]]:
    """Rows by the item's prompt (or the set's id) and metric."""
    prompts = {item.id: item.prompt for item in run.items()}
    rows = score_run(run, [chosen])
    return {(prompts.get(row.item_id, row.item_id), row.metric): (row.value, row.reason) for row in rows}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A vbench that goes wrong on request, in place of the real one."""
    monkeypatch.setenv("PYTHONPATH", str(FAKE))
    suite = tmp_path / "suite.json"
    suite.write_text(json.dumps(SUITE))


def run_of(tmp_path: Path, *prompts: str) -> RunFolder:
    return make_run(tmp_path / "demo" / "run", prompts=prompts, solvers=(SEQUENTIAL,), latents=False)


def custom(**options: object) -> VBenchMetric:
    return metric(prompts="custom", **options)


def test_the_weights_of_the_leaderboard_are_six_and_a_half_and_nine() -> None:
    weights = {kind: sum(d.weight for d in DIMENSIONS.values() if d.kind == kind) for kind in ("quality", "semantic")}
    assert len(DIMENSIONS) == 16
    assert weights == {"quality": 6.5, "semantic": 9.0}


def test_quality_semantic_and_total_are_one_at_the_upper_and_zero_at_the_lower_end() -> None:
    top, bottom = ({d.name: end(d) for d in DIMENSIONS.values()} for end in (lambda d: d.high, lambda d: d.low))
    assert combined(top) == pytest.approx({"quality": 1.0, "semantic": 1.0, "total": 1.0})
    assert combined(bottom) == pytest.approx({"quality": 0.0, "semantic": 0.0, "total": 0.0}, abs=1e-12)


def test_the_total_is_four_parts_quality_and_one_semantic() -> None:
    values = {d.name: d.high if d.kind == "quality" else d.low for d in DIMENSIONS.values()}
    assert combined(values)["total"] == pytest.approx(0.8)
    values["dynamic_degree"] = 0.0
    assert combined(values)["quality"] == pytest.approx(6 / 6.5)


def test_a_mean_with_a_dimension_missing_is_not_given() -> None:
    quality = {d.name: 0.9 for d in DIMENSIONS.values() if d.kind == "quality"}
    assert set(combined(quality)) == {"quality"}
    del quality["motion_smoothness"]
    assert combined(quality) == {}


def test_a_whole_set_of_results_gives_the_total_under_the_metrics_name() -> None:
    found = metric().combine({f"vbench.{name}": dimension.high for name, dimension in DIMENSIONS.items()})
    assert found == pytest.approx({"vbench.quality": 1.0, "vbench.semantic": 1.0, "vbench": 1.0})


@pytest.mark.usefixtures("fake")
def test_every_video_and_the_set_get_a_value_and_the_second_time_nothing_is_asked(tmp_path: Path) -> None:
    run = run_of(tmp_path, "one", "two")
    first = scored(run, custom())
    assert first == {(key, FLICKER): (0.75, None) for key in ("one", "two", "set:sequential")}
    assert scored(run, custom(python=Path("/nowhere"))) == first


@pytest.mark.usefixtures("fake")
def test_other_dimensions_keep_what_was_measured_before_and_a_total_follows_from_all(tmp_path: Path) -> None:
    run = run_of(tmp_path, "one")
    scored(run, custom())
    inputs = json.loads(run.scores_path("vbench").read_text().splitlines()[-1])["inputs"]
    about = {"reason": None, "version": 1, "higher_is_better": True, "inputs": inputs, "settings": settings()}
    rows = [
        {"item_id": "set:sequential", "metric": f"vbench.{name}", "part": f"vbench.{name}", "value": d.high, **about}
        for name, d in DIMENSIONS.items()
        if name != "temporal_flickering"
    ]
    with run.scores_path("vbench").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    rows = scored(run, custom())
    scaled = DIMENSIONS["temporal_flickering"].scaled(0.75)
    assert rows["set:sequential", "vbench.quality"][0] == pytest.approx((5.5 + scaled) / 6.5)
    assert rows["set:sequential", "vbench"][0] == pytest.approx((4 * (5.5 + scaled) / 6.5 + 1) / 5)
    assert scored(run, custom(dimensions=("color",)))["set:sequential", "vbench"] == rows["set:sequential", "vbench"]


def settings() -> dict[str, object]:
    return dict(custom().settings)


@pytest.mark.usefixtures("fake")
@pytest.mark.e2e
@pytest.mark.parametrize(
    ("trouble", "item_reason", "set_reason"),
    [
        ("nan", "vbench gave nan for this video", "vbench gave no number for 1 of 2 videos: "),
        ("skip", "vbench gave nothing for this video", "vbench gave no number for 1 of 2 videos: "),
        ("raise", "AssertionError: no frames", "AssertionError: no frames"),
        ("crash", "died of SIGSEGV", "died of SIGSEGV"),
        ("exit", "ended with exit code 7, last words 'I have had enough'", "ended with exit code 7"),
        ("hang", "said nothing for 4 s", "said nothing for 4 s"),
    ],
)
def test_trouble_names_the_dimension_and_the_video(
    tmp_path: Path, trouble: str, item_reason: str, set_reason: str
) -> None:
    run = run_of(tmp_path, "fine", f"this will {trouble}")
    # Names are ids, so that the order in which vbench takes them is theirs.
    last = max(run.items(), key=lambda item: item.id)
    rows = scored(run, custom(timeout_s=4.0))
    bad = next(item for item in run.items() if trouble in item.prompt)
    value, reason = rows[bad.prompt, FLICKER]
    assert value is None and reason is not None
    assert "temporal_flickering" in reason and item_reason in reason
    value, reason = rows["set:sequential", FLICKER]
    assert value is None and reason is not None
    assert "temporal_flickering" in reason and bad.id in reason and set_reason in reason
    if trouble in {"nan", "skip"}:
        assert rows["fine", FLICKER] == (0.75, None)
    assert last.id


@pytest.mark.usefixtures("fake")
def test_an_empty_result_is_an_error(tmp_path: Path) -> None:
    rows = scored(run_of(tmp_path, "skip this"), custom())
    assert rows["set:sequential", FLICKER][0] is None
    assert "no number for 1 of 1 videos" in str(rows["set:sequential", FLICKER][1])


@pytest.mark.usefixtures("fake")
def test_a_dimension_that_fails_does_not_keep_the_next_from_being_tried(tmp_path: Path) -> None:
    run = run_of(tmp_path, "crash")
    rows = scored(run, custom(dimensions=("temporal_flickering", "motion_smoothness", "color")))
    assert "died of SIGSEGV" in str(rows["set:sequential", FLICKER][1])
    smoothness = str(rows["set:sequential", "vbench.motion_smoothness"][1])
    assert "motion_smoothness needs what is not there" in smoothness and "amt_model/amt-s.pth (from http" in smoothness
    assert "on its own prompts only" in str(rows["set:sequential", "vbench.color"][1])


@pytest.mark.usefixtures("fake")
def test_a_clip_that_cannot_be_read_is_not_given_to_vbench(tmp_path: Path) -> None:
    run = run_of(tmp_path, "fine", "broken")
    item = next(item for item in run.items() if item.prompt == "broken")
    path = run.media_path(item, ".mp4")
    path.write_bytes(path.read_bytes()[:-40])
    rows = scored(run, custom())
    assert rows["fine", FLICKER] == (0.75, None)
    assert rows["set:sequential", FLICKER] == (0.75, None)
    assert "cut off or damaged" in str(rows["broken", "vbench"][1])


@pytest.mark.usefixtures("fake")
def test_cells_of_the_matrix_are_sets_of_their_own(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo" / "run", solvers=(SEQUENTIAL, ROPA), latents=False)
    rows = {row.item_id for row in score_run(run, [custom()]) if row.item_id.startswith("set:")}
    assert rows == {"set:sequential", "set:ropa K=8"}
    assert {row.item_id for row in read_scores(run)} >= rows


def test_without_vbench_the_reason_says_how_to_get_it(tmp_path: Path) -> None:
    rows = scored(run_of(tmp_path, "one"), metric(python=None))
    assert rows == {("set:sequential", FLICKER): (None, rows["set:sequential", FLICKER][1])}
    assert "genrun doctor --install vbench" in str(rows["set:sequential", FLICKER][1])


def test_an_interpreter_without_vbench_is_said_to_have_none(tmp_path: Path) -> None:
    rows = scored(run_of(tmp_path, "one"), metric())
    assert "has no vbench that works: ModuleNotFoundError" in str(rows["set:sequential", FLICKER][1])
    rows = scored(run_of(tmp_path / "b", "one"), metric(python=tmp_path / "python"))
    assert "cannot be run: No such file" in str(rows["set:sequential", FLICKER][1])


def samples(folder: Path, *captions: str, seeds: int = 1) -> list[Sample]:
    made = []
    for index, caption in enumerate(captions):
        for seed in range(seeds):
            path = folder / f"{index}-{seed}.mp4"
            path.write_bytes(b"clip")
            made.append(Sample(caption, media=path, name=f"id{index}{seed}", seed=seed))
    return made


def test_the_standard_suite_is_staged_by_prompt_and_number_of_the_seed(tmp_path: Path) -> None:
    made = samples(tmp_path, "a person is swimming", "a red bird", seeds=6)
    staged = stage(made[::-1], "human_action", SUITE, tmp_path / "videos")
    assert staged.items == {f"a person is swimming-{seed}.mp4": f"id0{seed}" for seed in range(5)}
    assert staged.refused == {"id05": "vbench looks at 5 samples of a prompt"}
    link = tmp_path / "videos" / "a person is swimming-3.mp4"
    assert link.is_symlink() and link.resolve() == tmp_path / "0-3.mp4"
    assert staged.planned == 1


@pytest.mark.parametrize("prompt", ["../../escape", "/etc/passwd", "a\0b", ".hidden", "x" * 300])
def test_no_prompt_becomes_a_path(tmp_path: Path, prompt: str) -> None:
    suite = [{"prompt_en": prompt, "dimension": ["human_action"]}]
    for chosen in (suite, []):
        staged = stage(samples(tmp_path, prompt), "human_action", chosen, tmp_path / "room" / "videos")
        found = list((tmp_path / "room" / "videos").iterdir())
        assert {path.name for path in found} == set(staged.items)
        assert bool(staged.items) != bool(staged.refused)
        assert {path.name for path in (tmp_path / "room").iterdir()} == {"videos"}
        assert all(path.resolve() == tmp_path / "0-0.mp4" for path in found)


def test_custom_prompts_are_told_apart_from_names(tmp_path: Path) -> None:
    staged = stage(samples(tmp_path, "../a/b"), "temporal_style", [], tmp_path / "videos")
    assert staged.prompts == {"id00.mp4": "../a/b"}


def test_human_action_reads_the_action_from_the_name_in_custom_mode_too(tmp_path: Path) -> None:
    staged = stage(samples(tmp_path, "a person is riding_a/bike!"), "human_action", [], tmp_path / "videos")
    assert list(staged.items) == ["a person is riding a bike-0.mp4"]


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"prompt_en": 3, "dimension": []}]', "[{}]"])
def test_a_list_of_prompts_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json"):
        read_suite(tmp_path / "a.json")


def with_images(folder: Path, *captions: str) -> list[Sample]:
    """Clips, each made from a picture twice as wide as high, transparent and turned by its EXIF data."""
    from PIL import Image

    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGBA", (8, 16), (255, 0, 0, 9)).save(folder / "start.png", exif=turned)
    sha256 = hashlib.sha256((folder / "start.png").read_bytes()).hexdigest()
    path = (folder / "start.png").rename(folder / f"{sha256}.png")
    made = []
    for index, caption in enumerate(captions):
        write_video(folder / f"{index}.mp4", np.zeros((2, 16, 32, 3), np.uint8), 8)
        made.append(Sample(caption, media=folder / f"{index}.mp4", name=f"id{index}", inputs={"image": (path,)}))
    return made


@pytest.mark.usefixtures("fake")
def test_clips_are_compared_with_their_start_images_as_they_were_seen(tmp_path: Path) -> None:
    part, samples = "vbench.i2v_subject", with_images(tmp_path, "one", "../two", "three")
    gone = tmp_path / f"{'0' * 64}.png"
    lost = dataclasses.replace(samples[2], inputs={"image": (gone,)})
    none, several = (dataclasses.replace(samples[2], name=name, inputs={}) for name in ("none", "several"))
    several = dataclasses.replace(several, inputs={"image": samples[0].inputs["image"] * 2})
    chosen = custom(dimensions=("i2v_subject",), weights=weights_of("i2v_subject", tmp_path))
    (found,) = chosen.measure_set([*samples[:2], lost, none, several], (part,), tmp_path / "room")
    assert (found.name, found.value, found.reason) == (part, 2.0, None)
    assert [found.items[name] for name in ("id0", "id1")] == [2.0, 2.0]
    assert "its image: " in str(found.items["id2"])
    assert "prompt has none" in str(found.items["none"]) and "prompt has 2" in str(found.items["several"])


@pytest.mark.usefixtures("fake")
def test_the_image_to_video_suite_says_how_much_of_it_is_there(tmp_path: Path) -> None:
    suite = [{"prompt_en": "one", "dimension": ["i2v_subject"]}, {"prompt_en": "two", "dimension": ["i2v_background"]}]
    (tmp_path / "suite.json").write_text(json.dumps(suite))
    options = {"full_info": tmp_path / "suite.json", "weights": weights_of("i2v_subject", tmp_path)}
    chosen = metric(suite="i2v", dimensions=("i2v_subject",), **options)
    (found,) = chosen.measure_set(with_images(tmp_path, "one", "two"), ("vbench.i2v_subject",), tmp_path / "room")
    assert (found.value, set(found.items)) == (2.0, {"id0"})
    assert found.reason == "over 1 of the suite's 5 videos: not comparable with the leaderboard"


def weights_of(dimension: str, folder: Path) -> Path:
    for needed in ALL[dimension].needs:
        path = folder / "weights" / needed.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder / "weights"


def test_the_suite_of_clips_from_pictures_has_its_own_dimensions_and_none_that_the_package_lacks() -> None:
    assert len(metric(suite="i2v", dimensions=None).parts) == 9
    assert metric(suite="i2v", dimensions=None).inputs == ("image",) and metric().inputs == ()
    with pytest.raises(ValueError, match=r"dimensions: vbench 0\.1\.5's package lacks the tracker"):
        metric(dimensions=("camera_motion",))


@pytest.mark.usefixtures("fake")
def test_the_suites_own_prompts_follow_the_standard_protocol_and_say_how_much_of_it_is_there(tmp_path: Path) -> None:
    run = run_of(tmp_path, "a person is swimming")
    rows = scored(run, metric(full_info=tmp_path / "suite.json"))
    assert rows["a person is swimming", FLICKER] == (0.75, None)
    assert rows["set:sequential", FLICKER] == (
        0.75,
        "over 1 of the suite's 5 videos: not comparable with the leaderboard",
    )


def test_what_lacks_is_named_with_its_place_and_source(tmp_path: Path) -> None:
    hello = {"cache": str(tmp_path), "modules": [], "hub": ["bert-base-uncased"]}
    lacking = missing(DIMENSIONS["object_class"], hello)
    assert lacking[0].startswith(f"{tmp_path}/grit_model/grit_b_densecap_objectdet.pth (from https://")
    assert "detectron2" in lacking[1] and len(lacking) == 2
    assert missing(DIMENSIONS["temporal_flickering"], hello) == []


def test_options_that_cannot_be_meant_are_refused() -> None:
    for options in ({"dimensions": ("colour",)}, {"dimensions": ()}, {"timeout_s": 0.0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            metric(**options)


def test_nothing_readable_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"")
    with pytest.raises(UnscoredError, match=r"no clip can be read: .*the file is empty"):
        list(metric().measure_set([Sample("x", media=path, name="a")], (FLICKER,), tmp_path))


def test_the_plan_of_the_environment_pins_what_runs_here(tmp_path: Path) -> None:
    import torch

    planned = environment.plan(tmp_path / "home", "/usr/bin/python3.11")
    assert planned.commands[0] == ("/usr/bin/python3.11", "-m", "venv", str(tmp_path / "home"))
    assert {"vbench==0.1.5", f"torch=={torch.__version__.partition('+')[0]}"} <= set(planned.commands[1])
    assert environment.installed_python(tmp_path / "home") is None


def test_a_failed_command_leaves_no_environment_that_counts_as_made(tmp_path: Path) -> None:
    planned = environment.InstallPlan(tmp_path, ((sys.executable, "-c", "raise SystemExit(3)"),))
    with pytest.raises(environment.InstallError, match=r"exit code 3.*goes on where this stopped"):
        environment.make(planned)
    assert environment.installed_python(tmp_path) is None
    environment.make(environment.InstallPlan(tmp_path, ((sys.executable, "-c", "pass"),)))
    assert environment.installed_python(tmp_path) == tmp_path / "bin" / "python"
