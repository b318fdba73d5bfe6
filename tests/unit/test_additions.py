"""What a job puts beside or in place of a checkpoint's components: diffusers' own bits, and wrong parts refused early."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from safetensors.torch import save_file

from genrun.adapters.adapter import Adapter
from genrun.adapters.checkpoint import kinds, parts
from genrun.adapters.checkpoint.diffusers_source import pipeline_for, task_of
from genrun.adapters.checkpoint.strict import LoadError
from genrun.adapters.pipeline import loading
from genrun.adapters.pipeline.additions import Additions
from genrun.adapters.pipeline.call_options import call_inputs
from genrun.adapters.pipeline.load_options import LoadOptions
from genrun.adapters.sampling.call import SamplingRequest
from genrun.adapters.sampling.generate import sample
from genrun.runner.job.plan import plan
from genrun.runner.memory.weights import components
from genrun.solvers import registry as solvers
from tests.fakes.jobs import ids, load_text, problems_of
from tests.tiny import build
from tests.tiny.additions import save_controlnet, save_ip_adapter, save_lora, save_t2i_adapter, save_union
from tests.tiny.checkpoints import save

df: Any = import_module("diffusers")
pytestmark = pytest.mark.e2e
AUTO = Adapter("auto", "any")
SOLVERS = ("sequential", "paradigms", "collocation")
SIZE = {"height": 64, "width": 64}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("additions")
    pipe = loading.load(AUTO, save("sd2", root), dtype="float32", device="cpu")
    save_controlnet(root / "control", pipe)
    save_t2i_adapter(root / "t2i", pipe)
    save_ip_adapter(root / "ip", pipe)
    save_lora(root / "lora.safetensors", {"unet": pipe.unet})
    return root


@pytest.fixture(autouse=True)
def here(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(root)
    return root


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(5).integers(0, 255, (64, 64, 3), np.uint8))


def loaded(folder: Path, **additions: Any) -> Any:
    options = LoadOptions("float32", additions=Additions(**additions))
    return loading.load(AUTO, folder, dtype=None, device="cpu", load_options=options)


def check_exact(pipe: Any, plain: Any, **inputs: Any) -> torch.Tensor:
    """Every solver, at tolerance 0, has the bits of diffusers' own call on the same pictures."""
    generator = torch.Generator().manual_seed(3)
    ways = {"num_inference_steps": 3, "output_type": "latent", "generator": generator, **SIZE, **inputs}
    expected = plain("a red circle", **ways).images
    request = SamplingRequest("a red circle", 3, {"steps": 3, **SIZE, "options": inputs})
    for name in SOLVERS:
        options = {} if name == "sequential" else {"workers": 3, "tolerance": 0.0}
        assert torch.equal(sample(pipe, AUTO, request, solvers.get(name)(**options)).latents, expected), name
    return expected


def test_controlnet_makes_diffusers_own_picture(root: Path) -> None:
    plain = df.StableDiffusionControlNetPipeline.from_pretrained(
        root / "sd2", controlnet=df.ControlNetModel.from_pretrained(root / "control")
    )
    pipe = loaded(root / "sd2", controlnet=(str(root / "control"),))
    assert type(pipe) is type(plain)
    one = check_exact(pipe, plain, image=picture())
    both = loaded(root / "sd2", controlnet=(str(root / "control"), str(root / "control")))
    pair = df.MultiControlNetModel([plain.controlnet, plain.controlnet])
    plain.register_modules(controlnet=pair)
    scales = {"controlnet_conditioning_scale": [0.6, 0.3]}
    assert not torch.equal(check_exact(both, plain, image=[picture(), picture()], **scales), one)


def test_t2i_adapter_makes_diffusers_own_picture(root: Path) -> None:
    adapter = df.T2IAdapter.from_pretrained(root / "t2i")
    plain = df.StableDiffusionAdapterPipeline.from_pretrained(root / "sd2", adapter=adapter)
    check_exact(loaded(root / "sd2", t2i_adapter=(str(root / "t2i"),)), plain, image=picture())


