"""The adapters of real models: their defaults hold together, and what a model cannot do is refused before it loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from genrun.adapters import registry
from genrun.runner.job import LoadedJob, load
from genrun.runner.job.checks.scheduler import scheduler_names
from genrun.runner.job.errors import JobFileError
from genrun.runner.job.options import Registries
from genrun.runner.job.plan import plan

REAL = ("hunyuanvideo", "wan2.1", "cogvideox1.5", "sd3.5", "flux", "sd2", "ddpm-church")


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def job(model: str, sampling: str = "{}", checkpoint: str | None = None) -> LoadedJob:
    at = f", checkpoint: {checkpoint}" if checkpoint else ""
    text = f"model: {{adapter: {model}{at}}}\nprompts: [a red kite]\nsampling:\n  {sampling}\n"
    Path("job.yaml").write_text(text, encoding="utf-8")
    loaded = load("job.yaml", (), {}, Registries.installed())
    plan(loaded)
    return loaded


def problem(model: str, sampling: str) -> str:
    with pytest.raises(JobFileError) as caught:
        job(model, sampling)
    return str(caught.value)


def test_importing_every_adapter_imports_neither_torch_nor_diffusers() -> None:
    code = (
        "import sys\n"
        "from genrun.adapters import registry\n"
        "[registry.get(name) for name in registry.names()]\n"
        "print(sorted({'torch', 'diffusers', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split("\n")[0] == "[]"


@pytest.mark.parametrize("name", REAL)
def test_a_models_own_defaults_are_possible(name: str) -> None:
    adapter = registry.get(name)
    for checkpoint in (str(adapter.checkpoint), *adapter.variants):
        sampling = job(name, checkpoint=checkpoint).cells[0].sampling
        assert adapter.validate(sampling) == []
        assert sampling["steps"] >= 28
        assert sampling.get("scheduler", {"kind": "DDIMScheduler"})["kind"] in scheduler_names()
    assert adapter.name == name


@pytest.mark.parametrize(
    ("model", "sampling", "message"),
    [
        ("wan2.1", "num_frames: 80", "wan2.1 needs 4 n + 1 frames; the nearest is 81."),
        ("wan2.1", "num_frames: 2", "wan2.1 needs 4 n + 1 frames; the nearest is 1."),
        ("wan2.1", "height: 490", "wan2.1 needs a multiple of 16; the nearest is 496."),
        ("hunyuanvideo", "num_frames: 60", "hunyuanvideo needs 4 n + 1 frames; the nearest is 61."),
        ("hunyuanvideo", "width: 7", "hunyuanvideo needs a multiple of 16; the nearest is 16."),
        ("cogvideox1.5", "num_frames: 61", "cogvideox1.5 needs 8 n + 1 frames; the nearest is 65."),
        ("cogvideox1.5", "height: 760", "cogvideox1.5 needs a multiple of 16; the nearest is 768."),
        ("sd3.5", "width: 1032", "sd3.5 needs a multiple of 16; the nearest is 1024."),
        ("flux", "height: 1000", "flux needs a multiple of 16; the nearest is 992."),
        ("sd2", "height: 766", "sd2 needs a multiple of 8; the nearest is 768."),
        ("sd2", "num_frames: 9", "sd2 makes images: leave num_frames out."),
        ("ddpm-church", "width: 512", "ddpm-church knows no width: leave it out."),
        ("ddpm-church", "guidance_scale: 2.0", "ddpm-church knows no guidance_scale: leave it out."),
    ],
)
def test_what_a_model_cannot_do_is_refused_with_the_nearest_that_it_can(
    model: str, sampling: str, message: str
) -> None:
    field, _, value = sampling.partition(": ")
    assert problem(model, sampling) == f"job.yaml:4:{len(field) + 5}: sampling.{field}: {message}"
    assert value


@pytest.mark.parametrize("model", ["hunyuanvideo", "flux"])
def test_a_negative_prompt_that_embedded_guidance_would_ignore_is_refused(model: str) -> None:
    message = problem(model, "negative_prompt: gray")
    assert message.endswith(f"{model} ignores it without options: {{true_cfg_scale: 4.0}}, or any above 1.")
    assert "ignores it" in problem(model, "{negative_prompt: gray, options: {true_cfg_scale: 1}}")
    assert "ignores it" in problem(model, "{negative_prompt: gray, options: {true_cfg_scale: lots}}")
    job(model, "{negative_prompt: gray, options: {true_cfg_scale: 1.5}}")


def test_defaults_follow_the_checkpoint() -> None:
    small = job("wan2.1").cells[0].sampling
    large = job("wan2.1", checkpoint="Wan-AI/Wan2.1-T2V-14B-Diffusers").cells[0].sampling
    assert (small["height"], small["scheduler"]["flow_shift"]) == (480, 3.0)
    assert (large["height"], large["scheduler"]["flow_shift"]) == (720, 5.0)
    assert small["num_frames"] == large["num_frames"] == 81
    medium = job("sd3.5", "steps: 7", checkpoint="stabilityai/stable-diffusion-3.5-medium").cells[0].sampling
    assert (medium["steps"], medium["guidance_scale"], medium["width"]) == (7, 4.5, 1024)


def test_a_scheduler_in_the_job_replaces_the_models_own_whole() -> None:
    sampling = job("wan2.1", "scheduler: {kind: FlowMatchEulerDiscreteScheduler, shift: 5.0}").cells[0].sampling
    assert sampling["scheduler"] == {"kind": "FlowMatchEulerDiscreteScheduler", "shift": 5.0}


def chosen(model: str) -> LoadedJob:
    Path("job.yaml").write_text(f"model: {model}\nprompts: [a red kite]\n", encoding="utf-8")
    return load("job.yaml", (), {}, Registries.installed())


def test_a_hub_id_alone_means_the_adapter_that_names_it_and_its_defaults() -> None:
    cell = chosen("Tongyi-MAI/Z-Image-Turbo").cells[0]
    assert (cell.job.model.adapter, cell.sampling["steps"], cell.sampling["guidance_scale"]) == ("z-image", 8, 0.0)
    assert chosen("{adapter: auto, checkpoint: Tongyi-MAI/Z-Image-Turbo}").cells[0].sampling == {"steps": 50}
    assert chosen("org/name").cells[0].job.model.adapter == "auto"


def test_two_experts_have_two_guidance_scales() -> None:
    cell = chosen("wan2.2").cells[0]
    assert (cell.sampling["guidance_scale"], cell.sampling["options"]) == (4.0, {"guidance_scale_2": 3.0})
    small = chosen("Wan-AI/Wan2.2-TI2V-5B-Diffusers").cells[0]
    assert (small.adapter.fps, small.adapter.multiples, small.sampling["num_frames"]) == (24, 32, 121)


def test_a_default_negative_prompt_is_that_of_every_item_without_one() -> None:
    loaded = chosen("qwen-image")
    assert [item.negative_prompt for item in plan(loaded)] == [" "]
    assert "negative_prompt" not in plan(loaded)[0].sampling


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: sdxl\noutput: {sound: true}", "output.sound: sdxl makes no sound. Leave it out."),
        ("model: wan2.2\noutput: {sound: true}", "output.sound: wan2.2 makes no sound. Leave it out."),
        (
            "model: ltx2\noutput: {fps: 12}",
            "output.fps: ltx2 makes sound for 24 frames a second, which 12 would leave behind.",
        ),
    ],
)
def test_sound_that_cannot_be_is_refused_with_its_place(text: str, message: str) -> None:
    Path("job.yaml").write_text(f"{text}\nprompts: [a red kite]\n", encoding="utf-8")
    with pytest.raises(JobFileError) as caught:
        load("job.yaml", (), {}, Registries.installed())
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "model: ltx2\noutput: {sound: true}",
        "model: ltx2\noutput: {sound: false, fps: 12}",
        "model: ltx2\noutput: {fps: 12}\nsampling: {options: {frame_rate: 12.0}}",
    ],
)
def test_sound_that_can_be_is_taken(text: str) -> None:
    Path("job.yaml").write_text(f"{text}\nprompts: [a red kite]\n", encoding="utf-8")
    assert load("job.yaml", (), {}, Registries.installed()).cells
