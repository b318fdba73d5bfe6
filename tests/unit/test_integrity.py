"""A folder that is no whole pipeline is refused by the names and headers of its files, each by name, with a remedy."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genrun.adapters.checkpoint.index import CheckpointError, index_of
from genrun.adapters.checkpoint.integrity import check_whole
from genrun.adapters.tensor_files import tensors_in
from tests.fakes.checkpoints import TEXT_TO_IMAGE, tensors, with_header, write_checkpoint

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
FILE = "transformer/diffusion_pytorch_model.safetensors"
LISTING = f"{FILE}.index.json"
SHARDS = [f"transformer/diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "weights", TEXT_TO_IMAGE)


def wrong(folder: Path, variant: str | None = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        check_whole(folder, index_of(folder), variant)
    assert caught.value.remedy
    return str(caught.value)


def change_index(folder: Path, **entries: Any) -> None:
    (folder / "model_index.json").write_text(json.dumps({**TEXT_TO_IMAGE, **entries}))


def shard(folder: Path, weight_map: Any = None) -> None:
    """Weights in two shards, and the list of them."""
    (folder / FILE).unlink()
    (folder / SHARDS[0]).write_bytes(tensors("proj_in.weight"))
    (folder / SHARDS[1]).write_bytes(tensors("proj_out.weight"))
    names = [Path(name).name for name in SHARDS]
    found = {"proj_in.weight": names[0], "proj_out.weight": names[1]} if weight_map is None else weight_map
    (folder / LISTING).write_text(json.dumps({"metadata": {}, "weight_map": found}))


def test_a_whole_folder_is_taken(folder: Path) -> None:
    check_whole(folder, index_of(folder))
    shard(folder)
    check_whole(folder, index_of(folder))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (["mypipe", "MyPipe"], "names a pipeline of its own code, mypipe.MyPipe"),
        (None, "names no pipeline (_class_name)"),
        ("", "names no pipeline (_class_name)"),
        (5, "has 5 for the name of a pipeline"),
        ({"a": 1}, 'has {"a": 1} for the name of a pipeline'),
        ("TomorrowsPipeline", "has no pipeline TomorrowsPipeline. Upgrade diffusers: pip install -U diffusers"),
        ("../x\n", r"has no pipeline '../x\n'"),
        ("UNet2DModel", "names 'UNet2DModel' (_class_name), which is no pipeline"),
        ("AutoPipelineForText2Image", "which is no pipeline"),
    ],
)
def test_what_is_no_pipeline_of_diffusers(folder: Path, name: Any, message: str) -> None:
    change_index(folder, _class_name=name)
    assert message in wrong(folder)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "its model_index.json is empty"),
        (b"[1]", "is no mapping, but a list"),
        (b"NaN", "is no mapping, but a number"),
        (b'{"a": ', "its model_index.json cannot be read"),
        (b'{"a": "\xe9"}', "cannot be read: 'utf-8' codec can't decode"),
        (b"\xef\xbb\xbf{}", "begins with a byte order mark. Save it as UTF-8 without one"),
        (b'{"a":' + b"[" * 100_000, "it is nested too deeply"),
        (b'{"a": "' + b"x" * 2**21 + b'"}', "is larger than 1 MiB"),
        (
            POINTER,
            "is a pointer of Git LFS, and the file itself was not fetched. Run `git lfs install && git lfs pull`",
        ),
    ],
)
def test_an_index_that_is_damaged(folder: Path, data: bytes, message: str) -> None:
    (folder / "model_index.json").write_bytes(data)
    assert message in wrong(folder)


@pytest.mark.parametrize(
    ("name", "entry", "message"),
    [
        ("vae", 5, "names no 'vae', which PixArtSigmaPipeline needs but has 5 for it"),
        ("vae", None, "names no 'vae', which PixArtSigmaPipeline needs"),
        ("vae", [None, None], "names no 'vae', which PixArtSigmaPipeline needs"),
        ("vae", ["diffusers"], "has [\"diffusers\"] for 'vae', where a library and a class are wanted"),
        ("vae", [["diffusers"], "AutoencoderKL"], "where a library and a class are wanted"),
        ("vae", ["my_vae", "MyVAE"], "is of the library 'my_vae', which is no part of diffusers or transformers"),
        ("vae", ["os", "system"], "is of the library 'os'"),
        ("vae", ["diffusers.models", "AutoencoderKL"], "is of the library 'diffusers.models'"),
        (
            "vae",
            ["diffusers", "AutoencoderOfTomorrow"],
            "has no class 'AutoencoderOfTomorrow', which its component 'vae'",
        ),
        ("vae", ["diffusers", "models.AutoencoderKL"], "which is no name of a class"),
        ("../vae", ["diffusers", "AutoencoderKL"], "names a component '../vae', which is no name of a folder in it"),
        ("/etc", ["diffusers", "AutoencoderKL"], "names a component '/etc'"),
        ("a\0b", ["diffusers", "AutoencoderKL"], "names a component"),
        ("extra", ["diffusers", "AutoencoderKL"], "its component 'extra' is missing"),
        ("safety_checker", ["stable_diffusion", "StableDiffusionSafetyChecker"], "'safety_checker' is missing"),
    ],
)
def test_a_component_that_is_none(folder: Path, name: str, entry: Any, message: str) -> None:
    change_index(folder, **{name: entry})
    assert message in wrong(folder)


def test_settings_of_a_pipeline_are_no_components(folder: Path) -> None:
    change_index(folder, requires_safety_checker=True, boundary_ratio=0.9, sizes=[1, 2], image_encoder=[None, None])
    check_whole(folder, index_of(folder))


@pytest.mark.parametrize(
    "name",
    [
        "model_index.json",
        FILE,
        "vae/config.json",
        "tokenizer/tokenizer.json",
        "tokenizer/spiece.model",
        "scheduler/scheduler_config.json",
    ],
)
def test_files_that_stand_for_others_are_named(folder: Path, name: str) -> None:
    path = folder / name
    for data, message in ((POINTER, "is a pointer of Git LFS"), (b"", "is empty")):
        path.write_bytes(data)
        assert f"{name} {message}" in wrong(folder)
    path.unlink()
    path.symlink_to("../../blobs/0123abcd")
    assert f"{name} is a link to '../../blobs/0123abcd', which is not there" in wrong(folder)
    path.unlink()
    path.symlink_to(path.name)
    assert f"{name} is a link to" in wrong(folder)


def test_what_is_not_read_need_not_be_there(folder: Path) -> None:
    for name in ("README.md", "transformer/diffusion_pytorch_model.bin", FILE.replace(".safe", ".fp16.safe")):
        (folder / name).write_bytes(POINTER)
    (folder / "preview.png").symlink_to("gone.png")
    check_whole(folder, index_of(folder))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vae/config.json", "vae/config.json is missing"),
        ("text_encoder/config.json", "text_encoder/config.json is missing"),
        ("scheduler/scheduler_config.json", "scheduler/scheduler_config.json is missing"),
        ("tokenizer/*", "its component 'tokenizer' has no vocabulary (tokenizer.json, "),
        (FILE, "its component 'transformer' has no weights (*.safetensors)"),
        ("scheduler", "its component 'scheduler' is missing"),
    ],
)
def test_files_that_are_missing_are_named(folder: Path, name: str, message: str) -> None:
    for path in list(folder.glob(name)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert message in wrong(folder)


def test_a_component_that_is_a_link_to_nowhere(folder: Path) -> None:
    shutil.rmtree(folder / "vae")
    (folder / "vae").symlink_to("../shared/vae")
    assert "its component 'vae' is a link to '../shared/vae', which is not there" in wrong(folder)


def test_a_byte_pair_tokenizer_without_its_merges(folder: Path) -> None:
    for path in (folder / "tokenizer").iterdir():
        path.unlink()
    (folder / "tokenizer" / "vocab.json").write_text('{"a": 0}')
    assert "tokenizer/merges.txt is missing" in wrong(folder)
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    check_whole(folder, index_of(folder))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("vae/config.json", b"[]", "vae/config.json is no mapping, but a list"),
        ("vae/config.json", b"{", "vae/config.json cannot be read"),
        ("scheduler/scheduler_config.json", b"{}", "scheduler/scheduler_config.json has no settings"),
        ("vae/config.json", b"{}", "vae/config.json has no settings"),
        ("scheduler/scheduler_config.json", b"null", "scheduler_config.json is no mapping, but null"),
        ("tokenizer/tokenizer.json", b"{}", "tokenizer/tokenizer.json has no vocabulary (model)"),
        ("tokenizer/tokenizer.json", b'{"model": "' + b"x" * 2**21, "tokenizer.json is damaged or was not downloaded"),
    ],
)
def test_configurations_that_are_damaged_are_named(folder: Path, name: str, data: bytes, message: str) -> None:
    (folder / name).write_bytes(data)
    assert message in wrong(folder)


F32 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"abcd", "it is no safetensors file"),
        (b"<!DOCTYPE html><html>404</html>", "it is no safetensors file"),
        (b"\xff" * 8 + b"{}", "it is no safetensors file"),
        (with_header([]), "it is no safetensors file, or only its beginning"),
        (with_header({}), "holds no tensors"),
        (with_header({"a": F32}, bytes(3)), "bytes of"),
        (with_header({"a": F32}, bytes(5)), "bytes of"),
        (with_header({"a": F32, "b": {**F32, "data_offsets": [2, 6]}}, bytes(6)), "puts the tensor 'b' at byte 2"),
        (with_header({"a": F32, "b": {**F32, "data_offsets": [8, 12]}}, bytes(12)), "puts the tensor 'b' at byte 8"),
        (
            with_header({"a": {**F32, "shape": [9]}}, bytes(4)),
            "gives the tensor 'a' 4 bytes, which is not the size of F32",
        ),
        (with_header({"a": {**F32, "shape": [-1]}}, bytes(4)), "does not describe the tensor 'a'"),
        (with_header({"a": {**F32, "dtype": 7}}, bytes(4)), "does not describe the tensor 'a'"),
        (with_header({"a": {**F32, "data_offsets": [0.0, 4.0]}}, bytes(4)), "does not describe the tensor 'a'"),
        (with_header({"a": [1]}, bytes(4)), "does not describe the tensor 'a'"),
    ],
)
def test_weights_that_contradict_their_header(folder: Path, data: bytes, message: str) -> None:
    (folder / FILE).write_bytes(data)
    said = wrong(folder)
    assert FILE in said
    assert message in said


def test_the_header_is_read_and_nothing_else(folder: Path) -> None:
    found = tensors_in(folder / FILE)
    assert {name: tensor.size_bytes for name, tensor in found.items()} == {"proj_in.weight": 4, "proj_out.weight": 4}


NAMES = [Path(name).name for name in SHARDS]
SPOILED: list[tuple[Callable[[Path], Any], str]] = [
    (lambda folder: (folder / SHARDS[1]).unlink(), f"{SHARDS[1]} is missing"),
    (lambda folder: (folder / SHARDS[1]).write_bytes(b""), f"{SHARDS[1]} is empty"),
    (lambda folder: (folder / SHARDS[1]).write_bytes(POINTER), f"{SHARDS[1]} is a pointer of Git LFS"),
    (lambda folder: os.truncate(folder / SHARDS[1], 20), f"{SHARDS[1]} is damaged"),
    (
        lambda folder: (folder / SHARDS[1]).write_bytes(tensors("proj_in.weight")),
        f"{SHARDS[1]} lacks the tensor 'proj_out.weight', which {LISTING} says is in it",
    ),
    (lambda folder: (folder / LISTING).unlink(), f"{LISTING} is missing, which lists what is in {NAMES[0]}"),
    (lambda folder: (folder / LISTING).write_text("{"), f"{LISTING} cannot be read"),
    (lambda folder: (folder / LISTING).write_text("[]"), f"{LISTING} is no mapping"),
    (lambda folder: (folder / LISTING).write_text("{}"), f"{LISTING} lists no tensors"),
    (lambda folder: (folder / LISTING).write_bytes(POINTER), f"{LISTING} is a pointer of Git LFS"),
]


@pytest.mark.parametrize(("spoil", "message"), SPOILED)
def test_shards_that_are_not_whole(folder: Path, spoil: Callable[[Path], Any], message: str) -> None:
    shard(folder)
    spoil(folder)
    assert message in wrong(folder)


@pytest.mark.parametrize(
    "entry", [5, None, "../vae/diffusion_pytorch_model.safetensors", "/etc/passwd", "", "..", "a\0b"]
)
def test_a_list_of_shards_names_files_beside_it(folder: Path, entry: Any) -> None:
    shard(folder, {"proj_in.weight": entry})
    assert f"{LISTING} names {entry!r} for the tensor 'proj_in.weight', which is no file beside it" in wrong(folder)


def test_weights_under_the_name_of_the_other_library(folder: Path) -> None:
    (folder / FILE).rename(folder / "transformer" / "model.safetensors")
    assert (
        "'transformer' has no weights, only model.safetensors, which PixArtTransformer2DModel does not read"
        in wrong(folder)
    )