def test_ip_adapter_makes_diffusers_own_picture(root: Path) -> None:
    plain = df.StableDiffusionPipeline.from_pretrained(root / "sd2")
    plain.load_ip_adapter(root / "ip", subfolder="", weight_name="ip.safetensors", image_encoder_folder="image_encoder")
    plain.set_ip_adapter_scale(0.6)
    found = Additions.of({"ip_adapter": {"path": str(root / "ip"), "weight_name": "ip.safetensors", "scale": 0.6}})
    pipe = loaded(root / "sd2", ip_adapter=found.ip_adapter)
    one = check_exact(pipe, plain, ip_adapter_image=picture())
    # Both are looked at by the one adapter, as diffusers has it in a list of them.
    files = [[picture()], [ImageOps.invert(picture())]]
    both = call_inputs(type(plain).__name__, {"ip_adapter_image"}, {"ip_adapter_image": files})
    assert [len(each) for each in both["ip_adapter_image"]] == [2]
    assert not torch.equal(check_exact(pipe, plain, **both), one)


def test_task_chooses_the_class_that_shares_the_components(root: Path) -> None:
    pipe = loaded(root / "sd2", task="image-to-image")
    assert type(pipe) is df.StableDiffusionImg2ImgPipeline
    assert set(pipe.components) >= {"unet", "vae", "text_encoder"}
    plain = df.StableDiffusionImg2ImgPipeline.from_pretrained(root / "sd2")
    request = SamplingRequest("a red circle", 3, {"steps": 4, "options": {"image": picture(), "strength": 0.5}})
    expected = plain(
        "a red circle",
        image=picture(),
        strength=0.5,
        num_inference_steps=4,
        output_type="latent",
        generator=torch.Generator().manual_seed(3),
    ).images
    assert torch.equal(sample(pipe, AUTO, request, solvers.get("sequential")()).latents, expected)


@pytest.mark.parametrize(
    ("name", "task", "control", "wanted"),
    [
        ("StableDiffusionPipeline", None, None, "StableDiffusionPipeline"),
        ("StableDiffusionXLPipeline", "inpainting", "controlnet", "StableDiffusionXLControlNetInpaintPipeline"),
        ("StableDiffusion3Pipeline", "inpainting", "controlnet", "StableDiffusion3ControlNetInpaintingPipeline"),
        ("StableDiffusionXLPipeline", None, "t2i_adapter", "StableDiffusionXLAdapterPipeline"),
        ("FluxImg2ImgPipeline", "text-to-image", None, "FluxPipeline"),
        ("FluxImg2ImgPipeline", None, "controlnet", "FluxControlNetImg2ImgPipeline"),
        ("Flux2Pipeline", "image-to-image", None, "Flux2Pipeline"),
        ("KandinskyV22CombinedPipeline", "image-to-image", None, "KandinskyV22Img2ImgCombinedPipeline"),
        ("WanPipeline", "image-to-video", None, "WanImageToVideoPipeline"),
        ("CogVideoXPipeline", "video-to-video", None, "CogVideoXVideoToVideoPipeline"),
        ("AnimateDiffPipeline", "video-to-video", "controlnet", "AnimateDiffVideoToVideoControlNetPipeline"),
        ("StableDiffusionXLPipeline", None, "controlnet_union", "StableDiffusionXLControlNetUnionPipeline"),
        (
            "StableDiffusionXLPipeline",
            "image-to-image",
            "controlnet_union",
            "StableDiffusionXLControlNetUnionImg2ImgPipeline",
        ),
        ("DDPMPipeline", "inpainting", None, None),
    ],
)
def test_classes_of_tasks_are_those_of_diffusers(
    name: str, task: str | None, control: str | None, wanted: str | None
) -> None:
    assert pipeline_for(name, task, control) == wanted
    assert wanted is None or hasattr(df, wanted)


