"""Prompts are encoded once for a run, by one process, and the pictures are the plain pipeline's, bit for bit."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from genrun.adapters.adapter import Adapter
from genrun.adapters.pipeline import loading
from genrun.adapters.pipeline.encoders import NotEncodedError, encode_once
from genrun.adapters.pipeline.load_options import LoadOptions
from genrun.adapters.sampling import embeddings
from genrun.adapters.sampling.call import SamplingRequest, decode
from genrun.adapters.sampling.embeddings import encode, pack, unpack
from genrun.adapters.sampling.generate import sample
from genrun.runner.job.plan import WorkItem
from genrun.runner.store.folder import RunFolder
from genrun.runner.worker.engine import Engine
from genrun.runner.worker.prompts import PromptStage, key_of
from genrun.solvers import registry
from tests.fakes.items import document, make_item
from tests.tiny import FAMILIES, PROMPT, STAGED_FAMILIES, call_kwargs
from tests.tiny.checkpoints import save

pytestmark = pytest.mark.e2e

AUTO = Adapter("auto", "any")
SEQUENTIAL = registry.get("sequential")()
CASES = [(family, "float32") for family in STAGED_FAMILIES]
CASES += [(family, "bfloat16") for family in ("sd3", "wan21", "cogvideox_dpm", "hunyuanvideo")]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


def request_for(family: str) -> SamplingRequest:
    call = call_kwargs(family)
    named = {key: call.pop(key) for key in ("guidance_scale", "height", "width", "num_frames") if key in call}
    others = ("prompt", "negative_prompt", "num_inference_steps", "generator", "output_type")
    options = {key: value for key, value in call.items() if key not in others}
    return SamplingRequest(call["prompt"], 5, {**named, "options": options, "steps": 2}, call.get("negative_prompt"))


def encoders_of(pipe: Any) -> list[str]:
    return [name for name, part in pipe.components.items() if name.startswith("text_encoder") and part is not None]


@pytest.mark.parametrize(("family", "dtype"), CASES)
def test_a_pipeline_without_text_encoders_makes_the_plain_ones_pixels(family: str, dtype: str, root: Path) -> None:
    folder, request = save(family, root), request_for(family)
    plain = loading.load(AUTO, folder, dtype=dtype, device="cpu")
    expected = sample(plain, AUTO, request, SEQUENTIAL).latents
    pixels = decode(plain, AUTO, request, expected).frames
    stage = loading.load_encoders(AUTO, folder, device="cpu", revision=None, load_options=LoadOptions(dtype))
    assert all(parameter.is_meta for parameter in _denoiser(stage).parameters())
    encodings = unpack(pack(encode(stage, AUTO, request)))

    pipe = loading.load(AUTO, folder, dtype=dtype, device="cpu", encoders=False)
    assert encoders_of(plain) and not encoders_of(pipe)
    with encode_once(pipe, encodings, is_complete=True):
        found = sample(pipe, AUTO, request, SEQUENTIAL).latents
        assert torch.equal(found, expected)
        assert (decode(pipe, AUTO, request, found).frames == pixels).all()


def _denoiser(pipe: Any) -> Any:
    return pipe.components.get("transformer") or pipe.components["unet"]


def test_only_models_with_text_have_a_stage(root: Path) -> None:
    assert {*FAMILIES} - {*STAGED_FAMILIES} == {"ddpm"}
    for family in ("ddpm", "sd3"):
        has = loading.has_encoding_stage(AUTO, save(family, root), None, LoadOptions())
        assert has is (family == "sd3")


def test_a_pipeline_with_a_prior_before_its_loop_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It turns the encodings into what the denoiser is told (unCLIP), by a model that the stage would not load."""
    of_texts = {"tokenizer": "CLIPTokenizer", "text_encoder": "CLIPTextModel"}
    of_texts |= {"prior_tokenizer": "CLIPTokenizer", "prior_text_encoder": "CLIPTextModelWithProjection"}
    others = {"prior": "PriorTransformer", "prior_scheduler": "UnCLIPScheduler", "unet": "UNet2DConditionModel"}
    others |= {"image_normalizer": "StableUnCLIPImageNormalizer", "image_noising_scheduler": "DDPMScheduler"}
    others |= {"scheduler": "DDIMScheduler", "vae": "AutoencoderKL"}
    index: dict[str, Any] = {"_class_name": "StableUnCLIPPipeline", "_diffusers_version": "0.42.1"}
    index |= {name: ["transformers", each] for name, each in of_texts.items()}
    index |= {name: ["diffusers", each] for name, each in others.items()}
    index["image_normalizer"][0] = "stable_diffusion"
    for found in (index, {name: each for name, each in index.items() if name != "prior"}):
        monkeypatch.setattr(loading, "read_index", lambda *_, found=found: found)
        assert loading.has_encoding_stage(AUTO, tmp_path, None, LoadOptions()) is ("prior" not in found)


