"""How a model's weights are held: number types, offloading, tiles, compilation and quantisation; what is refused."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.hooks.group_offloading import _is_group_offload_enabled
from torch import nn

from genrun.adapters.adapter import Adapter
from genrun.adapters.checkpoint.strict import LoadError
from genrun.adapters.pipeline import load_options
from genrun.adapters.pipeline.load_options import PACKAGES, LoadOptions
from genrun.adapters.pipeline.loading import load, load_encoders
from genrun.adapters.pipeline.placement import can_save_memory, saving_memory
from genrun.adapters.sampling.call import SamplingRequest, decode
from genrun.adapters.sampling.generate import sample
from genrun.solvers import registry
from tests.fakes.jobs import items_of, problems_of
from tests.tiny import PROMPT
from tests.tiny.checkpoints import save

AUTO = Adapter("auto", "any")
REQUEST = SamplingRequest(PROMPT, 5, {"steps": 2, "height": 32, "width": 32, "guidance_scale": 3.0})
JOB = "prompts: [a red kite]\nmodel:\n  adapter: tiny-video\n"


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("sd3", tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def expected(sd3: Path) -> torch.Tensor:
    return latents(load(AUTO, sd3, dtype="float32", device="cpu"))


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    torch._dynamo.reset()


def latents(pipe: Any) -> torch.Tensor:
    return sample(pipe, AUTO, REQUEST, registry.get("ropa")(tolerance=0.0)).latents


def held(folder: Path, **how: Any) -> Any:
    return load(AUTO, folder, dtype=None, device="cpu", load_options=LoadOptions(**how))


def test_each_component_has_the_dtype_it_is_given(sd3: Path) -> None:
    pipe = held(sd3, dtype={"default": "bfloat16", "vae": "float32", "text_encoder_3": "float16"})
    found = {name: part.dtype for name, part in pipe.components.items() if isinstance(part, nn.Module)}
    assert found == {
        "transformer": torch.bfloat16,
        "vae": torch.float32,
        "text_encoder": torch.bfloat16,
        "text_encoder_2": torch.bfloat16,
        "text_encoder_3": torch.float16,
    }
    stage = load_encoders(AUTO, sd3, device="cpu", revision=None, load_options=LoadOptions({"default": "bfloat16"}))
    assert stage.transformer.dtype == torch.bfloat16


def test_a_vae_in_float32_decodes_bfloat16_latents(sd3: Path) -> None:
    pipe = held(sd3, dtype={"default": "bfloat16", "vae": "float32"})
    found = latents(pipe)
    assert found.dtype == torch.bfloat16
    precise = decode(held(sd3, dtype="float32"), AUTO, REQUEST, found.float()).frames
    assert (decode(pipe, AUTO, REQUEST, found).frames == precise).all()


@pytest.mark.parametrize("offload", ["model", "sequential", "group"])
def test_offloading_does_nothing_on_the_cpu(sd3: Path, expected: torch.Tensor, offload: Any) -> None:
    assert torch.equal(latents(held(sd3, dtype="float32", offload=offload)), expected)


def test_group_offloading_goes_through_diffusers_and_keeps_the_bits(sd3: Path, expected: torch.Tensor) -> None:
    from genrun.adapters.pipeline import placement

    pipe = held(sd3, dtype="float32")
    pipe.enable_group_offload(torch.device("cpu"), **placement._groups("cpu"))
    assert _is_group_offload_enabled(pipe.transformer)
    assert torch.equal(latents(pipe), expected)


def test_tiling_and_slicing_are_switched_on_and_off(sd3: Path) -> None:
    pipe = held(sd3, tiling=True)
    assert (pipe.vae.use_tiling, pipe.vae.use_slicing) == (True, False)
    assert can_save_memory(pipe) == ["slicing"]
    with saving_memory(pipe, can_save_memory(pipe)):
        assert pipe.vae.use_slicing and can_save_memory(pipe) == []
    assert (pipe.vae.use_tiling, pipe.vae.use_slicing) == (True, False)


def test_a_pipeline_without_a_vae_refuses_tiles(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"model.vae.tiling: DDPMPipeline cannot do it"):
        held(save("ddpm", tmp_path), tiling=True)


COMPILED = [
    ("sd3", True, {"SD3Transformer2DModel"}),
    ("sd3", "regional", {"JointTransformerBlock"}),  # diffusers names it as a block that is not split
    ("wan22", "regional", {"WanTransformerBlock"}),
]


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize(("family", "how", "blocks"), COMPILED)
def test_denoisers_are_compiled_whole_or_by_the_blocks_they_repeat(
    family: str, how: Any, blocks: set[str], tmp_path: Path
) -> None:
    pipe = held(save(family, tmp_path), dtype="float32", compile=how)
    for name in {"transformer", "transformer_2"} & {*pipe.components}:
        parts = pipe.components[name].modules()
        assert {type(part).__name__ for part in parts if part._compiled_call_impl is not None} == blocks


@pytest.mark.e2e
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_compiled_kernels_make_the_same_clip_but_for_rounding(tmp_path: Path) -> None:
    folder = save("wan21", tmp_path)
    request = SamplingRequest(
        PROMPT, 5, {"steps": 1, "height": 16, "width": 16, "num_frames": 5, "guidance_scale": 1.0}
    )
    plain, compiled = (
        sample(held(folder, dtype="float32", compile=how), AUTO, request, registry.get("sequential")()).latents
        for how in (False, "regional")
    )
    assert torch.allclose(plain, compiled, atol=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1


def test_regional_compilation_is_refused_where_diffusers_names_no_blocks(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="names no repeated blocks of UNet2DModel"):
        held(save("ddpm", tmp_path), compile="regional")


def test_components_that_a_checkpoint_lacks_are_refused_when_it_is_loaded(sd3: Path) -> None:
    with pytest.raises(LoadError, match="has no component 'unet'") as caught:
        held(sd3, dtype={"default": "float32", "unet": "float16"})
    assert "transformer" in caught.value.remedy


@pytest.mark.filterwarnings("ignore:.QuantoConfig. is deprecated:FutureWarning")
def test_quanto_has_a_config_for_each_kind_of_component() -> None:
    wanted = {"weights_dtype": "int4", "modules_to_not_convert": ["proj_out"]}
    made = load_options._quanto(wanted, ["transformer", "text_encoder_2"])
    assert (made["transformer"].weights_dtype, made["text_encoder_2"].weights) == ("int4", "int4")
    assert {type(each).__module__.partition(".")[0] for each in made.values()} == {"diffusers", "transformers"}
    assert all(each.modules_to_not_convert == ["proj_out"] for each in made.values())
    with pytest.raises(ValueError, match=r"activations: there is no such option; there are weights_dtype"):
        load_options._quanto({"activations": "int8"}, ["transformer"])


@pytest.mark.parametrize("backend", PACKAGES)
def test_a_backend_that_is_not_installed_is_refused_with_the_command_that_installs_it(sd3: Path, backend: str) -> None:
    if load_options.missing(backend) is None:
        assert importlib.util.find_spec(PACKAGES[backend])
        return
    with pytest.raises(LoadError, match=f"{backend} is not installed") as caught:
        held(sd3, quantization={"backend": backend})
    assert caught.value.remedy == f"Install it: pip install {PACKAGES[backend]}"
    assert problems_of(f"{JOB}  quantization: {{backend: {backend}}}\n") == [
        f"job.yaml:4:18: model.quantization.backend: {backend} is not installed: pip install {PACKAGES[backend]}"
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("dtype: {vae: half}", "4:10: model.dtype: wanted float32, bfloat16 or float16, got a mapping."),
        ("offload: all", "4:12: model.offload: wanted none, model, sequential or group, got 'all'."),
        ("compile: max", "4:12: model.compile: wanted true, false or regional, got 'max'."),
        ("vae: {tilling: true}", "4:9: model.vae.tilling: unknown option. Did you mean 'tiling'?"),
        ("vae: {tiling: 1}", "4:17: model.vae.tiling: wanted true or false, got 1."),
        (
            "{device: cpu, offload: model}",
            "4:26: model.offload: there is nothing to offload from on device: cpu. Leave one of the two out.",
        ),
    ],
)
def test_what_cannot_be_held_so_is_refused_before_anything_loads(line: str, message: str) -> None:
    text = f"{JOB}  {line}\n" if line[0] != "{" else f"prompts: [a]\n\n\nmodel: {{adapter: tiny-video, {line[1:]}\n"
    found = problems_of(text)
    assert [each.split(": ", 1)[1] for each in found] == [message.split(": ", 1)[1]]
    assert found[0].startswith("job.yaml:4:")


def test_components_are_checked_against_a_folder(sd3: Path) -> None:
    job = f"prompts: [a]\nmodel:\n  checkpoint: {sd3}\n  dtype: {{transfomer: float16}}\n"
    assert problems_of(job) == [
        "job.yaml:4:11: model.dtype.transfomer: the checkpoint has no component 'transfomer'. "
        "Did you mean 'transformer'?"
    ]


def test_an_items_id_changes_with_what_changes_its_pixels_and_with_nothing_else() -> None:
    def item(line: str = "dtype: float32") -> Any:
        return items_of(f"{JOB}  {line}\n")[0]

    plain = item()
    for line in ("offload: model", "vae: {slicing: true}", "encode: each", "compile: false"):
        assert item(line).id == plain.id
    others = ["vae: {tiling: true}", "compile: true", "compile: regional", "dtype: {vae: float16}"]
    assert len({plain.id, *(item(line).id for line in others)}) == 1 + len(others)
    assert item("vae: {tiling: true}").model["vae"] == {"tiling": True, "slicing": False}
    assert item("dtype: {vae: float16}").model["dtype"] == {"default": "float32", "vae": "float16"}
    assert "offload" not in plain.model