def test_task_follows_from_inputs() -> None:
    assert [task_of(each, kind) for each, kind in ((("image", "mask"), "image"), (("video",), "video"))] == [
        "inpainting",
        "video-to-video",
    ]
    assert [task_of(("image",), kind) for kind in ("image", "video")] == ["image-to-image", "image-to-video"]
    assert task_of((), "image") is None


def test_components_come_from_elsewhere_or_are_left_out(root: Path) -> None:
    save("sd3", root)
    other = build("sd3")
    with torch.no_grad():
        for parameter in other.transformer.parameters():
            parameter.mul_(0.9)
    other.transformer.save_pretrained(root / "mine")
    text = "model: {checkpoint: sd3, dtype: float32, components: {transformer: mine, text_encoder_3: null}}\n"
    (item,) = plan(load_text(f"{text}prompts: [a red circle]\nsampling: {{steps: 2}}\n"))
    assert item.fits()
    assert item.model["components"] == {"transformer": str(root / "mine"), "text_encoder_3": None}
    held = LoadOptions.of(item.model, "float32")
    pipe = loading.load(AUTO, root / "sd3", dtype=None, device="cpu", load_options=held)
    assert pipe.text_encoder_3 is None
    plain = df.StableDiffusion3Pipeline.from_pretrained(
        root / "sd3", transformer=other.transformer, text_encoder_3=None, tokenizer_3=None
    )
    check_exact(pipe, plain)
    # As diffusers documents it; and a checkpoint that was saved so, which diffusers takes only when it is told again.
    dropped = "model: {checkpoint: sd3, dtype: float32, components: {text_encoder_3: null, tokenizer_3: null}}\n"
    assert plan(load_text(f"{dropped}prompts: [a red circle]\n"))
    (problem,) = problems_of(f"{dropped.replace('text_encoder_3: null, ', '')}prompts: [a red circle]\n")
    assert "cannot go without tokenizer_3 beside text_encoder_3. Leave it out." in problem
    plain.save_pretrained(root / "saved")
    assert plan(load_text("model: {checkpoint: saved, dtype: float32}\nprompts: [a red circle]\n"))
    saved = loading.load(AUTO, root / "saved", dtype="float32", device="cpu")
    assert saved.text_encoder_3 is saved.tokenizer_3 is None
    assert saved.components.keys() == plain.components.keys()
    sizes = {part.name for part in components(root / "sd3", held)}
    assert sizes == {"transformer", "vae", "text_encoder", "text_encoder_2"}
    # By content: a copy of the folder is the same item, other weights another.
    shutil.copytree(root / "mine", root / "copy", dirs_exist_ok=True)
    again = plan(load_text(f"{text.replace('mine', 'copy')}prompts: [a red circle]\nsampling: {{steps: 2}}\n"))
    assert ids(again) == [item.id]


def test_a_tokenizer_comes_from_elsewhere_also_where_prompts_are_encoded_alone(root: Path) -> None:
    mine = shutil.copytree(root / "sd2" / "tokenizer", root / "tokens")
    data = json.loads((mine / "tokenizer.json").read_text())
    numbers = data["model"]["vocab"]
    numbers["a</w>"], numbers["z</w>"] = numbers["z</w>"], numbers["a</w>"]
    (mine / "tokenizer.json").write_text(json.dumps(data))
    text = "model: {checkpoint: sd2, dtype: float32, components: {tokenizer: tokens}}\nprompts: [a red circle]\n"
    (item,) = plan(load_text(text))
    held = LoadOptions.of(item.model, "float32")
    pipe = loading.load(AUTO, root / "sd2", dtype=None, device="cpu", load_options=held)
    alone = loading.load_encoders(AUTO, root / "sd2", device="cpu", revision=None, load_options=held)
    plain = df.StableDiffusionPipeline.from_pretrained(root / "sd2")
    plain.register_modules(tokenizer=type(plain.tokenizer).from_pretrained(mine))
    check_exact(pipe, plain)
    seen = [each.tokenizer("a red circle").input_ids for each in (pipe, alone, plain)]
    assert seen[0] == seen[1] == seen[2] != loaded(root / "sd2").tokenizer("a red circle").input_ids
    (mine / "tokenizer_config.json").write_text('{"tokenizer_class": "T5TokenizerFast"}')
    (problem,) = problems_of(text)
    assert (
        "'tokens' is a T5TokenizerFast, and StableDiffusionPipeline takes CLIPTokenizer there. Name another." in problem
    )


