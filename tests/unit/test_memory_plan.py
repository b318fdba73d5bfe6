"""What memory a rank needs is told from a checkpoint's headers: weights to the byte, modes in order, nothing loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from genrun.adapters.adapter import Adapter
from genrun.adapters.pipeline.load_options import LoadOptions
from genrun.adapters.pipeline.loading import load
from genrun.runner.cli import main
from genrun.runner.errors import UsageError
from genrun.runner.job.checkpoint import Checkpoint
from genrun.runner.memory.estimate import (
    MemoryEstimate,
    MemorySubject,
    Shape,
    decoder_numbers,
    denoiser_numbers,
    estimates,
    fastest,
    folder_of,
    latent_shape,
    shape_of,
)
from genrun.runner.memory.weights import Component, components
from tests.tiny import FAMILIES, OF_EACH_LOOP, build, call_kwargs
from tests.tiny.checkpoints import save

AUTO = Adapter("auto", "any")
GIB = 2**30


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


def held_bytes(model: nn.Module) -> int:
    """Of all that is saved, each storage once: T5 has its table under two names."""
    storages = {each.untyped_storage().data_ptr(): each for each in model.state_dict().values() if each.numel()}
    return sum(each.numel() * each.element_size() for each in storages.values())


@pytest.mark.unit_part(family=OF_EACH_LOOP)
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_told_to_the_byte(family: str, root: Path) -> None:
    found = {part.name: part for part in components(save(family, root), LoadOptions("float32"))}
    models = {name: part for name, part in build(family).components.items() if isinstance(part, nn.Module)}
    assert found.keys() == models.keys()
    for name, model in models.items():
        assert found[name].total_bytes == held_bytes(model), name
        assert found[name].kind == type(model).__name__
        assert 0 < found[name].layer_bytes <= found[name].group_bytes <= found[name].total_bytes


def test_weights_are_counted_as_they_are_held_not_as_they_are_stored(root: Path) -> None:
    folder, load_options = save("sd3", root), LoadOptions({"default": "bfloat16", "vae": "float32"})
    pipe = load(AUTO, folder, dtype=None, device="cpu", load_options=load_options)
    for part in components(folder, load_options):
        real = sum(each.numel() * each.element_size() for each in getattr(pipe, part.name).parameters())
        assert 0 <= part.total_bytes - real < 0.1 * real, part.name


def test_a_layer_and_a_group_are_those_of_the_model() -> None:
    sizes = {
        "blocks.0.a.weight": 8,
        "blocks.0.a.bias": 2,
        "blocks.0.b.weight": 6,
        "blocks.1.a.weight": 9,
        "head.weight": 5,
    }
    part = Component("transformer", "Any", {}, {**sizes, "blocks.2.a.weight": 1})
    assert part.total_bytes == 31
    assert part.layer_bytes == 10
    assert part.group_bytes == 5 + 16 + 9


def test_four_bits_take_about_a_quarter_of_sixteen(root: Path) -> None:
    folder = save("flux", root)
    plain = {part.name: part.total_bytes for part in components(folder, LoadOptions("bfloat16"))}
    four = LoadOptions("bfloat16", quantization={"backend": "bitsandbytes_4bit", "components": ["transformer"]})
    found = {part.name: part.total_bytes for part in components(folder, four)}
    assert 0.25 < found["transformer"] / plain["transformer"] < 0.6
    assert found["vae"] == plain["vae"]


VIDEOS = ["hunyuanvideo", "wan21", "wan22_5b", "cogvideox_ddim", "ltx"]


class _SeenError(Exception):
    """Carries the shape of the latents out of a VAE that need not decode them."""


@pytest.mark.parametrize("family", ["sd3", "flux", "qwenimage", *VIDEOS])
def test_latents_have_the_pipelines_own_shape(family: str, root: Path) -> None:
    folder, call = save(family, root), call_kwargs(family)
    vae = next(part for part in components(folder, LoadOptions()) if part.name == "vae")
    shape = Shape(call["height"], call["width"], call.get("num_frames", 1))
    pipe = build(family)

    def decode(latents: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        raise _SeenError(list(latents.shape))

    pipe.vae.decode = decode
    with pytest.raises(_SeenError) as seen:
        pipe(**{**call, "num_inference_steps": 2, "output_type": "pt"})
    channels, frames, height, width = latent_shape(vae.kind, vae.config, shape)
    has_frames = len(seen.value.args[0]) == 5
    assert seen.value.args[0] == [1, channels, *([frames] if has_frames else []), height, width]


def test_modes_are_ordered_by_what_they_hold(root: Path) -> None:
    found = estimates(MemorySubject(save("wan22", root), LoadOptions("bfloat16"), Shape(480, 832, 81), 50))
    whole = [each.peak_bytes for each in found if not each.tiled]
    assert [each.mode for each in found if not each.tiled] == ["none", "model", "group", "sequential"]
    assert whole == sorted(whole, reverse=True)
    for plain, tiled in zip(found[::2], found[1::2], strict=True):
        assert tiled.denoise_bytes == plain.denoise_bytes


def test_the_fastest_mode_that_fits_is_chosen() -> None:
    found = [
        MemoryEstimate("none", False, 1, 90, 9),
        MemoryEstimate("model", False, 1, 40, 60),
        MemoryEstimate("model", True, 1, 40, 9),
    ]
    assert fastest(found, 100) is found[0]
    assert fastest(found, 50) is found[2]
    assert found[2].options == "offload: model, vae: {tiling: true, slicing: true}"
    assert fastest(found, 30) is None


def test_what_a_model_holds_grows_with_tokens_and_pixels() -> None:
    config: dict[str, Any] = {"num_attention_heads": 12, "attention_head_dim": 128, "patch_size": [1, 2, 2]}
    small, large = (denoiser_numbers("WanTransformer3DModel", config, (16, t, 60, 104)) for t in (11, 21))
    assert large / small == pytest.approx((21 * 1560 + 512) / (11 * 1560 + 512))
    vae, shape = {"block_out_channels": [128]}, Shape(1024, 1024)
    whole, tiled = (decoder_numbers("AutoencoderKL", vae, shape, tiled=tiled) for tiled in (False, True))
    assert whole > 10 * tiled


def test_the_size_of_the_pictures_is_the_jobs_or_the_checkpoints(root: Path) -> None:
    assert shape_of(save("sd3", root), {}) == Shape(64, 64)
    assert shape_of(save("cogvideox_ddim", root), {"height": 48}) == Shape(48, 32, 9)
    with pytest.raises(ValueError, match=r"sampling.height is not known: set it"):
        shape_of(save("wan21", root), {})


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["plan", "job.yaml", "--memory", *arguments])


@pytest.fixture
def job(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = f"prompts: [a]\nmodel: {save('sd3', root)}\nsampling: {{steps: 4, height: 1024, width: 1024}}\n"
    Path("job.yaml").write_text(text, encoding="utf-8")


@pytest.mark.usefixtures("job")
def test_plan_says_what_fits(root: Path) -> None:
    found = run("--gpu-memory", "24GB", "--set", "matrix.sampling.height=[512, 1024]")
    assert found.exit_code == 0, found.stderr
    assert found.stdout.count("sequential") == 4
    assert "yes" in found.stdout and "All of it fits" in found.stderr
    none = run("--gpu-memory", "100MB")
    assert none.exit_code == 1
    assert "Nothing fits: the least is 0." in none.stderr
    rows = json.loads(run("--json", "--gpu-memory", "24GiB").stdout)
    assert rows[0]["fits"] == {"mode": "none", "tiled": False}
    assert len(rows[0]["modes"]) == 8
    assert rows[0]["shape"] == {"height": 1024, "width": 1024, "num_frames": 1}


@pytest.mark.usefixtures("job")
@pytest.mark.parametrize("size", ["much", "0", "24 parsecs"])
def test_a_size_that_is_none_is_refused(size: str) -> None:
    found = run("--gpu-memory", size)
    assert (found.exit_code, "is no size such as 24GB" in found.stderr) == (2, True)


@pytest.mark.usefixtures("job")
def test_nothing_is_loaded_for_it() -> None:
    code = (
        "import sys\nfrom genrun.runner.cli import main\n"
        "main(['plan', 'job.yaml', '--memory'], standalone_mode=False)\n"
        "print(sorted({'torch', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split("\n")[-2] == "[]"


def test_a_hub_id_that_is_not_in_the_cache_is_named_with_what_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match=r"org/model: is not on this machine") as caught:
        folder_of(Checkpoint("org/model", None), None)
    assert "hf download org/model" in caught.value.remedy


def test_bytes_of_a_dtype_are_torchs() -> None:
    from genrun.runner.memory.weights import BYTES

    assert {name: getattr(torch, name).itemsize for name in BYTES} == BYTES
