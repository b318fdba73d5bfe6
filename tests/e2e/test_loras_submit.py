"""LoRAs, other components and weights in one file through `submit` to media files, by one rank and by two."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from genrun import api
from genrun.adapters.adapter import Adapter
from genrun.adapters.pipeline import loading
from genrun.runner.store.folder import RunFolder
from tests.preloaded import fork_workers
from tests.tiny.additions import save_lora
from tests.tiny.checkpoints import save

pytestmark = pytest.mark.e2e

PROMPTS = ["a red circle moving left", "a blue square"]
SOLVERS = ["sequential", *({"kind": kind, "workers": 4, "tolerance": 0.0} for kind in ("paradigms", "collocation"))]
FAMILIES = {
    "sd2": {"height": 64, "width": 64},
    "sd3": {"height": 64, "width": 64},
    "flux": {"height": 64, "width": 64},
    "wan21": {"height": 64, "width": 64, "num_frames": 9},
}


def denoiser(pipe: Any) -> tuple[str, Any]:
    name = "transformer" if getattr(pipe, "transformer", None) is not None else "unet"
    return name, getattr(pipe, name)


def made(root: Path, job: dict[str, Any], name: str) -> dict[str, tuple[str, str | None, str | None]]:
    """Item -> status, latents and media of a job that is submitted."""
    path = root / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**job, "name": name}))
    api.submit(path)
    folder = RunFolder.open(root / "runs" / name / "latest")
    records = folder.records()
    assert all((folder.path / str(record.media)).is_file() for record in records.values())
    return {item: (record.status, record.latents_sha256, record.sha256) for item, record in records.items()}


@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_loras_have_the_bits_of_diffusers_under_every_solver_and_on_two_ranks(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fork_workers(monkeypatch)
    checkpoint, sampling = save(family, tmp_path), {"steps": 3, **FAMILIES[family]}
    plain = loading.load(Adapter("auto", "any"), checkpoint, dtype="float32", device="cpu")
    name, model = denoiser(plain)
    for number in (1, 2):
        save_lora(tmp_path / f"l{number}.safetensors", {name: model}, rank=1 + number, seed=number, size=0.5)
    loras = [[], [{"path": "l1.safetensors", "weight": 0.8}, {"path": "l2.safetensors", "weight": -0.5}]]
    job = {
        "model": {"checkpoint": family, "dtype": "float32"},
        "prompts": PROMPTS,
        "seeds": [4],
        "sampling": sampling,
        "output": {"save_latents": True, "dir": str(tmp_path / "runs")},
        "matrix": {"model.loras": loras, "solver": SOLVERS},
    }
    alone = made(tmp_path, job, "alone")
    assert {status for status, *_ in alone.values()} == {"done"} and len(alone) == 12
    folder = RunFolder.open(tmp_path / "runs" / "alone" / "latest")
    by_pair: dict[str, set[str | None]] = {}
    for item in folder.items():
        by_pair.setdefault(item.pair, set()).add(alone[item.id][1])
    assert len(by_pair) == 4 and all(len(each) == 1 for each in by_pair.values())
    assert len(set.union(*by_pair.values())) == 4

    plain.load_lora_weights(tmp_path, weight_name="l1.safetensors", adapter_name="one")
    plain.load_lora_weights(tmp_path, weight_name="l2.safetensors", adapter_name="two")
    plain.set_adapters(["one", "two"], [0.8, -0.5])
    item = next(each for each in folder.items() if each.model.get("loras") and each.prompt == PROMPTS[0])
    call = {key: value for key, value in sampling.items() if key != "steps"}
    expected = plain(
        PROMPTS[0], num_inference_steps=3, generator=torch.Generator().manual_seed(4), output_type="latent", **call
    )[0]
    found = next(iter(load_file(folder.latents_path(item.id)).values()))
    assert torch.equal(found.flatten(), expected.flatten())

    two = made(tmp_path, {**job, "parallel": {"time": 2}, "launch": {"kind": "torchrun"}}, "two")
    assert two == alone


def test_each_of_two_denoisers_has_loras_of_its_own_with_the_bits_of_diffusers(tmp_path: Path) -> None:
    checkpoint, size = save("wan22", tmp_path), {"height": 32, "width": 32, "num_frames": 9, "guidance_scale": 4.0}
    plain = loading.load(Adapter("auto", "any"), checkpoint, dtype="float32", device="cpu")
    for number, model in enumerate((plain.transformer, plain.transformer_2)):
        save_lora(tmp_path / f"l{number}.safetensors", {"transformer": model}, seed=number, size=0.5)
    first, second = {"path": "l0.safetensors"}, {"path": "l1.safetensors", "weight": 0.6, "component": "transformer_2"}
    job = {
        "model": {"checkpoint": "wan22", "adapter": "auto", "dtype": "float32"},
        "prompts": PROMPTS[:1],
        "sampling": {"steps": 6, **size},
        "output": {"save_latents": True, "dir": str(tmp_path / "runs")},
        "matrix": {"model.loras": [[], [first], [second], [first, second], [{**second, "component": None}]]},
    }
    made(tmp_path, job, "experts")
    folder = RunFolder.open(tmp_path / "runs" / "experts" / "latest")
    found = {}
    for item in folder.items():
        loras = item.model.get("loras") or []
        # Loaded anew: diffusers' own does not come back to the base's bits.
        plain = loading.load(Adapter("auto", "any"), checkpoint, dtype="float32", device="cpu")
        for number, lora in enumerate(loras):
            ways = {"load_into_transformer_2": True} if lora.get("component") else {}
            plain.load_lora_weights(lora["path"], adapter_name=f"x{number}", **ways)
        if loras:
            plain.set_adapters([f"x{number}" for number in range(len(loras))], [lora["weight"] for lora in loras])
        generator = torch.Generator().manual_seed(item.seed)
        expected = plain(item.prompt, num_inference_steps=6, generator=generator, output_type="latent", **size)[0]
        latents = next(iter(load_file(folder.latents_path(item.id)).values()))
        assert torch.equal(latents.flatten(), expected.flatten()), loras
        found[item.id] = latents.sum().item()
    assert len(found) == len(set(found.values())) == 5