def test_component_in_one_file_or_in_gguf_has_the_folders_weights(root: Path) -> None:
    import gguf

    save("sd3", root)
    model = df.SD3Transformer2DModel.from_pretrained(root / "sd3", subfolder="transformer")
    save_file(model.state_dict(), root / "transformer.safetensors")
    writer = gguf.GGUFWriter(root / "transformer.gguf", "sd3")
    for name, tensor in model.state_dict().items():
        writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    plain = df.StableDiffusion3Pipeline.from_pretrained(root / "sd3")
    for file in ("transformer.safetensors", "transformer.gguf"):
        text = f"model: {{checkpoint: sd3, dtype: float32, components: {{transformer: {file}}}}}\n"
        (item,) = plan(load_text(f"{text}prompts: [a red circle]\nsampling: {{steps: 2}}\n"))
        held = LoadOptions.of(item.model, "float32")
        pipe = loading.load(AUTO, root / "sd3", dtype=None, device="cpu", load_options=held)
        check_exact(pipe, plain)
        assert {part.name for part in components(root / "sd3", held)} >= {"transformer", "text_encoder_3"}
    (root / "cut.gguf").write_bytes((root / "transformer.gguf").read_bytes()[:-4000])
    (problem,) = problems_of("model: {checkpoint: sd3, components: {transformer: cut.gguf}}\nprompts: [a]\n")
    assert "'cut.gguf' is damaged or was not downloaded to its end" in problem


LAYERS = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0"}
LAYERS |= {"conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
PARTS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "down_blocks.0.resnets.0": "input_blocks.1.0",
    "down_blocks.0.attentions.0": "input_blocks.1.1",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
    "down_blocks.1.resnets.0": "input_blocks.3.0",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "up_blocks.0.resnets.0": "output_blocks.0.0",
    "up_blocks.0.resnets.1": "output_blocks.1.0",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.1.1.conv",
    "up_blocks.1.resnets.0": "output_blocks.2.0",
    "up_blocks.1.attentions.0": "output_blocks.2.1",
    "up_blocks.1.resnets.1": "output_blocks.3.0",
    "up_blocks.1.attentions.1": "output_blocks.3.1",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def original_name(name: str) -> str:
    """The name that Stable Diffusion's own file has for a tensor of the tiny UNet."""
    part = next(each for each in PARTS if name.startswith(f"{each}."))
    layer, _, rest = name.removeprefix(f"{part}.").partition(".")
    layer = LAYERS.get(layer, layer) if ".resnets." in f"{part}." else layer
    return ".".join(filter(None, ("model.diffusion_model", PARTS[part], layer, rest)))


def test_checkpoint_in_one_file_loads_with_a_folder_of_configurations(root: Path) -> None:
    plain = df.StableDiffusionPipeline.from_pretrained(root / "sd2")
    tensors = {original_name(name): tensor for name, tensor in plain.unet.state_dict().items()}
    encoder = plain.text_encoder.state_dict()
    tensors |= {f"cond_stage_model.transformer.text_model.{name}": tensor for name, tensor in encoder.items()}
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, root / "whole.safetensors")
    shutil.copytree(root / "sd2", root / "bare", ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True)
    model = "checkpoint: whole.safetensors, config: bare, dtype: float32, components: {vae: sd2/vae}"
    (item,) = plan(load_text(f"model: {{{model}}}\nprompts: [a]\nsampling: {{steps: 2}}\n"))
    assert item.fits() and str(item.model["fingerprint"]).startswith("file:")
    held = LoadOptions.of(item.model, "float32")
    pipe = loading.load(AUTO, item.model["checkpoint"], dtype=None, device="cpu", load_options=held)
    check_exact(pipe, plain)
    assert {part.name for part in components(root / "bare", held)} == {"unet", "vae", "text_encoder"}
    # A tensor that is not in the file is told, not drawn.
    tensors.pop("model.diffusion_model.out.2.bias")
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, root / "whole.safetensors")
    with pytest.raises(LoadError, match=r"whole\.safetensors"):
        loading.load(AUTO, item.model["checkpoint"], dtype=None, device="cpu", load_options=held)


