"""LoRAs change on a loaded model: diffusers' own bits with them, the base's after them, and wrong ones refused early."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from genrun.adapters.adapter import Adapter
from genrun.adapters.checkpoint.strict import LoadError
from genrun.adapters.pipeline import loading
from genrun.adapters.pipeline.parts import has_loras, put_loras
from genrun.runner.job.plan import WorkItem, plan
from genrun.runner.store.folder import RunFolder
from genrun.runner.worker.engine import Engine
from genrun.runner.worker.queue import Queue
from tests.fakes.items import document
from tests.fakes.jobs import ids, load_text, problems_of
from tests.tiny.additions import save_lora
from tests.tiny.checkpoints import save

PROMPTS = "prompts: [a red circle, a blue square]\n"
SMALL = "sampling: {steps: 2, height: 64, width: 64}\n"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion, and LoRAs on its UNet, its text encoder, and on another model."""
    root = tmp_path_factory.mktemp("loras")
    pipe = loading.load(Adapter("auto", "any"), save("sd2", root), dtype="float32", device="cpu")
    save_lora(root / "one.safetensors", {"unet": pipe.unet}, seed=1)
    save_lora(root / "folder" / "two.safetensors", {"unet": pipe.unet}, rank=3, seed=2)
    save_lora(root / "words.safetensors", {"unet": pipe.unet, "text_encoder": pipe.text_encoder}, seed=3)
    return root


