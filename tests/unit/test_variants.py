"""Weights in variants (*.fp16.safetensors): found by themselves, chosen by a job, counted and hashed as they are read."""

from __future__ import annotations

import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from genrun.adapters.adapter import Adapter
from genrun.adapters.checkpoint.index import CheckpointError, changes_weights, chosen, variants_in
from genrun.adapters.checkpoint.strict import LoadError
from genrun.adapters.pipeline.load_options import LoadOptions
from genrun.adapters.pipeline.loading import load
from genrun.runner.memory.weights import components
from tests.fakes.checkpoints import TEXT_TO_IMAGE, tensors, write_checkpoint
from tests.fakes.jobs import ids, items_of, problems_of
from tests.tiny.checkpoints import save

# Untyped on purpose: diffusers exports nothing to type checkers.
df: Any = import_module("diffusers")

AUTO = Adapter("auto", "any")
DIFFUSERS_OWN = pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks` argument is deprecated")
JOB = "model: weights\nprompts: [a]\nsampling: {steps: 2}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_checkpoint(tmp_path / "weights", TEXT_TO_IMAGE)


def weights(part: Path) -> Path:
    return next(part.glob("*.safetensors"))


def to_variant(path: Path, variant: str = "fp16", *, keep: bool = False) -> Path:
    """Rename a file of weights to one of a variant, or copy it."""
    target = path.with_name(path.name.replace(".safetensors", f".{variant}.safetensors"))
    shutil.copy(path, target) if keep else path.rename(target)
    return target


def names(folder: Path, variant: str | None = None) -> dict[str, str | None]:
    return {name: files.variant for name, files in chosen(folder, variant).items()}


def test_the_only_variant_is_found_component_by_component(folder: Path) -> None:
    plain = dict.fromkeys(("text_encoder", "vae", "transformer"))
    assert names(folder) == plain
    to_variant(weights(folder / "transformer"))
    assert names(folder) == {**plain, "transformer": "fp16"}
    to_variant(weights(folder / "text_encoder"), "bf16")
    assert names(folder) == {**plain, "transformer": "fp16", "text_encoder": "bf16"}


def test_plain_weights_come_first_unless_a_variant_is_asked_for(folder: Path) -> None:
    for part in ("text_encoder", "transformer"):
        to_variant(weights(folder / part), keep=True)
    assert set(names(folder).values()) == {None}
    assert names(folder, "fp16") == {"text_encoder": "fp16", "transformer": "fp16", "vae": None}


def test_a_variant_in_shards(folder: Path) -> None:
    part = folder / "transformer"
    shards = [f"diffusion_pytorch_model.fp16-0000{n}-of-00002.safetensors" for n in (1, 2)]
    weights(part).unlink()
    (part / shards[0]).write_bytes(tensors("proj_in.weight"))
    (part / shards[1]).write_bytes(tensors("proj_out.weight"))
    listed = f'{{"weight_map": {{"proj_in.weight": "{shards[0]}", "proj_out.weight": "{shards[1]}"}}}}'
    (part / "diffusion_pytorch_model.safetensors.index.fp16.json").write_text(listed)
    files = chosen(folder)["transformer"]
    assert files.variant == "fp16"
    assert [path.name for path in files.paths] == shards


def test_which_of_several_variants_has_to_be_said(folder: Path) -> None:
    to_variant(weights(folder / "vae"), "ema", keep=True)
    to_variant(weights(folder / "vae"), "fp16")
    assert problems_of(JOB) == [
        "job.yaml:1:8: model.checkpoint: the folder 'weights' cannot be used: its component 'vae' has weights in several "
        "variants: ema and fp16. Say which: model.variant: ema."
    ]
    assert names(folder, "ema")["vae"] == "ema"


def test_a_variant_that_is_not_there(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="no weights in the variant 'fp8', only weights that have no variants"):
        chosen(folder, "fp8")
    to_variant(weights(folder / "vae"))
    with pytest.raises(CheckpointError, match=r"in the variant 'fp8', only fp16\. Say which: model\.variant: fp16"):
        chosen(folder, "fp8")
    to_variant(weights(folder / "transformer"), "bf16")
    with pytest.raises(CheckpointError, match="its component 'vae' has no variant 'bf16', only fp16"):
        chosen(folder, "bf16")


@pytest.mark.parametrize("variant", ["16", "'../x'", "fp16.x", "''", "[fp16]"])
def test_a_variant_is_a_part_of_a_name(folder: Path, variant: str) -> None:
    text = f"model: {{checkpoint: weights, variant: {variant}}}\nprompts: [a]\n"
    assert "model.variant: wanted the part of the files' names such as fp16" in problems_of(text)[0]


def test_an_item_is_another_one_where_a_variant_changes_what_is_read(folder: Path) -> None:
    plain = items_of(JOB)
    to_variant(weights(folder / "transformer"), keep=True)
    both, chosen_one = items_of(JOB), items_of(JOB, "model.variant=fp16")
    assert ids(both) != ids(chosen_one)
    assert "variant" not in both[0].model
    assert chosen_one[0].model["variant"] == "fp16"
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    only, named = items_of(JOB), items_of(JOB, "model.variant=fp16")
    assert ids(only) == ids(named)
    assert not changes_weights(folder, "fp16")
    assert ids(plain) not in (ids(only), ids(both))


def test_a_hub_id_with_a_variant_is_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    job = JOB.replace("weights", "org/name")
    assert ids(items_of(job)) != ids(items_of(job, "model.variant=fp16"))


def test_the_variants_of_a_repository() -> None:
    files = [
        "vae/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.non_ema.json",
        "text_encoder/model.safetensors",
        "lora.v1.safetensors",
    ]
    assert variants_in(files) == {"fp16", "non_ema"}


def test_memory_counts_the_files_that_are_read(folder: Path) -> None:
    before = {part.name: part.total_bytes for part in components(folder, LoadOptions())}
    large = to_variant(weights(folder / "vae"), keep=True)
    large.write_bytes(tensors(*map(str, range(100))))
    assert {part.name: part.total_bytes for part in components(folder, LoadOptions())} == before
    found = {part.name: part.total_bytes for part in components(folder, LoadOptions(variant="fp16"))}
    assert found == {**before, "vae": 400}


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("sd3", tmp_path_factory.mktemp("checkpoints"))


def scaled(path: Path, factor: float) -> None:
    save_file({name: factor * tensor for name, tensor in load_file(path).items()}, path, {"format": "pt"})


def first(model: Any) -> torch.Tensor:
    return next(iter(model.state_dict().values()))


def test_a_pipeline_of_both_libraries_is_loaded_from_its_variants(sd3: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sd3, tmp_path / "weights"))
    plain = load(AUTO, folder, dtype="float32", device="cpu")
    scaled(to_variant(weights(folder / "transformer")), 2)
    scaled(to_variant(weights(folder / "text_encoder")), 2)
    scaled(to_variant(weights(folder / "vae"), keep=True), 2)
    found = load(AUTO, folder, dtype="float32", device="cpu")
    asked = load(AUTO, folder, dtype=None, device="cpu", load_options=LoadOptions(variant="fp16"))
    for name, by_itself in (("transformer", 2), ("text_encoder", 2), ("vae", 1), ("text_encoder_2", 1)):
        expected = first(getattr(plain, name))
        assert torch.equal(first(getattr(found, name)), by_itself * expected)
        assert torch.equal(first(getattr(asked, name)), (2 if name != "text_encoder_2" else 1) * expected)


def test_a_pipeline_is_loaded_from_a_variant_in_shards(sd3: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sd3, tmp_path / "weights"))
    pipe = load(AUTO, folder, dtype="float32", device="cpu")
    for name in ("transformer", "text_encoder"):
        weights(folder / name).unlink()
        getattr(pipe, name).save_pretrained(folder / name, variant="fp16", max_shard_size="20KB")
        assert len(list((folder / name).glob("*.fp16-*-of-*.safetensors"))) > 1
    again = load(AUTO, folder, dtype="float32", device="cpu")
    assert torch.equal(first(again.transformer), first(pipe.transformer))
    assert torch.equal(first(again.text_encoder), first(pipe.text_encoder))


def cached(folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Put a folder into the hub's cache, as of org/name, and go offline."""
    from huggingface_hub import constants

    repository = home / "models--org--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(folder, repository / "snapshots" / ("0" * 40))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(home))
    return "org/name"


@DIFFUSERS_OWN
def test_a_hub_id_in_the_cache_is_loaded_from_its_only_variant(
    sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(sd3, tmp_path / "weights"))
    for path in folder.glob("*/*.safetensors"):
        to_variant(path)
    name = cached(folder, tmp_path / "hub", monkeypatch)
    pipe = load(AUTO, name, dtype="float32", device="cpu")
    assert torch.equal(first(pipe.vae), first(load(AUTO, sd3, dtype="float32", device="cpu").vae))


@DIFFUSERS_OWN
def test_a_hub_id_in_the_cache_that_is_not_whole(sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(shutil.copytree(sd3, tmp_path / "weights"))
    (folder / "vae" / "config.json").unlink()
    name = cached(folder, tmp_path / "hub", monkeypatch)
    with pytest.raises(LoadError, match=r"org/name: vae/config\.json is missing") as caught:
        load(AUTO, name, dtype="float32", device="cpu")
    assert "hf download org/name" in caught.value.remedy


def test_a_hub_id_in_the_cache_is_checked_with_the_job(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "model_index.json").write_text('{"_class_name": "StableVideoDiffusionPipeline"}')
    name = cached(folder, folder.parent / "hub", monkeypatch)
    text = f"model: {name}\nprompts: [a]\n"
    said, missing = problems_of(text)
    assert "StableVideoDiffusionPipeline" in said and "image: missing" in missing
