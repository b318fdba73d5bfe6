"""Job files: every bad one is refused with all its problems, each at its place."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest

from genrun.runner.api.jobs import load_job
from genrun.runner.job import checks, load
from genrun.runner.job.cell import Draft
from genrun.runner.job.checks import check_keys, check_secrets, check_values
from genrun.runner.job.errors import JobFileError
from tests.fakes.checkpoints import write_checkpoint
from tests.fakes.jobs import BASE, load_text, problems_of


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def checkpoint(folder: str, *files: str) -> None:
    for name in ("model_index.json", *files):
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("solver:\n  kind: window\n  windw: 3", "5:3: solver.windw: unknown option. Did you mean 'window'?"),
        (
            "solver:\n  kind: window\n  q: 3",
            "5:3: solver.q: unknown option. There are: workers, tolerance, mode, window.",
        ),
        ("solver: {kind: sequential, q: 3}", "3:28: solver.q: unknown option. There are none."),
        ("solver: {kind: window, workers: 0}", "3:33: solver.workers: must be at least 1, got 0."),
        ("solver: {kind: window, workers: x}", "3:33: solver.workers: wanted a whole number, got 'x'."),
        ("solver: {kind: window, mode: x}", "3:30: solver.mode: wanted exact or skip, got 'x'."),
        ("solver: {kind: window, tolerance: .nan}", "3:35: solver.tolerance: wanted a finite number, got nan."),
        (
            "solver: wndow",
            "3:9: solver.kind: there is no solver 'wndow'. Did you mean 'window'? There are: sequential, window.",
        ),
        ("solver: [window]", "3:9: solver: wanted a name or a mapping, got a list."),
        (
            "solver: {workers: 4}",
            "3:10: solver.workers: no `kind` says what it is an option of. Write it, too: one of sequential, window.",
        ),
        (
            "solver: {window: {workers: 4}}",
            "3:10: solver.window: is no option but a kind. Write `solver: {kind: window}`, its options beside it.",
        ),
        ("steps: 20", "3:1: steps: unknown option. Did you mean 'sampling.steps'?"),
        ("num_inference_steps: 20", "3:1: num_inference_steps: unknown option. Did you mean 'sampling.steps'?"),
        ("sede: [1]", "3:1: sede: unknown option. Did you mean 'seeds'?"),
        ("seeds: [0, x]", "3:12: seeds[1]: wanted a whole number, got 'x'."),
        ("seeds: [1.5]", "3:9: seeds[0]: wanted a whole number, got 1.5."),
        ("seeds: [true]", "3:9: seeds[0]: wanted a whole number, got true."),
        ("seeds: [-1]", "3:9: seeds[0]: wanted at least 0, got -1."),
        (
            "seeds: [9223372036854775808]",
            "3:9: seeds[0]: wanted less than 9223372036854775808, got 9223372036854775808.",
        ),
        ("seeds: x", "3:8: seeds: wanted a list, a range such as 0..9, or how many, 1 to 1,000,000, got 'x'."),
        ("seeds: 9..0", "3:8: seeds: wanted a list, a range such as 0..9, or how many, 1 to 1,000,000, got '9..0'."),
        ("seeds: []", "3:8: seeds: wanted a list that is not empty, got an empty list."),
        ("seeds: [4, 4]", "3:12: seeds[1]: 4 is given twice, first at job.yaml:3:9. Remove one of them."),
        ("sampling: {steps: -3}", "3:19: sampling.steps: wanted at least 1, got -3."),
        ("sampling: {steps: '3'}", "3:19: sampling.steps: wanted a whole number, got '3'."),
        ("sampling: {steps: 2.5}", "3:19: sampling.steps: wanted a whole number, got 2.5."),
        ("sampling: {steps: 1000001}", "3:19: sampling.steps: wanted at most 100000, got 1000001."),
        (
            '"a\\nb\\e": 1',
            "3:1: a\\nb\\x1b: unknown option. There are: name, model, prompts, seeds, sampling, solver, "
            "cache, attention, parallel, objective, launch, output, score, audit, gates, notify, nightly, matrix.",
        ),
        ("sampling: {height: 9}", "3:20: sampling.height: tiny-video needs a multiple of 8."),
        ("sampling: {guidance_scale: high}", "3:28: sampling.guidance_scale: wanted a number, got 'high'."),
        ("sampling: {scheduler: {shift: 3}}", "3:23: sampling.scheduler.kind: missing."),
        (
            "sampling: {scheduler: DDIMM}",
            "3:23: sampling.scheduler.kind: diffusers has no scheduler 'DDIMM'. Did you mean 'DDIMScheduler'?",
        ),
        (
            "sampling: {scheduler: DDIMSchedular}",
            "3:23: sampling.scheduler.kind: diffusers has no scheduler 'DDIMSchedular'. Did you mean 'DDIMScheduler'?",
        ),
        ("output: {crf: 52}", "3:15: output.crf: wanted at most 51, got 52."),
        ("output: {save_latents: 1}", "3:24: output.save_latents: wanted true or false, got 1."),
        ("output: {format: gif}", "3:18: output.format: wanted auto, mp4 or png, got 'gif'."),
        ("parallel: {data: none}", "3:18: parallel.data: wanted a whole number of at least 1, or auto, got 'none'."),
        (
            "launch: torchrn",
            "3:9: launch.kind: there is no launcher 'torchrn'. Did you mean 'torchrun'? There are: inline, torchrun, slurm.",
        ),
        (
            "parallel: {data: 2, time: 2}\nlaunch: {kind: torchrun, processes: 3}",
            "4:37: launch.processes: 3 is not parallel.data x parallel.time = 2 x 2 = 4. Write auto.",
        ),
        (
            "parallel: {time: 2}\nlaunch: {kind: torchrun, processes: 3}",
            "4:37: launch.processes: 3 cannot be shared out in groups of parallel.time = 2. Write a multiple of 2.",
        ),
        ("score: [psn]", "3:9: score[0]: there is no metric 'psn'. Did you mean 'psnr'? There are: psnr, ssim."),
        (
            "name: ../x",
            "3:7: name: wanted up to 80 letters, digits, `.`, `_` and `-`, the first a letter or digit, got '../x'.",
        ),
        ("name: latest", "3:7: name: 'latest' always means the newest run. Choose another name."),
        ("name: 3", "3:7: name: wanted text, got 3."),
    ],
)
def test_a_bad_value_is_named_with_its_place(text: str, message: str) -> None:
    assert problems_of(f"{BASE}{text}\n") == [f"job.yaml:{message}"]


def test_every_wrong_option_is_told_but_not_what_may_come_of_another(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(
        "model: demo-image\nprompts: [a kite]\n"
        "solver: {kind: collocation, workers: 0, probes: 9, tolerance: -1, spacing: x, scale: up, max_rounds: 2000000}\n"
        "cache: {kind: pab, drift: -1, start: 5, stop: 9, spatial: 0}\n"
    )
    with pytest.raises(JobFileError) as caught:
        load(str(path))
    assert [problem.path for problem in caught.value.problems] == [
        *(f"solver.{name}" for name in ("workers", "tolerance", "spacing", "scale", "max_rounds")),
        *(f"cache.{name}" for name in ("drift", "start", "spatial")),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompts: [a]", "1:1: model: missing, such as `model: demo-video`. `genrun models` lists what there is."),
        ("model: tiny-video", "1:1: prompts: missing, such as `prompts: {file: prompts.txt}`."),
        ("model: tiny-video\nprompts: []", "2:10: prompts: wanted a list that is not empty, got an empty list."),
        ("model: tiny-video\nprompts: [a, '']", "2:14: prompts[1]: wanted text that is not empty, got ''."),
        ("model: tiny-video\nprompts: [' ']", "2:11: prompts[0]: the prompt is blank."),
        ("model: tiny-video\nprompts: [1984]", "2:11: prompts[0]: wanted text, got 1984."),
        (
            "model: tiny-video\nprompts: a",
            "2:10: prompts: wanted a list of prompts, or a file of them such as {file: prompts.txt}, got 'a'.",
        ),
        ("model: tiny-video\nprompts: {flie: a.txt}", "2:11: prompts.flie: unknown option. Did you mean 'file'?"),
        (
            "model: tiny-video\nprompts: [a, b, a]",
            "2:17: the same prompt as job.yaml:2:11. Remove one of them; for more samples of it add `seeds`.",
        ),
        (
            "model: tiny-vidoe\nprompts: [a]",
            "1:8: model.checkpoint: 'tiny-vidoe' is neither a folder nor a hub id such as org/name. "
            "Did you mean 'tiny-video'?",
        ),
        (
            "model: {adapter: tiny-vidoe}\nprompts: [a]",
            "1:18: model.adapter: there is no model 'tiny-vidoe'. Did you mean 'tiny-video'? "
            "There are: tiny-video, tiny-image, auto.",
        ),
        (
            "model: {adapter: tiny-video, dtype: half}\nprompts: [a]",
            "1:37: model.dtype: wanted float32, bfloat16 or float16, got 'half'.",
        ),
        (
            "model: {dtype: float32}\nprompts: [a]",
            "1:8: model.checkpoint: missing: auto has none of its own. Name a folder or a hub id (org/name).",
        ),
    ],
)
def test_a_bad_model_or_prompt_list_is_named_with_its_place(text: str, message: str) -> None:
    lines = problems_of(text)
    assert f"job.yaml:{message}" in lines
    # An unknown key of `prompts` also leaves the file missing.
    assert len(lines) == (2 if "flie" in text else 1)


def test_all_problems_are_reported_at_once_sorted_by_place() -> None:
    text = "solver: {kind: window, windw: 3}\nprompts: [a, a]\nmodel: org/x\nsampling: {steps: -3, height: q}\nbla: 1\n"
    assert [line.split(" ")[0] for line in problems_of(text, "seeds=x")] == [
        "--set",
        "job.yaml:1:24:",
        "job.yaml:2:14:",
        "job.yaml:4:19:",
        "job.yaml:4:31:",
        "job.yaml:5:1:",
    ]


def test_problems_come_in_the_order_of_lines_not_of_digits() -> None:
    text = BASE + "\n" * 10 + "y: 1\n"
    assert problems_of("x: 1\n" + text)[0].startswith("job.yaml:1:1: x:")


def test_a_long_list_of_problems_is_cut() -> None:
    lines = problems_of(f"model: tiny-video\nprompts: {['a'] * 500}\n")
    assert len(lines) == 101
    assert lines[-1] == "and 399 more"


def test_a_missing_prompt_file_names_where_it_looked_and_what_was_meant() -> None:
    Path("prompts.txt").write_text("a\n")
    assert problems_of("model: tiny-video\nprompts: {file: promts.txt}\n") == [
        "job.yaml:2:17: prompts.file: there is no file 'promts.txt' in '.' or among the prompts packaged with genrun. "
        "Did you mean 'prompts.txt'?"
    ]


def test_a_folder_without_a_model_index_is_refused() -> None:
    Path("weights").mkdir()
    assert problems_of("model: weights\nprompts: [a]\n") == [
        "job.yaml:1:8: model.checkpoint: the folder 'weights' has no model_index.json, so it is no diffusers pipeline. "
        "Write one with pipe.save_pretrained(folder), or name the folder that has it."
    ]


@pytest.mark.parametrize("name", ["unet/diffusion_pytorch_model.bin", "unet/model.pt", "sd.ckpt"])
def test_a_checkpoint_of_pickles_is_refused(name: str) -> None:
    checkpoint("weights", "vae/model.safetensors", name)
    assert problems_of("model: weights\nprompts: [a]\n") == [
        f"job.yaml:1:8: model.checkpoint: 'weights' has weights as a pickle ({name}), which can run code when it is read. "
        "Convert it where you trust it: pipe.save_pretrained(folder, safe_serialization=True)."
    ]


def test_a_pickle_beside_safetensors_is_ignored() -> None:
    write_checkpoint(Path("weights"))
    Path("weights/unet/model.bin").write_text("{}")
    assert load_text("model: weights\nprompts: [a]\n").cells[0].checkpoint.folder == Path("weights").resolve()


def test_a_checkpoint_without_weights_or_in_one_file_is_refused() -> None:
    checkpoint("weights")
    Path("model.safetensors").write_text("")
    assert problems_of("model: weights\nprompts: [a]\n") == [
        "job.yaml:1:8: model.checkpoint: the folder 'weights' has no weights (*.safetensors). Download all of it."
    ]
    assert problems_of("model: model.safetensors\nprompts: [a]\n") == [
        "job.yaml:1:8: model.checkpoint: 'model.safetensors' is a file; wanted a folder with a model_index.json, "
        "or a hub id. For weights in one file say `config: FOLDER`, where its pipeline's configurations are."
    ]


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, "~nobody/x", "/", "..", "\N{PILE OF POO}"])
def test_strange_checkpoints_are_refused_without_a_traceback(path: str) -> None:
    with pytest.raises(JobFileError):
        load_text(BASE, f"model.checkpoint={path!a}" if "\0" not in path else 'model.checkpoint="a\\0b"')


@pytest.mark.parametrize("path", ["a\\0b.txt", "x" * 5000 + ".txt", "/", "../..", "a.exe"])
def test_strange_prompt_files_are_refused_without_a_traceback(path: str) -> None:
    with pytest.raises(JobFileError):
        load_text(f'model: tiny-video\nprompts: {{file: "{path}"}}\n')


def test_shorthands_mean_the_same_as_the_long_form() -> None:
    short = load_text(f"{BASE}solver: window\nlaunch: inline\nsampling: {{scheduler: DDIMScheduler}}\n")
    long = load_text(
        "model: {adapter: tiny-video}\nprompts: [a red kite]\nsolver: {kind: window}\nlaunch: {kind: inline}\n"
        "sampling: {scheduler: {kind: DDIMScheduler}}\n"
    )
    assert short.job == long.job
    assert load_text("model: org/name\nprompts: [a]\n").job.model.checkpoint == "org/name"


def test_the_defaults_of_adapter_and_solver_are_filled_in() -> None:
    loaded = load_text(f"{BASE}solver: window\nsampling: {{steps: 3}}\n")
    assert loaded.job.name == "job"
    assert loaded.document["solver"] == {"kind": "window", "workers": 1, "tolerance": 0.05, "mode": "exact"}
    assert loaded.document["sampling"] == {
        "steps": 3,
        "guidance_scale": 5.0,
        "num_frames": 9,
        "options": {"eta": 0.0},
    }
    assert loaded.document["model"] == {"adapter": "tiny-video", "device": "auto", "dtype": "float32"}
    assert "matrix" not in loaded.document


def test_a_key_with_nothing_behind_it_means_the_default() -> None:
    assert load_text(f"{BASE}seeds:\nmatrix:\nsolver:\nsampling:\n").job == load_text(BASE).job


def test_a_job_is_named_by_its_file() -> None:
    assert load_text(BASE, name="My job (2).yaml").job.name == "My-job-2"
    assert load_text(BASE, name="\N{PILE OF POO}.yaml").job.name == "job"


def test_every_check_is_in_the_list() -> None:
    modules = [import_module(f"{checks.__name__}.{module.name}") for module in iter_modules(checks.__path__)]
    written = {
        member
        for module in modules
        for name, member in vars(module).items()
        if name.startswith("check_") and member.__module__ == module.__name__
    }
    of_documents = {check_keys, check_secrets, check_values}
    assert written - of_documents == set(checks.CHECKS) - {Draft.unresolved}
    assert {*checks.LAUNCH_CHECKS, *checks.MESH_CHECKS} <= set(checks.CHECKS)


def test_keys_of_clips_are_refused_where_only_pictures_are_made() -> None:
    job = {"model": "demo-image", "prompts": ["a"], "output": {"fps": 8, "crf": 30}}
    with pytest.raises(JobFileError) as caught:
        load_job(job)
    remedy = "this is for clips. Leave it out."
    assert [problem.path for problem in caught.value.problems] == ["output.crf", "output.fps"]
    assert all(problem.message.endswith(remedy) for problem in caught.value.problems)


@pytest.mark.parametrize(
    "changed",
    [
        {"output": {"fps": None, "crf": 18}},
        {"model": "demo-video"},
        {"matrix": {"model": ["demo-image", "demo-video"]}},
    ],
)
def test_keys_of_clips_are_taken_as_defaults_and_where_a_model_makes_clips(changed: dict[str, Any]) -> None:
    assert load_job({"model": "demo-image", "prompts": ["a"], "output": {"fps": 8, "crf": 30}, **changed})
