"""Inputs of prompts: in every form of a list, in ids, refused with file, line and remedy, and kept by the run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import yaml
from PIL import Image

from genrun.adapters.checkpoint.pipeline_classes import required_components
from genrun.adapters.input_files import InputError, decode, look_at
from genrun.adapters.media import write_video
from genrun.adapters.pipeline.call_options import arguments_of, takes_several
from genrun.runner.api.jobs import load_job
from genrun.runner.job.errors import JobFileError
from genrun.runner.job.files import as_stored, wrong_stored
from genrun.runner.job.plan import WorkItem, plan
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.planfile import keep, name_of
from genrun.runner.store.verify import verify
from genrun.runner.submit.resume import SubmittedJob, open_run
from genrun.runner.worker.prompts import DecodedInputs
from tests.fakes.checkpoints import write_checkpoint
from tests.fakes.items import genuine, make_item


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for name, size, colour in (
        ("a", (64, 64), "red"),
        ("b", (64, 64), "blue"),
        ("wide", (128, 64), "red"),
        ("odd", (70, 64), "red"),
    ):
        Image.new("RGB", size, colour).save(f"in/{name}.png")
    for frames in (8, 9):
        write_video(Path(f"in/{frames}.mp4"), np.zeros((frames, 32, 32, 3), np.uint8), 8)
    return tmp_path


def checkpoint(name: str, pipeline: str, vae: str = "AutoencoderKL") -> str:
    """Write a folder that is a pipeline as far as a job is checked."""
    kinds = {"scheduler": ["diffusers", "DDIMScheduler"], "vae": ["diffusers", vae]}
    index: dict[str, Any] = {"_class_name": pipeline}
    for part in required_components(pipeline):
        tokenizer = ["transformers", "T5Tokenizer"]
        index[part] = kinds.get(part) or (tokenizer if "tokenizer" in part else ["transformers", "T5EncoderModel"])
    write_checkpoint(Path(name), index)
    (Path(name) / "vae" / "config.json").write_text(json.dumps({"block_out_channels": [4] * 4}))
    return name


def job(pipeline: str, prompts: Any, vae: str = "AutoencoderKL", **sampling: Any) -> dict[str, Any]:
    return {
        "model": {"checkpoint": checkpoint(pipeline, pipeline, vae)},
        "prompts": prompts,
        "sampling": {"steps": 4, **sampling},
    }


def refusals(document: dict[str, Any]) -> list[str]:
    Path("job.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(JobFileError) as caught:
        load_job("job.yaml")
    return [f"{problem.path} {problem.message}".strip() for problem in caught.value.problems]


IMG2IMG = "StableDiffusionImg2ImgPipeline"


def test_an_option_of_another_type_is_told_with_what_the_call_declares() -> None:
    given = job("StableDiffusionPipeline", ["a"], options={"guidance_rescale": [0.5], "clip_skip": "2", "eta": 1})
    assert refusals(given) == [
        "sampling.options.clip_skip wanted int | None, as StableDiffusionPipeline declares it, got '2'.",
        "sampling.options.guidance_rescale wanted float, as StableDiffusionPipeline declares it, got [0.5].",
    ]


@pytest.mark.parametrize("metric", ["image_similarity", {"kind": "vbench", "suite": "i2v"}])
def test_what_is_compared_with_its_input_needs_one(metric: Any) -> None:
    name = metric if isinstance(metric, str) else metric["kind"]
    compares, leave = f"{name} compares results with the image of their prompt", f"or leave {name} out."
    (none,) = refusals(job("LTXPipeline", ["a", "b"]) | {"score": [metric]})
    assert none.endswith(f" {compares}, and none has one. Give each prompt one, {leave}")
    mixed = job("Flux2Pipeline", [{"prompt": "a", "image": "in/a.png"}, {"prompt": "b"}], "AutoencoderKLFlux2")
    found = [each for each in refusals(mixed | {"score": [metric]}) if "compares" in each]
    assert found == [f"prompts[1].image missing: {compares}. Give it one, {leave}"]


@pytest.mark.parametrize("form", ["csv", "jsonl", "yaml"])
def test_a_row_has_inputs_and_fields_of_its_own_in_every_form(form: str) -> None:
    row = {"prompt": "a cat", "name": "cat", "image": "a.png", "strength": 0.5, "guidance_scale": 7, "seed": 3}
    Path("in/p.csv").write_text(",".join(row) + "\n" + ",".join(map(str, row.values())) + "\n")
    Path("in/p.jsonl").write_text(json.dumps(row) + "\n")
    inline = [{**row, "image": "in/a.png"}]
    item = plan(load_job(job(IMG2IMG, inline if form == "yaml" else f"in/p.{form}")))[0]
    sha256 = look_at(Path("in/a.png")).sha256
    assert (item.prompt, item.seed, item.row["name"]) == ("a cat", 3, "cat")
    assert item.sampling == {"steps": 4, "guidance_scale": 7.0, "options": {"strength": 0.5}}
    assert [file["sha256"] for file in item.inputs["image"]] == [sha256]
    assert item.fits()
    assert WorkItem.from_dict(json.loads(item.to_json())) == item


def test_ids_follow_the_content_of_inputs_and_not_their_names_or_the_prompts(folder: Path) -> None:
    def item(image: str, **row: Any) -> WorkItem:
        return plan(load_job(job(IMG2IMG, [{"prompt": "a", "image": image, **row}])))[0]

    first = item("in/a.png")
    Path("in/copy.png").write_bytes(Path("in/a.png").read_bytes())
    assert item("in/copy.png", name="another").id == first.id
    assert item("in/b.png").id != first.id
    assert item("in/a.png", strength=0.3).pair != first.pair
    same = plan(load_job(job(IMG2IMG, [{"prompt": "a", "image": "in/a.png"}], options={"strength": 0.3})))[0]
    assert item("in/a.png", strength=0.3).id == same.id
    # What has none is stored and named as before there were any.
    assert not {"inputs", "row"} & set(genuine(make_item(0)).to_dict())


@pytest.mark.parametrize(
    ("pipeline", "row", "message"),
    [
        (IMG2IMG, {"image": "in/none.png"}, "prompts[0].image 'in/none.png': there is no such file."),
        (
            IMG2IMG,
            {"image": "https://x.org/a.png"},
            "there is no such file. Nothing is fetched from an address: download",
        ),
        (IMG2IMG, {"image": "job.yaml"}, "prompts[0].image 'job.yaml': no picture or clip. There are:"),
        (IMG2IMG, {"image": "in/cut.png"}, "prompts[0].image 'in/cut.png': cut off or damaged:"),
        (IMG2IMG, {"image": "in/9.mp4"}, "prompts[0].image is a clip of 9 frames, and"),
        (IMG2IMG, {"image": ["in/a.png", "in/b.png"]}, "prompts[0].image 2 files, and"),
        (IMG2IMG, {"image": "in/odd.png"}, "multiples of 8: make it 72x64."),
        (
            IMG2IMG,
            {},
            "prompts[0].image missing: StableDiffusionImg2ImgPipeline cannot do without. Give each prompt one",
        ),
        (IMG2IMG, {"image": "in/a.png", "strength": 1.5}, "prompts[0].strength wanted at most 1.0, got 1.5."),
        (
            IMG2IMG,
            {"image": "in/a.png", "strength": 0.1},
            "prompts[0].strength 0.1 of 4 steps is none. Write at least 0.25",
        ),
        (
            IMG2IMG,
            {"image": "in/a.png", "height": 64},
            "prompts[0].height StableDiffusionImg2ImgPipeline takes no height",
        ),
        (
            "StableDiffusionPipeline",
            {"image": "in/a.png"},
            "StableDiffusionPipeline takes no image; it takes ip_adapter_image.",
        ),
        ("StableDiffusionPipeline", {"control_image": "in/a.png"}, "no ControlNet (name one as model.controlnet)"),
        (
            "StableDiffusionPipeline",
            {"ip_adapter_image": "in/a.png"},
            "no IP-Adapter here. Name one as model.ip_adapter",
        ),
        (
            "StableDiffusionControlNetPipeline",
            {"control_image": "in/wide.png", "height": 64, "width": 64},
            "prompts[0].control_image is 128x64 pixels, and would be stretched to 64x64. Crop it.",
        ),
        (IMG2IMG, {"image": "in/bomb.png"}, "'in/bomb.png': more pixels than 67,108,864. Make it smaller."),
        ("StableDiffusionPipeline", {"height": 65}, "prompts[0].height StableDiffusionPipeline needs a multiple of 8"),
        (
            "StableDiffusionInpaintPipeline",
            {"image": "in/a.png", "mask": "in/wide.png"},
            "prompts[0].mask is 128x64 pixels, and the image 64x64. Make it 64x64.",
        ),
        (
            "StableDiffusionInpaintPipeline",
            {"image": "in/wide.png", "mask": "in/wide.png", "height": 64, "width": 64},
            "would be stretched to 64x64. Crop it, or write height: 64, width: 128.",
        ),
        (
            "FluxImg2ImgPipeline",
            {"image": "in/wide.png"},
            "prompts[0].image is 128x64 pixels, and the result's size is not given. Write height: 64, width: 128.",
        ),
        (
            "CogVideoXVideoToVideoPipeline",
            {"video": "in/a.png"},
            "prompts[0].video is a picture, and CogVideoXVideoToVideoPipeline takes a clip there.",
        ),
        (
            "HunyuanVideoImageToVideoPipeline",
            {"image": "in/a.png", "num_frames": 8},
            "prompts[0].num_frames hunyuanvideo-i2v needs 4 n + 1 frames; the nearest is 9.",
        ),
    ],
)
def test_what_a_model_cannot_do_with_an_input_is_refused_at_its_line(pipeline: str, row: Any, message: str) -> None:
    whole = Path("in/a.png").read_bytes()
    Path("in/cut.png").write_bytes(whole[:-40])
    header = b"IHDR" + (9500).to_bytes(4, "big") * 2 + whole[24:29]
    Path("in/bomb.png").write_bytes(whole[:12] + header + crc32(header).to_bytes(4, "big") + whole[33:])
    vae = (
        "AutoencoderKLHunyuanVideo"
        if "Hunyuan" in pipeline
        else "AutoencoderKLCogVideoX"
        if "Cog" in pipeline
        else "AutoencoderKL"
    )
    assert any(message in line for line in refusals(job(pipeline, [{"prompt": "a", **row}], vae))), refusals(
        job(pipeline, [{"prompt": "a", **row}], vae)
    )


def test_a_strength_of_the_job_that_leaves_no_step_is_refused_once() -> None:
    rows = [{"prompt": name, "image": "in/a.png"} for name in "ab"]
    told = refusals(job(IMG2IMG, rows, options={"strength": 0.1}))
    assert told == ["sampling.options.strength 0.1 of 4 steps is none. Write at least 0.25, or more steps."]


def test_a_photograph_with_a_preview_behind_it_is_a_picture() -> None:
    picture = Image.new("RGB", (64, 64), "red")
    picture.save("in/phone.jpg", "MPO", save_all=True, append_images=[picture.resize((32, 32))])
    assert (look_at(Path("in/phone.jpg")).frames, len(decode(Path("in/phone.jpg").read_bytes()))) == (1, 1)


def test_a_clip_of_frames_that_a_model_cannot_make_is_told_the_nearest_number() -> None:
    Path("in/p.csv").write_text("prompt,video\na,9.mp4\nb,8.mp4\n")
    document = job("LTXConditionPipeline", {"file": "in/p.csv"}, "AutoencoderKLLTXVideo", height=32, width=32)
    Path("job.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(JobFileError) as caught:
        load_job("job.yaml")
    told = "in/p.csv:3:1: video: has 8 frames, and LTXConditionPipeline needs 8 n + 1 frames; the nearest is 9."
    assert str(caught.value) == told


def test_files_that_would_fill_the_memory_are_refused_by_their_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genrun.adapters.input_files.MAX_PICTURE", 1000)
    with pytest.raises(InputError, match="64x64 pixels, more than 1,000"):
        look_at(Path("in/a.png"))
    monkeypatch.setattr("genrun.adapters.input_files.MAX_PICTURE", 10**6)
    monkeypatch.setattr("genrun.adapters.input_files.MAX_CLIP", 5000)
    with pytest.raises(InputError, match="9 frames of 32x32 pixels, more than 5,000"):
        look_at(Path("in/9.mp4"))
    monkeypatch.setattr("genrun.adapters.input_files.MAX_BYTES", 10)
    with pytest.raises(InputError, match="bytes, more than 10"):
        look_at(Path("in/a.png"))


def test_pictures_are_turned_and_seen_on_white(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10), "red").save("turned.jpg", exif=exif)
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save("clear.png")
    assert decode(Path("turned.jpg").read_bytes())[0].size == (10, 20)
    assert decode(Path("clear.png").read_bytes())[0].getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("pipeline", "parameters", "arguments"),
    [
        ("WanImageToVideoPipeline", "image prompt last_image", {"image": "image", "last_image": "last_image"}),
        ("StableDiffusionXLControlNetPipeline", "prompt image", {"control_image": "image"}),
        (
            "StableDiffusionControlNetInpaintPipeline",
            "prompt image mask_image control_image",
            {"image": "image", "mask": "mask_image", "control_image": "control_image"},
        ),
        (
            "StableDiffusionXLAdapterPipeline",
            "prompt image ip_adapter_image",
            {"control_image": "image", "ip_adapter_image": "ip_adapter_image"},
        ),
        (
            "WanVACEPipeline",
            "prompt video mask reference_images",
            {"video": "video", "mask": "mask", "image": "reference_images"},
        ),
    ],
)
def test_fields_become_what_a_pipeline_calls_them(pipeline: str, parameters: str, arguments: dict[str, str]) -> None:
    assert arguments_of(pipeline, parameters.split()) == arguments


@pytest.mark.parametrize(
    ("pipeline", "several", "one"),
    [
        ("StableDiffusionPipeline", "ip_adapter_image", "image"),
        ("StableDiffusion3Pipeline", "", "ip_adapter_image"),
        ("StableDiffusionControlNetPipeline", "image ip_adapter_image", "mask_image"),
        ("StableDiffusionControlNetImg2ImgPipeline", "control_image ip_adapter_image", "image"),
        ("StableDiffusionControlNetInpaintPipeline", "control_image", "image mask_image"),
        ("Flux2Pipeline", "image", ""),
    ],
)
def test_several_pictures_are_taken_where_they_make_one_result(pipeline: str, several: str, one: str) -> None:
    assert all(takes_several(pipeline, argument) for argument in several.split())
    assert not any(takes_several(pipeline, argument) for argument in one.split())


def opened(document: dict[str, Any]) -> tuple[SubmittedJob, RunFolder]:
    submitted = SubmittedJob.of(load_job(document))
    return submitted, open_run(submitted, Path("runs"), None).folder


def test_a_run_keeps_its_inputs_tells_what_became_of_them_and_puts_them_back() -> None:
    document = job(IMG2IMG, [{"prompt": "a", "image": "in/a.png"}, {"prompt": "b", "image": "in/a.png"}])
    submitted, run = opened(document)
    (kept,) = [path for path in (run.path / "inputs").rglob("*") if path.is_file()]
    assert kept.read_bytes() == Path("in/a.png").read_bytes()

    kept.write_bytes(Path("in/b.png").read_bytes())
    assert [flaw.kind for flaw in verify(run) if "inputs" in flaw.path] == ["changed"]
    with pytest.raises(InputError, match="is not the file that was kept"):
        DecodedInputs(run).of(submitted.items[0])
    opened(document)
    assert kept.read_bytes() == Path("in/a.png").read_bytes()

    # The run goes on from its own copy whatever becomes of the user's.
    Path("in/a.png").unlink()
    decoded = DecodedInputs(run)
    for item in [*submitted.items] * 3:
        assert decoded.of(item)["image"][0][0].getpixel((0, 0)) == (255, 0, 0)
    assert decoded.decoded == 1
    kept.unlink()
    assert [flaw.kind for flaw in verify(run) if "inputs" in flaw.path] == ["lost"]


def test_every_kind_of_input_is_decoded_once_by_a_worker(folder: Path) -> None:
    given = {
        "image": "a.png",
        "mask": "b.png",
        "control_image": "wide.png",
        "ip_adapter_image": "odd.png",
        "video": "9.mp4",
    }
    files = {field: (look_at(folder / "in" / name),) for field, name in given.items()}
    stored = as_stored(files, {field: (name,) for field, name in given.items()})
    items = [replace(make_item(number), inputs=stored) for number in range(3)]
    run = RunFolder.create(folder / "run", {}, items)
    keep(run, [file for each in files.values() for file in each])
    decoded = DecodedInputs(run)
    for item in items * 2:
        counts = {field: len(frames[0]) for field, frames in decoded.of(item).items()}
        assert counts == {field: 9 if field == "video" else 1 for field in given}
    assert decoded.decoded == len(given)


def test_decoded_inputs_are_bounded() -> None:
    submitted, run = opened(job(IMG2IMG, [{"prompt": "a", "image": "in/a.png"}, {"prompt": "b", "image": "in/b.png"}]))
    decoded = DecodedInputs(run, most_bytes=64 * 64 * 3)
    for item in [*submitted.items] * 2:
        decoded.of(item)
    assert decoded.decoded == 4


@pytest.mark.parametrize(
    "inputs",
    [
        {"picture": []},
        {"image": []},
        {"image": [{"sha256": "../../etc/passwd", "suffix": ".png"}]},
        {"image": [{"sha256": "a" * 64, "suffix": "/../x"}]},
    ],
)
def test_no_path_is_made_of_what_a_plan_says(inputs: Any) -> None:
    assert wrong_stored(inputs)
    with pytest.raises(ValueError, match="not an item"):
        WorkItem.from_dict({**make_item(0).to_dict(), "inputs": inputs})
    assert name_of("a" * 64, ".png").startswith("inputs/aa/")