def damaged(root: Path, change: Any) -> None:
    shutil.rmtree(root / "bad", ignore_errors=True)
    shutil.copytree(root / "control", root / "bad")
    change(root / "bad")


BAD = {
    "cut": (
        lambda f: (f / "diffusion_pytorch_model.safetensors").write_bytes(
            (f / "diffusion_pytorch_model.safetensors").read_bytes()[:-8]
        ),
        "is damaged or was not downloaded to its end",
    ),
    "pointer": (
        lambda f: (f / "diffusion_pytorch_model.safetensors").write_text("version https://git-lfs.github.com/spec/v1"),
        "is a pointer of Git LFS",
    ),
    "link": (
        lambda f: ((f / "config.json").unlink(), (f / "config.json").symlink_to("gone")),
        "is a link to 'gone'",
    ),
    "empty": (lambda f: (f / "diffusion_pytorch_model.safetensors").unlink(), "no weights"),
    "class": (
        lambda f: (f / "config.json").write_text(json.dumps({"_class_name": "FluxControlNetModel"})),
        "is a FluxControlNetModel, and StableDiffusionControlNetPipeline takes ControlNetModel",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_controlnet_that_is_damaged_or_of_another_class_is_refused(root: Path, name: str) -> None:
    change, wanted = BAD[name]
    damaged(root, change)
    problems = problems_of("model:\n  checkpoint: sd2\n  controlnet: bad\nprompts: [a]\n")
    assert any(each.startswith("job.yaml:3:15: model.controlnet: ") and wanted in each for each in problems)


def test_controlnet_of_another_base_is_refused_from_headers(root: Path) -> None:
    wide = df.UNet2DConditionModel.from_config({**dict(build("sd2").unet.config), "cross_attention_dim": 24})
    df.ControlNetModel.from_unet(wide, conditioning_embedding_out_channels=(8, 8, 8, 16)).save_pretrained(root / "wide")
    problems = problems_of("model: {checkpoint: sd2, controlnet: [control, wide]}\nprompts: [a]\n")
    assert any("model.controlnet[1]: 'wide' is for another model: its " in each for each in problems)


FILES = {
    "lora.safetensors": "a LoRA",
    "control/diffusion_pytorch_model.safetensors": "a ControlNet",
    "t2i/diffusion_pytorch_model.safetensors": "a T2I-Adapter",
    "ip/ip.safetensors": "an IP-Adapter",
    "words.safetensors": "a textual inversion",
    "sd2/vae/diffusion_pytorch_model.safetensors": "a VAE",
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_kind_is_no_checkpoint(root: Path, name: str) -> None:
    save_file({"emb_params": torch.ones(1, 8)}, root / "words.safetensors")
    (problem,) = problems_of(f"model: {{checkpoint: {name}, config: sd2}}\nprompts: [a]\n")
    assert f"job.yaml:1:21: model.checkpoint: {name!r} is {FILES[name]}, and a checkpoint is wanted there. " in problem


def test_no_kind_is_seen_in_what_diffusers_reads_as_a_model() -> None:
    from diffusers.loaders import single_file_utils

    for model, keys in single_file_utils.CHECKPOINT_KEY_NAMES.items():
        names = [keys] if isinstance(keys, str) else list(keys)
        kind = kinds.kind_of(names)
        expected = {None, kinds.UNET, kinds.CONTROLNET if re.search("controlnet|scribble|_rgb", model) else kinds.VAE}
        assert kind in expected, model
        assert kind != kinds.VAE or not {"transformer", "unet"} & set(model.split("_")), model


@pytest.mark.parametrize("family", ["sd3", "wan21", "ltx2", "sana", "hunyuanvideo_i2v"])
def test_own_parts_of_every_family_are_taken(family: str) -> None:
    pipe = build(family)
    for name, part in pipe.components.items():
        taken = parts.classes_taken(type(pipe).__name__, name)
        if not isinstance(part, torch.nn.Module) or not taken:
            continue
        assert not parts.is_foreign(type(part).__name__, taken), name
        if not parts.UNSINGLE.search(name):
            parts.check_kind(list(part.state_dict()), name, name, taken)


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        ("0", None),
        ("[1]", None),
        (
            "null",
            "model.controlnet: it knows several kinds of control: say which as sampling.options.control_mode, 0 to 3.",
        ),
        ("4", "sampling.options.control_mode: 4: wanted a number from 0 to 3 or a list of them."),
        ("[canny]", "sampling.options.control_mode: ['canny']: wanted a number from 0 to 3 or a list of them."),
    ],
)
def test_a_controlnet_of_several_kinds_is_told_which_it_is(root: Path, mode: str, wanted: str | None) -> None:
    if not (root / "union").is_dir():
        save_union(root / "union", loading.load(AUTO, save("sdxl", root), dtype="float32", device="cpu"))
        picture().save(root / "control.png")
    text = (
        "model: {checkpoint: sdxl, controlnet: union}\nprompts: [{prompt: a, control_image: control.png}]\n"
        f"sampling: {{options: {{control_mode: {mode}}}}}\n"
    )
    if wanted is None:
        assert plan(load_text(text))
    else:
        assert any(wanted in each for each in problems_of(text))


def test_controlnet_union_makes_diffusers_own_picture(root: Path) -> None:
    if not (root / "union").is_dir():
        save_union(root / "union", loading.load(AUTO, save("sdxl", root), dtype="float32", device="cpu"))
    net = df.ControlNetUnionModel.from_pretrained(root / "union")
    plain = df.StableDiffusionXLControlNetUnionPipeline.from_pretrained(root / "sdxl", controlnet=net)
    pipe = loaded(root / "sdxl", controlnet=(str(root / "union"),))
    first = check_exact(pipe, plain, control_image=picture(), control_mode=0)
    assert not torch.equal(check_exact(pipe, plain, control_image=picture(), control_mode=2), first)


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        ("controlnet: a-pipe", "a-pipe is no folder. Name the folder that has its config.json."),
        ("components: {vae: a-pipe}", "'a-pipe' is no file, but a pipe or device."),
        ("loras: [{path: a-pipe}]", "'a-pipe' is no file, but a pipe or device."),
        ("controlnet: control, t2i_adapter: t2i", "no pipeline takes it and a ControlNet"),
        ("task: image-to-video", "has no pipeline for `task: image-to-video` beside StableDiffusionPipeline"),
        ("task: paint", "wanted "),
        ("t2i_adapter: control", "is a ControlNetModel, and StableDiffusionAdapterPipeline takes T2IAdapter"),
        ("ip_adapter: {path: ip, weight_name: none.safetensors}", "is missing"),
        ("ip_adapter: {path: control, weight_name: diffusion_pytorch_model.safetensors}", "is no IP-Adapter"),
        ("components: {vae: null}", "StableDiffusionPipeline cannot go without vae."),
        ("components: {vea: null}", "has no component 'vea'. Did you mean"),
        ("components: {vae: nowhere/at/all}", "neither a folder nor a hub id"),
        ("components: {vae: ip}", "ip/config.json is missing"),
        (
            "components: {vae: control}",
            "'control' is a ControlNetModel, and StableDiffusionPipeline takes AutoencoderKL there.",
        ),
        ("config: control", "is for a checkpoint that is one file"),
        ("components: {unet: lora.safetensors}", "'lora.safetensors' is a LoRA, and UNet2DConditionModel is wanted"),
        ("components: {unet: sd2/vae/diffusion_pytorch_model.safetensors}", "is a VAE, and UNet2DConditionModel"),
        ("components: {vae: sd2/unet/diffusion_pytorch_model.safetensors}", "is a UNet, and AutoencoderKL is wanted"),
        ("components: {vae: sd2/text_encoder}", "is a CLIPTextModel, and StableDiffusionPipeline takes AutoencoderKL"),
        ("components: {text_encoder: sd2/vae}", "is a AutoencoderKL, and StableDiffusionPipeline takes CLIPTextModel"),
        ("components: {text_encoder: lora.safetensors}", "is a file, and diffusers reads no text_encoder from one"),
        ("controlnet: lora.safetensors", "'lora.safetensors' is a file. Name the folder of the ControlNet"),
        ("controlnet: sd2", "'sd2' is the folder of a pipeline. Name that of the ControlNet in it."),
        ("loras: [{path: control}]", "'control' holds no layers of a LoRA, but 'controlnet_"),
    ],
)
def test_parts_that_do_not_fit_are_refused_with_their_place(root: Path, model: str, wanted: str) -> None:
    if not (root / "a-pipe").exists():
        os.mkfifo(root / "a-pipe")
    problems = problems_of(f"model: {{checkpoint: sd2, {model}}}\nprompts: [a]\n")
    assert any(each.startswith("job.yaml:1:") and wanted in each for each in problems), problems