@pytest.fixture(autouse=True)
def here(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(root)
    return root


@pytest.fixture(scope="module")
def plain(root: Path) -> Any:
    return loading.load(Adapter("auto", "any"), root / "sd2", dtype="float32", device="cpu")


def items(loras: str, **changes: str) -> list[WorkItem]:
    return plan(load_text(f"model: {{checkpoint: sd2, dtype: float32, loras: {loras}}}\n{PROMPTS}{SMALL}"))


def sampled(engine: Engine, item: WorkItem) -> torch.Tensor:
    engine.prepare(item)
    return engine.sample(item, lambda *_: None).sampled.latents


def called(pipe: Any, item: WorkItem) -> torch.Tensor:
    """The latents of diffusers' own call."""
    generator = torch.Generator().manual_seed(item.seed)
    call = {"num_inference_steps": 2, "height": 64, "width": 64, "generator": generator, "output_type": "latent"}
    return pipe(item.prompt, **call).images


CELLS = (
    "[]",
    "[{path: one.safetensors, weight: 0.7}]",
    "[{path: one.safetensors, weight: 0.7}, {path: folder, weight: -0.5, name: other}]",
    "[]",
    "[{path: words.safetensors}]",
    "[]",
)


@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning")
def test_each_cell_has_the_bits_of_diffusers_and_the_base_is_loaded_once(
    root: Path, plain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[bool] = []
    real = loading.load
    monkeypatch.setattr(loading, "load", lambda *args, **ways: (loads.append(ways["encoders"]), real(*args, **ways))[1])
    cells = [items(each)[0] for each in CELLS]
    engine = Engine({"model": {"device": "cpu"}})
    engine.begin(
        RunFolder.create(tmp_path / "run", document(), list({item.id: item for item in cells}.values())), cells
    )
    found = [sampled(engine, item) for item in cells]
    # A LoRA of the text encoder needs it beside the model, and all prompts encoded anew.
    assert loads == [False, True, False]
    # diffusers itself does not come back to the base's bits: peft leaves gradients off, and kernels round otherwise then.
    loras = {0: (), 1: (("one", 0.7),), 2: (("one", 0.7), ("folder/two", -0.5)), 4: (("words", 1.0),)}
    for index, files in loras.items():
        for name, _ in files:
            plain.load_lora_weights(root, weight_name=f"{name}.safetensors", adapter_name=name.replace("/", "-"))
        if files:
            plain.set_adapters([name.replace("/", "-") for name, _ in files], [weight for _, weight in files])
        assert torch.equal(found[index], called(plain, cells[index])), CELLS[index]
        plain.unload_lora_weights()
    assert torch.equal(found[0], found[3]) and torch.equal(found[0], found[5])
    assert len({each.sum().item() for each in found}) == 4


def test_lora_that_cannot_be_loaded_leaves_the_base_to_others(root: Path, tmp_path: Path) -> None:
    base, good = items("[]")[0], items("[{path: one.safetensors}]")[0]
    path = tmp_path / "gone.safetensors"
    broken = replace(base, model={**base.model, "loras": [{"path": str(path), "weight": 1.0, "name": "x"}]})
    engine = Engine({"model": {"device": "cpu"}})
    before = sampled(engine, base)
    pipe = engine._pipe
    sampled(engine, good)
    with pytest.raises(LoadError, match=r"cannot be loaded|not on this machine|is missing"):
        engine.prepare(broken)
    assert torch.equal(sampled(engine, base), before)
    assert engine._pipe is pipe and not has_loras(pipe)


def test_lora_that_is_changed_after_the_plan_is_refused(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    path.write_bytes((root / "one.safetensors").read_bytes())
    base, item = items("[]")[0], items(f"[{{path: {path}}}]")[0]
    engine = Engine({"model": {"device": "cpu"}})
    before = sampled(engine, base)
    save_file({name: value * 2 for name, value in load_file(path).items()}, path)
    with pytest.raises(LoadError, match=r"own\.safetensors was changed since the job was submitted"):
        engine.prepare(item)
    with pytest.raises(LoadError, match="was changed"):
        Engine({"model": {"device": "cpu"}}).prepare(item)
    assert torch.equal(sampled(engine, base), before)
    path.write_bytes((root / "one.safetensors").read_bytes())
    sampled(Engine({"model": {"device": "cpu"}}), item)


def test_ids_know_content_and_weight_and_not_names(root: Path, tmp_path: Path) -> None:
    one = ids(items("[{path: one.safetensors}]"))
    (tmp_path / "copy.safetensors").write_bytes((root / "one.safetensors").read_bytes())
    assert ids(items(f"[{{path: {tmp_path}/copy.safetensors, name: other}}]")) == one
    assert ids(items("[]")) == ids(plan(load_text(f"model: {{checkpoint: sd2, dtype: float32}}\n{PROMPTS}{SMALL}")))
    others = [ids(items(each)) for each in ("[]", "[{path: one.safetensors, weight: 0.5}]", "[{path: folder}]")]
    assert len({first for first, _ in (one, *others)}) == 4
    assert all(item.fits() for item in items("[{path: one.safetensors}]"))


def test_a_queue_takes_other_loras_of_the_loaded_base_before_another_model(root: Path, tmp_path: Path) -> None:
    from genrun.runner.store.environment import current
    from genrun.runner.store.lease import Leases, Owner
    from genrun.runner.store.order import Order

    text = "model: {checkpoint: sd2}\nmatrix: {model.dtype: [bfloat16, float32], model.loras: [[], [{path: folder}]]}\n"
    found = plan(load_text(text + "prompts: [a]\nsampling: {steps: 2}\n"))
    assert [item.axes["model.loras"] for item in found] == ["none", "folder"] * 2
    folder = RunFolder.create(tmp_path / "run", document(), [found[2], found[0], found[3]])
    queue = Queue(Leases(folder, Owner(current(), "job", 0), 60.0), Order("job"), folder.items())
    claim = queue.take(found[1].model)
    assert claim is not None and claim.item.id == found[0].id


def changed(root: Path, name: str, change: Any) -> str:
    tensors = load_file(root / "one.safetensors")
    save_file(change(tensors), root / name)
    return name


def widened(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    first = next(name for name in tensors if "lora_A" in name)
    return {**tensors, first: torch.ones(2, tensors[first].shape[1] + 1)}


def of_rank(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    first = next(name for name in tensors if "lora_A" in name)
    return {**tensors, first: torch.ones(5, tensors[first].shape[1])}


BAD = {
    "renamed": (lambda t: {f"transformer.blocks.0.x{n}": v for n, v in t.items()}, "is for a transformer"),
    "unknown": (lambda t: {k.replace("attn1", "attn9"): v for k, v in t.items()}, "which the model lacks"),
    "widened": (widened, "inputs and"),
    "rank": (of_rank, "has rank 5 on one side and 2 on the other"),
    "half": (lambda t: {k: v for k, v in t.items() if "lora_A" in k}, "only one half"),
    "none": (lambda _: {"conv.weight": torch.ones(2, 2)}, "holds no layers of a LoRA"),
    "kohya": (
        lambda _: {
            "lora_unet_input_blocks_1_1_proj_in.lora_down.weight": torch.ones(2, 777),
            "lora_unet_input_blocks_1_1_proj_in.lora_up.weight": torch.ones(8, 2),
        },
        "takes 777 inputs, and no layer of the model does",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_lora_of_another_model_is_refused_by_its_header(root: Path, plain: Any, name: str) -> None:
    change, wanted = BAD[name]
    file = changed(root, f"bad-{name}.safetensors", change)
    (problem,) = problems_of(f"model:\n  checkpoint: sd2\n  loras:\n  - path: {file}\nprompts: [a]\n")
    assert problem.startswith("job.yaml:4:11: model.loras[0].path: ") and wanted in problem
    # Where the checkpoint was not on the machine when the job was checked, loading says it.
    item = items("[]")[0]
    from genrun.adapters.pipeline.additions import Lora

    with pytest.raises(LoadError):
        put_loras(plain, [Lora(str(root / file))])
    assert not has_loras(plain) and item.fits()


def in_kohya(tensors: dict[str, torch.Tensor], **more: float) -> dict[str, torch.Tensor]:
    """The names of kohya, with further tensors of (4, 1) and one value for each layer."""
    found: dict[str, torch.Tensor] = {}
    for name, value in tensors.items():
        module, side = name.removesuffix(".weight").rsplit(".", 1)
        module = module.replace("unet.", "lora_unet_").replace(".", "_")
        found[f"{module}.{'lora_down' if side == 'lora_A' else 'lora_up'}.weight"] = value
        found[f"{module}.alpha"] = torch.tensor(2.0)
        found |= {f"{module}.{key}": torch.full((4, 1), number) for key, number in more.items()}
    return found


def for_encoder(tensors: dict[str, torch.Tensor], name: str, size: float = 1.0) -> dict[str, torch.Tensor]:
    layer = f"{name}.text_model.encoder.layers.0.self_attn.q_proj"
    halves = {f"{layer}.lora_A.weight": torch.ones(2, 16), f"{layer}.lora_B.weight": torch.ones(16, 2) * size}
    return {**tensors, **halves}


LEFT_OUT = {
    "other encoder": (lambda t: for_encoder(t, "text_encoder_2"), r"2 of its \d+ .*'text_encoder_2\.text_model"),
    "other model": (
        lambda t: {**t, **{k.replace("unet.", "transformer_2."): v.clone() for k, v in t.items()}},
        r"\d+ of its \d+ .*'transformer_2\.",
    ),
    "dora": (lambda t: in_kohya(t, dora_scale=1.0), r"\d+ of its \d+ .*\.dora_scale'"),
}
TAKEN = {
    "kohya": in_kohya,
    "dora without effect": lambda t: in_kohya(t, dora_scale=0.0),
    "magnitudes": lambda t: (
        t | {k.replace("lora_B.weight", "lora_magnitude_vector"): torch.ones(len(v)) for k, v in t.items() if "_B" in k}
    ),
    "processors": lambda t: {k.replace("lora_A", "lora.down").replace("lora_B", "lora.up"): v for k, v in t.items()},
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_lora_of_which_diffusers_leaves_tensors_out_is_refused_or_partial(root: Path, plain: Any, name: str) -> None:
    from genrun.adapters.pipeline.additions import Lora

    change, wanted = LEFT_OUT[name]
    file = changed(root, "left-out.safetensors", change)
    with pytest.raises(LoadError, match=wanted) as told:
        put_loras(plain, [Lora(str(root / file))])
    assert "partial: true" in told.value.remedy and not has_loras(plain)
    (item,) = items(f"[{{path: {file}, partial: true}}]")[:1]
    assert ids([item]) == ids(items(f"[{{path: {file}}}]")[:1])
    engine = Engine({"model": {"device": "cpu"}})
    found = sampled(engine, item)
    plain.load_lora_weights(root, weight_name=file, adapter_name="x")
    assert torch.equal(found, called(plain, item))
    plain.unload_lora_weights()


def test_lora_with_magnitudes_for_some_layers_only_is_refused_by_name(root: Path, plain: Any) -> None:
    from genrun.adapters.pipeline.additions import Lora

    def of_one(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        name = next(each for each in tensors if "lora_B" in each)
        return {**tensors, name.replace("lora_B.weight", "lora_magnitude_vector"): torch.ones(len(tensors[name]))}

    file = changed(root, "some.safetensors", of_one)
    with pytest.raises(LoadError, match=r"no values for 'unet\..*\.lora_magnitude_vector"):
        put_loras(plain, [Lora(str(root / file), partial=True)])
    assert not has_loras(plain)


@pytest.mark.parametrize("name", TAKEN)
def test_lora_in_an_ordinary_format_is_taken(root: Path, plain: Any, name: str) -> None:
    from genrun.adapters.pipeline.additions import Lora

    put_loras(plain, [Lora(str(root / changed(root, "taken.safetensors", TAKEN[name])))])
    assert has_loras(plain)
    put_loras(plain, [])


def test_lora_of_stable_diffusion_xl_in_the_names_of_its_authors_is_taken(tmp_path: Path) -> None:
    from genrun.adapters.pipeline.additions import Lora

    pipe = loading.load(Adapter("auto", "any"), save("sdxl", tmp_path), dtype="float32", device="cpu")
    name, block = next((n, m) for n, m in pipe.unet.named_modules() if n.endswith("attentions.0") and "down" in n)
    number = int(name.split(".")[1]) * (pipe.unet.config.layers_per_block + 1) + 1
    layer = block.transformer_blocks[0].attn1.to_q
    module = f"lora_unet_input_blocks_{number}_1_transformer_blocks_0_attn1_to_q"
    halves = {"down": torch.ones(2, layer.in_features), "up": torch.ones(layer.out_features, 2)}
    save_file(
        {f"{module}.lora_{side}.weight": value for side, value in halves.items()} | {f"{module}.alpha": torch.ones(())},
        tmp_path / "sgm.safetensors",
    )
    put_loras(pipe, [Lora(str(tmp_path / "sgm.safetensors"))])
    assert f"{name}.transformer_blocks.0.attn1.to_q.lora_A.lora_0.weight" in dict(pipe.unet.named_parameters())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_lora_that_is_not_finite_is_refused_when_it_is_loaded(root: Path, plain: Any, bad: float) -> None:
    from genrun.adapters.pipeline.additions import Lora

    file = changed(root, "diverged.safetensors", lambda t: {**t, max(t): t[max(t)].fill_(bad)})
    with pytest.raises(
        LoadError, match=r"diverged\.safetensors: \d+ of \d+ values of '.+' are NaN or infinite"
    ) as told:
        put_loras(plain, [Lora(str(root / file))])
    assert "diverged" in told.value.remedy
    assert not has_loras(plain)


@pytest.mark.parametrize(
    ("loras", "wanted"),
    [
        ("[{path: no/such/one.safetensors}]", "neither a folder nor a hub id"),
        ("[{path: cut.safetensors}]", "bytes of"),
        ("[{path: pointer.safetensors}]", "is a pointer of Git LFS"),
        ("[{path: pickle.bin}]", "is no .safetensors file"),
        ("[{path: dangling.safetensors}]", "is a link to"),
        ("[{path: several}]", "holds several files: a.safetensors, b.safetensors. Say which: weight_name: FILE."),
        ("[{path: several, weight_name: ../one.safetensors}]", "wanted the name of a file"),
        ("[{path: one.safetensors}, {path: one.safetensors}]", "'one' is given twice, first at job.yaml:1:"),
        ("[{path: one.safetensors, weight: .nan}]", "wanted a finite number"),
        ("[{path: one.safetensors, name: ../x}]", "wanted a name of up to 80 letters"),
        ("[{path: one.safetensors, wieght: 2}]", "Did you mean"),
        ("[{path: one.safetensors, component: transformer_2}]", "the checkpoint has no transformer_2"),
    ],
)
def test_lora_that_is_no_file_of_one_is_refused_with_its_place(root: Path, loras: str, wanted: str) -> None:
    whole = (root / "one.safetensors").read_bytes()
    (root / "cut.safetensors").write_bytes(whole[:-4])
    (root / "pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (root / "pickle.bin").write_bytes(b"\x80\x04.")
    (root / "dangling.safetensors").unlink(missing_ok=True)
    (root / "dangling.safetensors").symlink_to("nowhere")
    (root / "several").mkdir(exist_ok=True)
    for name in ("a", "b"):
        (root / "several" / f"{name}.safetensors").write_bytes(whole)
    (problem,) = problems_of(f"model: {{checkpoint: sd2, loras: {loras}}}\nprompts: [a]\n")
    assert problem.startswith("job.yaml:1:") and wanted in problem


def test_pipeline_that_takes_no_loras_is_named(root: Path) -> None:
    save("ddpm", root)
    (problem,) = problems_of("model: {checkpoint: ddpm, loras: [{path: one.safetensors}]}\nprompts: [a]\n")
    assert problem.startswith("job.yaml:1:27: model.loras: DDPMPipeline takes no LoRAs.")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