def test_a_prompt_that_was_not_encoded_is_named(root: Path) -> None:
    pipe = loading.load(AUTO, save("sd3", root), dtype="float32", device="cpu", encoders=False)
    with encode_once(pipe, {}, is_complete=True), pytest.raises(NotEncodedError, match="a red circle moving left"):
        sample(pipe, AUTO, request_for("sd3"), SEQUENTIAL)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the stages' loads, in order."""
    seen: list[str] = []
    real_encoders, real_load = loading.load_encoders, loading.load

    def load_encoders(*args: Any, **kwargs: Any) -> Any:
        seen.append("encoders")
        return real_encoders(*args, **kwargs)

    def load(*args: Any, **kwargs: Any) -> Any:
        pipe = real_load(*args, **kwargs)
        seen.append("whole" if encoders_of(pipe) else "denoiser")
        return pipe

    monkeypatch.setattr(loading, "load_encoders", load_encoders)
    monkeypatch.setattr(loading, "load", load)
    return seen


def items_of(folder: Path, prompts: tuple[str, ...] = (PROMPT, "a blue square"), **model: Any) -> list[WorkItem]:
    base = {"adapter": "auto", "checkpoint": str(folder), "dtype": "float32", **model}
    sampling = {"steps": 2, "height": 32, "width": 32, "guidance_scale": 3.0}
    pairs = [(prompt, seed) for prompt in prompts for seed in (0, 1)]
    return [
        make_item(number, model=base, prompt=prompt, seed=seed, sampling=sampling)
        for number, (prompt, seed) in enumerate(pairs)
    ]


@pytest.fixture
def run(tmp_path: Path, root: Path) -> Iterator[RunFolder]:
    threads = torch.get_num_threads()
    yield RunFolder.create(tmp_path / "run", document(), items_of(save("sd3", root)))
    torch.set_num_threads(threads)


def worker(run: RunFolder) -> Engine:
    engine = Engine({})
    engine.begin(run, run.items())
    return engine


def files(run: RunFolder) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in run.path.glob("prompts/*/*.safetensors")}


def test_a_run_loads_its_text_encoders_once_and_the_next_worker_not_at_all(run: RunFolder, loads: list[str]) -> None:
    first = worker(run)
    for item in run.items():
        first.prepare(item)
    assert loads == ["encoders", "denoiser"]
    assert len(files(run)) == 2
    before = files(run)
    item = run.items()[3]
    second = worker(run)
    second.prepare(item)
    assert loads == ["encoders", "denoiser", "denoiser"]
    assert files(run) == before
    plain = Engine({})
    theirs, ours = (engine.sample(item, lambda *_: None) for engine in (plain, second))
    assert torch.equal(theirs.sampled.latents, ours.sampled.latents)
    assert (theirs.decode().frames == ours.decode().frames).all()
    assert loads[-1] == "whole"


def test_what_a_killed_stage_finished_is_kept_and_the_rest_is_made(run: RunFolder, loads: list[str]) -> None:
    worker(run).prepare(run.items()[0])
    gone, kept = sorted(files(run))
    stamp = files(run)[kept]
    run.encodings_path(gone.split(".")[0]).unlink()
    half = run.encodings_path(gone.split(".")[0]).with_name(f".{gone}.0123abcd.tmp.safetensors")
    half.write_bytes(b"half")
    for item in run.items():
        worker(run).prepare(item)
    assert loads.count("encoders") == 2
    assert files(run)[kept] == stamp
    assert not half.exists() and run.temporary_files() == []