def test_another_file_of_a_folder_of_ip_adapters_makes_other_items(root: Path) -> None:
    picture().save(root / "look.png")
    shutil.copy(root / "ip" / "ip.safetensors", root / "ip" / "plus.safetensors")
    made = [
        plan(
            load_text(
                f"model: {{checkpoint: sd2, ip_adapter: {{path: ip, weight_name: {name}}}}}\n"
                "prompts: [{prompt: a, ip_adapter_image: look.png}]\n"
            )
        )[0].id
        for name in ("ip.safetensors", "plus.safetensors")
    ]
    assert len({*made}) == 2


@pytest.mark.parametrize(
    "model",
    [
        "loras: [{path: lora.safetensors, weight: 0.5}]",
        "controlnet: control",
        "ip_adapter: {path: ip, weight_name: ip.safetensors}",
        "components: {vae: sd2/vae}",
    ],
)
def test_a_calibration_samples_with_the_additions_of_its_job_wherever_it_is_called(
    root: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genrun.runner.api.calibrating import _document, _targets, _write_prompts, draw
    from genrun.runner.api.jobs import load_job

    picture().save(root / "look.png")
    look = {"controlnet": ", control_image: look.png", "ip_adapter": ", ip_adapter_image: look.png"}
    prompt = f"{{prompt: a{look.get(model.partition(':')[0], '')}}}"
    solver = "{kind: collocation, tolerance: 0.05, workers: 1}"
    text = f"model: {{checkpoint: sd2, {model}}}\nprompts: [{prompt}]\nsampling: {{steps: 4}}\nsolver: {solver}\n"
    (root / "calibrated.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    job = load_job(root / "calibrated.yaml", [f"output.dir={tmp_path}"])
    (target,) = _targets(job)
    prompts = _write_prompts(tmp_path, target.key, draw(target.cell, 1, "any"))
    made = plan(load_job(_document(job, target.cell, prompts, [target.subject["solver"]])))
    assert {item.id for item in plan(job)} < {item.id for item in made}
