"""Items with every kind of addition and input: made again from their files with the same bytes, exported, and reported."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import save_file

from genrun import api
from genrun.runner.store.folder import RunFolder
from tests.preloaded import fork_workers
from tests.tiny.additions import save_controlnet, save_ip_adapter, save_lora
from tests.tiny.checkpoints import save
from tests.tiny.conditioned import KINDS, write_files

pytestmark = pytest.mark.e2e

# Untyped on purpose: diffusers exports nothing to type checkers.
df: Any = import_module("diffusers")

PROMPT = "a red circle"
SMALL = {"steps": 2, "guidance_scale": 4.0, "height": 64, "width": 64}


@dataclass(frozen=True)
class Case:
    """A job with additions or inputs.

    Attributes:
        model: section of the job.
        prompt: the fields of its only prompt besides the text.
        sampling: section of the job.
        matrix: section of the job.
        words: names in the report.
    """

    model: Mapping[str, Any]
    prompt: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=lambda: SMALL)
    matrix: Mapping[str, Any] = field(default_factory=dict)
    words: tuple[str, ...] = ()


LORA = {"path": "lora.safetensors", "weight": 0.7}
CASES = {
    "ip-adapter": Case(
        {"checkpoint": "sd2", "ip_adapter": {"path": "ip", "weight_name": "ip.safetensors"}},
        {"ip_adapter_image": "start.png", "name": "My own"},
    ),
    "two-controlnets": Case(
        {"checkpoint": "sd2", "controlnet": ["one", "two"]},
        {"control_image": ["start.png", "end.png"]},
        {**SMALL, "options": {"controlnet_conditioning_scale": [0.6, 0.3]}},
    ),
    "inpainting": Case(
        {"checkpoint": "fill"},
        {"image": "start.png", "mask": "mask.png"},
        {**KINDS["inpainting"].sampling, "steps": 2},
    ),
    "gguf": Case({"checkpoint": "sd3", "components": {"transformer": "model.gguf"}}, words=("model.gguf",)),
    "one-file": Case({"checkpoint": "sd3", "components": {"transformer": "model.safetensors"}}),
    "loras": Case({"checkpoint": "sd2"}, matrix={"model.loras": [[], [LORA]]}, words=("lora.safetensors",)),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("again")
    write_files(root)
    save("sd2", root)
    save("sd3", root)
    unet = df.StableDiffusionPipeline.from_pretrained(root / "sd2")
    save_controlnet(root / "one", unet)
    save_controlnet(root / "two", unet, "second")
    save_ip_adapter(root / "ip", unet)
    save_lora(root / "lora.safetensors", {"unet": unet.unet}, size=0.3)
    KINDS["inpainting"].make().save_pretrained(root / "fill")
    tensors = df.SD3Transformer2DModel.from_pretrained(root / "sd3", subfolder="transformer").state_dict()
    save_file(tensors, root / "model.safetensors")
    write_gguf(root / "model.gguf", tensors)
    return root


def write_gguf(path: Path, tensors: Mapping[str, Any]) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, "sd3")
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor.numpy())
    steps: tuple[Callable[[], None], ...] = (
        writer.write_header_to_file,
        writer.write_kv_data_to_file,
        writer.write_tensors_to_file,
        writer.close,
    )
    for step in steps:
        step()


@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_items_are_made_again_exported_and_reported(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    fork_workers(monkeypatch)
    case = CASES[name]
    document = {
        "model": {**case.model, "dtype": "float32"},
        "prompts": [{"prompt": PROMPT, **case.prompt} if case.prompt else PROMPT],
        "sampling": dict(case.sampling),
        "matrix": dict(case.matrix),
        "output": {"save_latents": True},
    }
    Path(f"{name}.yaml").write_text(yaml.safe_dump(document))
    api.submit(f"{name}.yaml")
    run = RunFolder.open(root / "runs" / name / "latest")
    items, records = run.items(), run.records()
    assert {record.status for record in records.values()} == {"done"} and len(items) == len(records)

    for item in items:
        media = run.media_path(item, ".png")
        copy = shutil.copy(media, f"{name}-{item.id}.png")
        for file, of_run in ((media, None), (copy, run.path)):
            again = api.rerun(file, run=of_run, out=f"{name}-again")[1]
            assert again.is_identical and again.latents_rms in (0.0, None), item.axes

    exported = {file for files in api.export(run.path, f"{name}-out").files.values() for file in files}
    called = "My-own" if name == "ip-adapter" else "a-red-circle"
    cells = ["none", "lora-safetensors-weight-0-7"] if case.matrix else ["sequential"]
    assert exported >= {f"{number:04}_{called}_0_{cell}.png" for number, cell in enumerate(cells, 1)}

    page = Path(api.report(run.path).path).read_text()
    kept = {file["sha256"] for item in items for files in item.inputs.values() for file in files}
    assert len(kept) == sum(
        len(each) if isinstance(each, list) else 1 for key, each in case.prompt.items() if key != "name"
    )
    assert all(f"inputs/{sha256[:2]}/{sha256}.png" in page for sha256 in kept)
    assert all(word in page for word in case.words)
