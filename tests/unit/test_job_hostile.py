"""Jobs that cannot be meant, or are meant badly: each is refused with its place, whatever it says."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from genrun.runner.job import load, restore
from genrun.runner.job.errors import JobFileError
from genrun.runner.job.files import job_file
from genrun.runner.job.plan import plan
from genrun.runner.submit.follow import request_of
from tests.fakes.jobs import BASE, load_text, problems_of
from tests.fakes.registries import fake_registries

DEMO = "model: demo-image\nprompts: [a]\n"


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refusal(text: str) -> list[str]:
    """The problems of a job of what is really installed."""
    Path("job.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(JobFileError) as caught:
        plan(load("job.yaml", environ={}))
    return str(caught.value).split("\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sedes:", "3:1: sedes: unknown option. Did you mean 'seeds'?"),
        ("sampling: {stpes: }", "3:12: sampling.stpes: unknown option. Did you mean 'steps'?"),
        (
            "sampling: {num_inference_steps: 9}",
            "3:12: sampling.num_inference_steps: unknown option. Did you mean 'steps'?",
        ),
        (
            "sampling: {strength: 0.5}",
            "3:12: sampling.strength: goes with a prompt: prompts: [{prompt: ..., strength: ...}].",
        ),
        (
            "solver: {kind: window, workers: 1000000000}",
            "3:33: solver.workers: wanted at most 1000000, got 1000000000.",
        ),
        (
            f"solver: {{kind: window, workers: {10**30}}}",
            "3:33: solver.workers: wanted a number of reasonable size, got 1000",
        ),
        ("solver: {kind: window, tolerance: 1e300}", "3:35: solver.tolerance: wanted at most 1000000, got 1e+300."),
        ("matrix: {solver.workers: [1, 99999999]}", "3:30: solver.workers: "),
        ("sampling: {width: 1000000}", "3:19: sampling.width: wanted at most 16384, got 1000000."),
        ("sampling: {guidance_scale: 1e30}", "3:28: sampling.guidance_scale: wanted at most 10000.0, got 1e+30."),
        ("parallel: {data: 1000000}", "3:18: parallel.data: wanted at most 100000, or auto, got 1000000."),
        ("output: {fps: 100000}", "3:15: output.fps: wanted at most 1000, got 100000."),
        ("sampling: {options: {eta: .nan}}", "3:27: sampling.options.eta: wanted a finite number, got nan."),
        ("sampling: {options: {a: [[.inf]]}}", "3:27: sampling.options.a[0][0]: wanted a finite number, got inf."),
        (f"sampling: {{options: {{eta: {10**30}}}}}", "3:27: sampling.options.eta: wanted a number of reasonable size"),
        ("matrix: {sampling.options.eta: [0, .nan]}", "3:36: matrix.sampling.options.eta[1]: wanted a finite number"),
        ('prompts: ["a\\0b"]', "3:11: prompts[0]: has a NUL, which is no character of a text."),
        ('output: {dir: "a\\0b"}', "3:15: output.dir: has a NUL"),
        ('output: {dir: "a\\eb"}', "3:15: output.dir: has the control character U+001B. Remove it."),
        ('nightly: {notify: {command: ["a\\0b"]}}', "3:30: nightly.notify.command[0]: has a NUL"),
        ('nightly: {baseline: "a\\0"}', "3:21: nightly.baseline: has a NUL"),
        ('launch: {kind: slurm, partition: "a\\rb"}', "3:34: launch.partition: has the control character U+000D."),
        ('launch: {kind: slurm, time: "04:00:00\\n"}', "3:29: launch.time: wanted a time in quotes"),
        (
            'model: {adapter: tiny-video, revision: "../../x"}',
            "3:40: model.revision: wanted a branch, a tag or a commit",
        ),
        ('sampling: {options: {"a\\0b": 1}}', "3:22: sampling.options: has a key with a control character."),
        (
            "score: [psnr, ssim, {kind: psnr}]",
            "3:28: score[2]: psnr is given twice, first at job.yaml:3:9. Remove one of them.",
        ),
        (
            "score: [psnr]\ngates: {psnr: {min: 5, max: 1}}",
            "4:16: gates.psnr.min: more than max (1), so this could not pass.",
        ),
        ("gates: {psnr: {min: 101}}", "3:16: gates.psnr.min: psnr is never more than 100, so this could not pass."),
        ("gates: {psnr: {max: -1}}", "3:16: gates.psnr.max: psnr is never less than 0, so this could not pass."),
        ("gates: {speedup: {max: -1}}", "3:19: gates.speedup.max: speedup is never less than 0"),
        (
            "gates: {psnr: {min: 20, max_missing: 150%}}",
            "3:25: gates.psnr.max_missing: more than all items. Write at most 100%.",
        ),
        (
            "launch: {kind: slurm, then: [score, score]}",
            "3:37: launch.then[1]: score is given twice, first at job.yaml:3:30. Remove one of them.",
        ),
        (
            "launch: {kind: slurm, then: [{step: score, options: {dependency: x}}]}",
            "launch.then[0].options.dependency: genrun sets it: each of these jobs waits for the one before.",
        ),
        (
            "launch: {then: [score]}",
            "3:10: launch.then: does nothing with kind: inline. Write kind: slurm, or leave it out.",
        ),
        ("launch: {kind: torchrun, partition: gpu}", "launch.partition: does nothing with kind: torchrun."),
        ("launch: {kind: slurm, options: {gpus-per-node: 8}}", "launch.options.gpus-per-node: write launch.gpus."),
        ("output: {dir: ~nobody-of-that-name/x}", "3:15: output.dir: there is no user 'nobody-of-that-name' here"),
        (f"output: {{dir: {'d' * 5000}}}", "3:15: output.dir: File name too long."),
        ("output: {dir: job.yaml/x}", "job.yaml' is a file; wanted a folder."),
        ('extends: "a\\0b"', "3:10: extends: 'a\\x00b' cannot be looked at: no file can have that name."),
        ('extends: "\\udfff"', "3:10: extends: '\\udfff' cannot be looked at: no file can have that name."),
        (f"extends: {'x' * 300}", "cannot be looked at: File name too long."),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(text: str, message: str) -> None:
    # What a case says itself stands in place of a line of the base, on the third line as always.
    section = text.partition(":")[0]
    kept = [line if not line.startswith(f"{section}:") else "# of the base" for line in BASE.splitlines()]
    lines = problems_of("\n".join([*kept, text, ""]))
    assert any(message in line for line in lines), lines


def test_files_that_extend_each_other_without_end_are_refused_and_those_of_a_few_generations_are_not() -> None:
    for number in range(40):
        Path(f"c{number}.yaml").write_text(f"extends: c{number + 1}.yaml\n")
    Path("c40.yaml").write_text(BASE)
    assert load("c20.yaml", (), {}, fake_registries()).job.name == "c20"
    with pytest.raises(JobFileError, match=r"c32.yaml:1:10: extends: more than 32 files extend each other"):
        load("c0.yaml", (), {}, fake_registries())


def test_whatever_a_job_names_is_read_within_limits_or_told_as_what_it_is() -> None:
    os.mkfifo("pipe.txt")
    with Path("large.csv").open("wb") as file:
        file.truncate(5 * 2**30)
    for name, why in (
        ("pipe.txt", "'pipe.txt' cannot be read: it is a pipe, and a file is wanted."),
        ("large.csv", "large.csv: 5,368,709,120 bytes, more than the 134,217,728 a prompt file may have. Split it."),
        ("/dev/zero", "'/dev/zero' cannot be read: it is a device, and a file is wanted."),
        ("x" * 300, "cannot be read: File name too long."),
    ):
        (line,) = problems_of(f"model: tiny-video\nprompts: {{file: {name}}}\n")
        assert line.endswith(why)
    for job, why in (("/dev/zero", "it is a device"), ("pipe.txt", "it is a pipe"), ("x" * 5000, "File name too long")):
        with pytest.raises(JobFileError, match=why):
            load(job_file(Path(job)), (), {}, fake_registries())


def test_a_message_never_grows_with_what_it_is_about() -> None:
    for text in (f"{'k' * 500_000}: 1", f"x: !{'t' * 500_000} a", f"solver: {'s' * 500_000}", f"name: {'n' * 500_000}"):
        assert all(len(line) < 2_100 for line in problems_of(f"{BASE}{text}\n"))


def test_captions_that_nest_without_end_are_refused() -> None:
    Path("c.json").write_text("[" * 100_000)
    (line,) = problems_of("model: tiny-video\nprompts: {coco: c.json}\n")
    assert "c.json is no captions file of COCO" in line


SECRET_PLACES = [
    *("name", "model.revision", "sampling.options.x", "launch.partition", "launch.time", "launch.template"),
    *("launch.options.comment", "launch.kind", "output.dir", "output.format", "nightly.baseline", "nightly.at"),
    *("score", "gates.psnr.max", "parallel.backend", "objective", "attention", "solver.kind"),
]


@pytest.mark.parametrize("place", SECRET_PLACES)
@pytest.mark.parametrize("written", ["${MY_TOKEN}", "a${MY_TOKEN}b", "${HOST}-${MY_TOKEN:-none}"])
def test_a_secret_is_refused_wherever_it_would_be_stored_or_printed(place: str, written: str) -> None:
    lines = problems_of(BASE, f"{place}='{written}'", environ={"MY_TOKEN": "hush-hush", "HOST": "here"})
    assert any(place in line and "secret" in line for line in lines)
    assert not any("hush-hush" in line for line in lines)


def test_a_secret_may_go_to_the_shell_and_to_the_program_that_is_told_of_a_night_and_is_stored_as_its_name() -> None:
    text = (
        f"{BASE}launch: {{kind: slurm, setup: ['export T=${{MY_TOKEN}}']}}\n"
        "nightly: {notify: {command: [curl, '-H', 'Authorization: ${MY_TOKEN}']}}\n"
    )
    loaded = load_text(text, environ={"MY_TOKEN": "hush-hush"})
    assert "hush-hush" not in json.dumps(loaded.document)
    assert loaded.job.nightly is not None and loaded.job.nightly.notify is not None
    assert loaded.job.nightly.notify.command[2] == "Authorization: hush-hush"
    lines = problems_of(
        f"{BASE}nightly: {{notify: {{command: ['${{MY_TOKEN}}']}}}}\n", environ={"MY_TOKEN": "hush-hush"}
    )
    assert "nightly.notify.command[0]: ${MY_TOKEN} looks like a secret." in lines[0]


def test_a_stored_job_is_not_launched_with_a_secret_in_its_script_either() -> None:
    document = load_text(f"{BASE}launch: {{kind: slurm}}\n").document
    for sets, stored in (((), "${MY_TOKEN}"), (("launch.partition=${MY_TOKEN}",), None)):
        launch = {**document["launch"], **({} if stored is None else {"partition": stored})}
        with pytest.raises(JobFileError, match=r"launch.partition: made from a secret"):
            restore({**document, "launch": launch}, {"MY_TOKEN": "hush-hush"}, fake_registries(), sets)


def test_a_run_of_an_earlier_version_that_says_what_does_nothing_is_resumed_all_the_same() -> None:
    document = load_text(BASE).document
    stored = {**document, "launch": {**document["launch"], "then": [{"step": "score"}, {"step": "score"}], "array": 4}}
    assert restore(stored, {}, fake_registries()).launch.array == 4


def test_the_home_folder_is_where_a_job_says_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "p.txt").write_text("a\n")
    (tmp_path / "home" / "base.yaml").write_text("model: tiny-video\nprompts: {file: ~/p.txt}\noutput: {dir: ~/runs}\n")
    loaded = load_text("extends: ~/base.yaml\n")
    assert loaded.job.output.dir == loaded.document["output"]["dir"] == str(tmp_path / "home" / "runs")
    assert [item.prompt for item in plan(loaded)] == ["a"]


def test_a_job_that_was_written_as_json_means_the_characters_that_json_escapes() -> None:
    loaded = load_text(json.dumps({"model": "tiny-video", "prompts": ["a \N{PILE OF POO}"]}))
    assert loaded.cells[0].prompts[0].text == "a \N{PILE OF POO}"


@pytest.mark.parametrize(
    ("template", "mistake"),
    [
        ("a\n{{ name", "mine.j2:2: unexpected end of template"),
        ("a\n\n{{ nope }}", "mine.j2:3: 'nope' is undefined; there are agent, cwd, directives"),
        ("{{ name | nope }}", "mine.j2:1: No filter named 'nope'."),
        ("{% include 'x' %}{% if %}", "mine.j2:1: Expected an expression"),
    ],
)
def test_mistakes_in_a_template_are_told_with_their_line(template: str, mistake: str) -> None:
    Path("mine.j2").write_text(template)
    (line,) = problems_of(f"{BASE}launch: {{kind: slurm, template: mine.j2}}\n")
    assert mistake in line
    assert line.startswith("job.yaml:3:33: launch.template: ")


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ("{options: {num_inference_steps: 7}}", "num_inference_steps: is no option: write sampling.steps."),
        ("{options: {guidance_scale: 9}}", "guidance_scale: is no option: write sampling.guidance_scale."),
        ("{options: {prompt: x}}", "prompt: is no option: write `prompts`."),
        ("{options: {num_images_per_prompt: 4}}", "is no option: one item is one picture: write more `seeds`."),
        ("{options: {generator: 3}}", "generator: is no option: the noise is drawn from `seeds`: leave it out."),
        ("{options: {output_type: latent}}", "is no option: genrun takes the pictures from the pipeline itself"),
        ("{options: {clip_skp: 1}}", "StableDiffusion3Pipeline takes no 'clip_skp'. Did you mean 'clip_skip'?"),
        (
            "{options: {image: x}}",
            "StableDiffusion3Pipeline takes no 'image'. It takes clip_skip, joint_attention_kwargs",
        ),
        ("{options: {prompt_embeds: [1]}}", "is a picture or a tensor, which a job cannot hold: leave it out."),
        ("{steps: 3, options: {sigmas: [1, 0.5]}}", "has 2 numbers, and sampling.steps is 3: write as many."),
        ("{options: {sigmas: x}}", "wanted a list of numbers, one for each step."),
        ("{width: 72, height: 64}", "sampling.width: demo-image needs a multiple of 16; the nearest is 64."),
        ("{width: 80, height: 64}", "sampling.width: demo-image makes at most 64 pixels."),
    ],
)
def test_options_are_held_against_the_call_of_the_pipeline(sampling: str, message: str) -> None:
    (line,) = refusal(f"{DEMO}sampling: {sampling}\n")
    assert message in line


def test_a_size_that_cannot_be_made_fails_its_cell_and_keeps_no_other_from_being_made() -> None:
    Path("job.yaml").write_text(f"{DEMO}matrix: {{sampling.width: [64, 72]}}\n")
    loaded = load("job.yaml", environ={})
    assert [cell.sampling["width"] for cell in loaded.cells] == [64, 72]
    (line,) = loaded.warnings
    assert "the nearest is 64. (In the cell sampling.width=72.) Its items will fail" in line
    assert len(plan(loaded)) == 2
    lines = refusal(f"{DEMO}matrix: {{sampling.width: [72, 80]}}\n")
    assert len(lines) == 2
    (line,) = refusal(f"{DEMO}matrix: {{sampling.width: [64, 72], sampling.steps: [2, 0]}}\n")[:1]
    assert "sampling.steps" in line or "sampling.width" in line


def test_arguments_that_the_pipeline_has_are_taken() -> None:
    Path("job.yaml").write_text(
        f"{DEMO}sampling: {{steps: 2, options: {{sigmas: [1, 0.5], clip_skip: 1, prompt_2: b, num_images_per_prompt: 1}}}}\n"
    )
    assert plan(load("job.yaml", environ={}))[0].sampling["options"]["clip_skip"] == 1


def test_a_template_and_the_folder_of_runs_reach_the_launcher_as_they_are() -> None:
    Path("mine.j2").write_text(
        "{% for line in directives %}{{ loop.index }}{{ line }}{% endfor %}\n{% set x = 1 %}{{ x }}\n"
    )
    loaded = load_text(f"{BASE}launch: {{kind: slurm, template: mine.j2}}\n")
    cluster = request_of(loaded.job, loaded.document, {}).cluster
    assert cluster is not None and cluster.template == Path("mine.j2").resolve()