def test_two_workers_at_once_share_one_stage(run: RunFolder, loads: list[str]) -> None:
    items = run.items()
    said: list[str] = []
    stages = [PromptStage(run, items, "cpu", said.append) for _ in range(2)]
    threads = [threading.Thread(target=stage.run, args=(items[-1],)) for stage in stages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loads == ["encoders"]
    assert len(said) == 1 and said[0].startswith("encoded 2 prompts in ")
    assert all(stages[0].has(item) for item in items)


def test_text_encoders_stay_beside_the_model_where_the_job_says_so(run: RunFolder, loads: list[str]) -> None:
    item = run.items()[0]
    worker(run).prepare(replace(item, model={**item.model, "encode": "each"}))
    assert loads == ["whole"]
    assert files(run) == {}


def test_a_file_that_is_cut_off_is_made_again(run: RunFolder, loads: list[str]) -> None:
    engine, item = worker(run), run.items()[0]
    engine.prepare(item)
    path = run.encodings_path(key_of(item))
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:4], b"", b"\x08\0\0\0\0\0\0\0damaged!"):
        path.write_bytes(damaged)
        engine.prepare(item)
        unpack(path.read_bytes())
    assert loads.count("encoders") == 5


def test_a_file_with_a_flipped_bit_fails_its_item_once_and_is_made_again(run: RunFolder) -> None:
    engine, item = worker(run), run.items()[0]
    engine.prepare(item)
    path = run.encodings_path(key_of(item))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(
        ValueError, match=rf"{key_of(item)}.safetensors: its SHA-256 .* the next attempt makes it again"
    ):
        engine.sample(item, lambda *_: None)
    engine.sample(item, lambda *_: None)
    unpack(path.read_bytes())


def test_a_call_that_is_refused_fails_its_own_items_only(run: RunFolder, loads: list[str]) -> None:
    good, *_ = run.items()
    bad = replace(good, id="b" * 20, sampling={**good.sampling, "height": 33})
    for order in ((good, bad), (bad, good)):
        folder = RunFolder.create(run.path.with_name(f"first {order[0].id}"), document(), order)
        engine = worker(folder)
        for item in order:
            engine.prepare(item)
        with pytest.raises(ValueError, match="multiple of 16"):
            engine.sample(bad, lambda *_: None)
        engine.sample(good, lambda *_: None)
    assert loads.count("encoders") == 2


def test_a_prompt_that_breaks_the_encoder_fails_its_own_items_with_its_own_reason(
    run: RunFolder, loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = embeddings.encode, []

    def breaking(pipe: Any, adapter: Adapter, request: SamplingRequest) -> Any:
        asked.append(request.prompt)
        if request.prompt == PROMPT:
            raise MemoryError("no room for this one")
        return real(pipe, adapter, request)

    monkeypatch.setattr(embeddings, "encode", breaking)
    bad, good = run.items()[0], run.items()[2]
    engine = worker(run)
    engine.prepare(good)
    assert asked == [good.prompt, PROMPT]
    with pytest.raises(MemoryError, match="no room for this one"):
        engine.prepare(bad)
    assert loads.count("encoders") == 1  # what is known is told without loading them again,
    with pytest.raises(MemoryError, match="no room for this one"):
        engine.prepare(bad)
    assert loads.count("encoders") == 2  # and the second attempt is made in earnest
    assert engine.sample(good, lambda *_: None) is not None


def test_a_key_is_made_of_what_text_encoders_are_told() -> None:
    item = make_item(0, sampling={"steps": 4, "height": 8, "guidance_scale": 2.0})
    same = [
        replace(item, seed=9),
        replace(item, solver={"kind": "ropa", "workers": 8}),
        replace(item, sampling={**item.sampling, "steps": 9, "height": 16}),
        replace(item, model={**item.model, "offload": "model"}),
    ]
    other = [
        replace(item, prompt="another"),
        replace(item, negative_prompt="gray"),
        replace(item, sampling={**item.sampling, "guidance_scale": 1.0}),
        replace(item, model={**item.model, "dtype": "bfloat16"}),
        replace(item, model={**item.model, "revision": "v2"}),
        replace(item, model={**item.model, "fingerprint": "folder:1"}),
    ]
    assert {key_of(each) for each in same} == {key_of(item)}
    assert len({key_of(each) for each in (item, *other)}) == 1 + len(other)
