"""A checkpoint that cannot be loaded: what is wrong with it, by name, and what to do; before it loads if possible."""

from __future__ import annotations

import importlib.util
import json
import random
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import errors as hub
from safetensors.torch import load_file, save_file

from genrun.adapters import registry
from genrun.adapters.adapter import Adapter
from genrun.adapters.checkpoint.pipeline_classes import package_of_processor
from genrun.adapters.checkpoint.strict import LoadError, explain
from genrun.adapters.pipeline.load_options import LoadOptions
from genrun.adapters.pipeline.loading import download, load, load_encoders
from genrun.runner.job import load as load_job
from genrun.runner.job.checkpoint import fingerprint
from genrun.runner.job.errors import JobFileError
from genrun.runner.job.options import Registries
from genrun.runner.store.folder import RunFolder
from genrun.runner.worker.engine import Engine
from genrun.runner.worker.failures import describe
from tests.fakes.items import document, make_item
from tests.tiny.checkpoints import save

# Untyped on purpose: diffusers exports nothing to type checkers.
df: Any = import_module("diffusers")

AUTO = Adapter("auto", "any")
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("sd3", tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture
def broken(sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to spoil, in the current folder."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(sd3, tmp_path / "weights"))


def error_of(folder: Path | str, adapter: Adapter = AUTO, **options: Any) -> LoadError:
    with pytest.raises(LoadError) as caught:
        load(adapter, folder, dtype="float32", device="cpu", **options)
    assert str(caught.value).startswith(f"{folder}: ")
    return caught.value


def problem(model: str = "weights") -> str:
    Path("job.yaml").write_text(f"prompts: [a]\nmodel: {model}\nsampling: {{steps: 2}}\n", encoding="utf-8")
    with pytest.raises(JobFileError) as caught:
        load_job("job.yaml", (), {}, Registries.installed())
    return str(caught.value)


def test_the_wrong_checkpoint_for_an_adapter(broken: Path) -> None:
    assert problem("{adapter: flux, checkpoint: weights}") == (
        "job.yaml:2:36: model.checkpoint: holds a StableDiffusion3Pipeline, and flux wants a FluxPipeline. "
        "Name another folder, or use `adapter: auto`."
    )
    error = error_of(broken, registry.get("flux"))
    assert "holds a StableDiffusion3Pipeline, and the model 'flux' wants a FluxPipeline" in str(error)
    assert "adapter: auto" in error.remedy


@pytest.mark.parametrize("there", [False, True])
def test_a_processor_of_clips_needs_a_package(broken: Path, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    index = json.loads((broken / "model_index.json").read_text())
    index["tokenizer"] = ["transformers", "Qwen2VLProcessor"]
    (broken / "model_index.json").write_text(json.dumps(index))
    real, spec = importlib.util.find_spec, importlib.util.find_spec("json") if there else None

    def found(name: str, *rest: Any) -> Any:
        return spec if name == "torchvision" else real(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", found)
    package_of_processor.cache_clear()
    message = "its tokenizer, a Qwen2VLProcessor, needs torchvision, which is not installed: pip install torchvision."
    if there:
        assert package_of_processor("Qwen2VLProcessor") == package_of_processor("CLIPProcessor") == ""
    else:
        assert message in problem()
    package_of_processor.cache_clear()


def test_a_package_that_the_libraries_miss_is_named() -> None:
    said = "\nQwen2VLVideoProcessor requires the Torchvision library but it was not found in your environment."
    error = explain("org/name", ImportError(said))
    assert str(error).startswith(f"org/name: needs a package that is not installed, or too old: {said.strip()}")
    assert error.remedy.startswith("Install or upgrade it with pip (`genrun doctor` names what is too old)")


@pytest.mark.parametrize("component", ["vae", "text_encoder_2", "tokenizer"])
def test_a_component_that_is_missing(broken: Path, component: str) -> None:
    shutil.rmtree(broken / component)
    assert f"'weights' cannot be used: its component '{component}' is missing. Download it again" in problem()
    assert f"its component '{component}' is missing" in str(error_of(broken))


def test_a_component_without_weights(broken: Path) -> None:
    (broken / "transformer" / WEIGHTS).unlink()
    assert "its component 'transformer' has no weights (*.safetensors)" in problem()
    error = error_of(broken)
    assert "its component 'transformer' has no weights" in str(error)
    assert "hf download" in error.remedy


def test_a_file_that_was_not_downloaded_to_its_end(broken: Path) -> None:
    path = broken / "transformer" / WEIGHTS
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    message = f"transformer/{WEIGHTS} is damaged or was not downloaded to its end: it has "
    assert (
        f"{message}{len(data) // 2:,} bytes of {len(data):,}. Download it again: what is complete is kept." in problem()
    )
    assert message in str(error_of(broken))
    path.write_bytes(data[:100])
    assert "it is no safetensors file, or only its beginning" in problem()


def test_a_shard_that_is_missing(broken: Path) -> None:
    df.SD3Transformer2DModel.from_pretrained(broken / "transformer").save_pretrained(
        broken / "transformer", max_shard_size="20KB"
    )
    (broken / "transformer" / WEIGHTS).unlink(missing_ok=True)
    shards = sorted((broken / "transformer").glob("*-of-*.safetensors"))
    assert len(shards) > 1
    shards[1].unlink()
    assert f"transformer/{shards[1].name} is missing" in problem()


@pytest.mark.parametrize("component", ["transformer", "vae", "text_encoder"])
def test_weights_of_another_shape_than_the_configuration_says(broken: Path, component: str) -> None:
    path = next((broken / component).glob("*.safetensors"))
    tensors = load_file(path)
    name = (
        next(name for name in sorted(tensors) if name.endswith("weight") and tensors[name].ndim == 2)
        if component != "vae"
        else "decoder.conv_in.weight"
    )
    save_file({**tensors, name: torch.cat([tensors[name], tensors[name]]).contiguous()}, path, {"format": "pt"})
    error = error_of(broken)
    assert "the weights have another shape than the configuration says" in str(error)
    assert f"{name!r} in {component}/{path.name} is " in str(error)
    assert "get both from one place" in error.remedy


def change(path: Path, work: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(work(load_file(path)), path, {"format": "pt"})


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("component", ["transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"])
def test_a_tensor_that_is_missing_in_any_component_is_named(broken: Path, component: str, seed: int) -> None:
    path = next((broken / component).glob("*.safetensors"))
    name = random.Random(seed).choice(sorted(load_file(path)))
    change(path, lambda tensors: {key: tensor for key, tensor in tensors.items() if key != name})
    error = error_of(broken)
    assert f"{component}/{path.name} lacks the tensor" in str(error)
    assert repr(name) in str(error)
    assert "hf download" in error.remedy


def test_an_embedding_that_is_shared_may_lie_under_either_name(broken: Path) -> None:
    path = next((broken / "text_encoder_3").glob("*.safetensors"))
    either = {"shared.weight": "encoder.embed_tokens.weight"}
    change(path, lambda tensors: {either.get(key, key): tensor for key, tensor in tensors.items()})
    load(AUTO, broken, dtype="float32", device="cpu")
    change(path, lambda tensors: {key: tensor for key, tensor in tensors.items() if key not in either.values()})
    assert "lacks the tensors 'encoder.embed_tokens.weight', 'shared.weight'" in str(error_of(broken))


def test_tensors_that_a_model_has_no_use_for_are_let_be(broken: Path) -> None:
    path = next((broken / "text_encoder").glob("*.safetensors"))
    change(path, lambda tensors: {**tensors, "vision_model.norm": torch.ones(2), "logit_scale": torch.ones(1)})
    load(AUTO, broken, dtype="float32", device="cpu")


@pytest.mark.parametrize("component", ["transformer", "text_encoder"])
def test_a_tensor_under_another_name_is_told_with_that_name(broken: Path, component: str) -> None:
    path = next((broken / component).glob("*.safetensors"))
    name = next(name for name in load_file(path) if name.endswith("bias"))
    change(path, lambda tensors: {f"{key}_" if key == name else key: tensor for key, tensor in tensors.items()})
    said = str(error_of(broken))
    assert f"lacks the tensor {name!r}; it has the tensor '{name}_', which" in said


def test_a_denoiser_that_has_more_blocks_than_its_configuration_says(broken: Path) -> None:
    one, more = "transformer_blocks.1.", "transformer_blocks.2."
    change(
        broken / "transformer" / WEIGHTS,
        lambda tensors: {**tensors, **{key.replace(one, more): tensor.clone() for key, tensor in tensors.items()}},
    )
    error = error_of(broken)
    assert f"has the tensors '{more}attn." in str(error)
    assert "the configuration of SD3Transformer2DModel has fewer blocks" in str(error)
    assert "get both from one place" in error.remedy


def test_a_component_that_cannot_be_loaded_is_named(broken: Path) -> None:
    path = broken / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_train_timesteps": "x"}))
    error = error_of(broken)
    assert "its component 'scheduler' cannot be loaded: TypeError" in str(error)
    assert "hf download" in error.remedy


def test_a_repository_that_has_weights_in_one_variant_is_downloaded_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def by_variant(source: str, *, variant: str | None, **ways: Any) -> str:
        asked.append(variant)
        if variant is None:
            raise OSError("Could not find the necessary `safetensors` weights in [...] (variant=None)")
        return "folder"

    files = ["vae/diffusion_pytorch_model.fp16.safetensors", "text_encoder/model.safetensors"]
    monkeypatch.setattr("huggingface_hub.list_repo_files", lambda *_, **__: files)
    pipeline = SimpleNamespace(download=by_variant)
    assert download(pipeline, "org/name", None, None, {}) == Path("folder")
    assert asked == [None, "fp16"]
    files.append("vae/diffusion_pytorch_model.ema.safetensors")
    with pytest.raises(OSError, match="necessary `safetensors` weights"):
        download(pipeline, "org/name", None, None, {})


def test_a_checkpoint_that_starts_from_a_picture_asks_each_prompt_for_one(broken: Path) -> None:
    index = json.loads((broken / "model_index.json").read_text())
    (broken / "model_index.json").write_text(json.dumps({**index, "_class_name": "StableDiffusion3Img2ImgPipeline"}))
    assert problem() == (
        "job.yaml:1:11: image: missing: StableDiffusion3Img2ImgPipeline cannot do without. Give each prompt one, such as "
        '{"prompt": ..., "image": "start.png"}.'
    )


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("SkyReelsV2DiffusionForcingPipeline", "steps each frame with a scheduler and at times of its own"),
    ],
)
def test_a_loop_that_no_solver_follows_is_refused_with_the_job(broken: Path, kind: str, said: str) -> None:
    index = json.loads((broken / "model_index.json").read_text())
    (broken / "model_index.json").write_text(json.dumps({**index, "_class_name": kind}))
    message = problem()
    assert message.startswith(f"job.yaml:2:8: model.checkpoint: {kind} {said}")
    assert message.endswith(": call the pipeline without genrun.")


def test_a_pipeline_that_this_diffusers_does_not_have(broken: Path) -> None:
    index = json.loads((broken / "model_index.json").read_text())
    (broken / "model_index.json").write_text(json.dumps({**index, "_class_name": "TomorrowsPipeline"}))
    error = error_of(broken)
    assert "has no pipeline TomorrowsPipeline" in str(error)
    assert "pip install -U diffusers" in error.remedy


def hub_error(kind: type[hub.HfHubHTTPError], status: int) -> hub.HfHubHTTPError:
    response: Any = SimpleNamespace(headers={}, request=None, status_code=status)
    return kind("403 Client Error. Cannot access gated repo", response=response)


HUB_ERRORS = [
    (hub_error(hub.GatedRepoError, 403), "is gated", "Agree on https://huggingface.co/org/model, then log in"),
    (hub_error(hub.RepositoryNotFoundError, 404), "has no such model, or it is private", "Check the name"),
    (hub_error(hub.RevisionNotFoundError, 404), "has no such revision", "https://huggingface.co/org/model/commits"),
    (hub.OfflineModeIsEnabled("offline"), "is not on this machine, and the hub", "hf download org/model"),
    (hub.LocalEntryNotFoundError("nothing"), "is not on this machine, and the hub", "hf download org/model"),
]


@pytest.mark.parametrize("is_wrapped", [False, True])
@pytest.mark.parametrize(("raised", "message", "remedy"), HUB_ERRORS)
def test_what_the_hub_says(
    raised: Exception, message: str, remedy: str, is_wrapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_config(*args: Any, **kwargs: Any) -> Any:
        if not is_wrapped:
            raise raised
        try:
            raise raised
        except Exception as error:
            raise OSError("Cannot load model org/model: model is not cached locally") from error

    monkeypatch.setattr(df.DiffusionPipeline, "load_config", load_config)
    error = error_of("org/model")
    assert message in str(error)
    assert remedy in error.remedy
    assert describe(error, rank=0, log="")["remedy"] == error.remedy
    assert describe(error, rank=0, log="")["kind"] == "load"


def test_running_out_of_memory_while_loading_is_not_taken_for_a_bad_checkpoint(
    sd3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def from_pretrained(*args: Any, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(df.StableDiffusion3Pipeline, "from_pretrained", from_pretrained)
    with pytest.raises(torch.OutOfMemoryError):
        load(AUTO, sd3, dtype="float32", device="cpu")


def test_a_broken_checkpoint_is_not_tried_again_for_every_item(broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (broken / "transformer" / WEIGHTS).unlink()
    items = [make_item(n, model={"adapter": "auto", "checkpoint": str(broken), "dtype": "float32"}) for n in range(3)]
    folder = RunFolder.create(broken.parent / "run", document(), items)
    engine = Engine({})
    engine.begin(folder, items)
    errors = []
    for item in items:
        with pytest.raises(LoadError) as caught:
            engine.prepare(item)
        errors.append(caught.value)
        monkeypatch.setattr(df.StableDiffusion3Pipeline, "from_pretrained", None)
    assert len({str(error) for error in errors}) == 1
    assert all(error.remedy == errors[0].remedy for error in errors)


def test_a_checkpoint_that_is_changed_after_the_plan_is_refused(broken: Path) -> None:
    """Its items would be named by what was in it then."""
    model = {"adapter": "auto", "checkpoint": str(broken), "fingerprint": fingerprint(broken), "dtype": "float32"}
    item = make_item(0, model=model)
    Engine({}).prepare(item)
    path = next((broken / "transformer").glob("*.safetensors"))
    before = path.read_bytes()
    save_file({name: value * 2 for name, value in load_file(path).items()}, path)
    with pytest.raises(LoadError, match="was changed since the job was submitted") as caught:
        Engine({}).prepare(item)
    assert "submit the job again" in caught.value.remedy
    path.write_bytes(before)
    Engine({}).prepare(item)


def test_text_encoders_that_are_damaged_are_named(broken: Path) -> None:
    path = next((broken / "text_encoder_3").glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(LoadError, match="is damaged or was not downloaded to its end"):
        load_encoders(AUTO, broken, device="cpu", revision=None, load_options=LoadOptions())
