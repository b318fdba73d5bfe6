"""Checkpoints that are whole by their names and headers, with next to nothing in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

WEIGHTS = {"diffusers": "diffusion_pytorch_model.safetensors", "transformers": "model.safetensors"}
IMAGES = {
    "_class_name": "DDPMPipeline",
    "unet": ["diffusers", "UNet2DModel"],
    "scheduler": ["diffusers", "DDPMScheduler"],
}
TEXT_TO_IMAGE = {
    "_class_name": "PixArtSigmaPipeline",
    "tokenizer": ["transformers", "T5Tokenizer"],
    "text_encoder": ["transformers", "T5EncoderModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "transformer": ["diffusers", "PixArtTransformer2DModel"],
    "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
}


def tensors(*names: str) -> bytes:
    """A safetensors file of float32 tensors of one number each."""
    header = {
        name: {"dtype": "F32", "shape": [1], "data_offsets": [4 * at, 4 * at + 4]} for at, name in enumerate(names)
    }
    return with_header(header, bytes(4 * len(names)))


def with_header(header: Any, data: bytes = b"") -> bytes:
    """A safetensors file of this header."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def write_checkpoint(folder: Path, index: Mapping[str, Any] = IMAGES) -> Path:
    """Write a pipeline: a denoiser and its scheduler, or another model_index.json."""
    for name, entry in index.items():
        if isinstance(entry, list):
            _write_component(folder / name, *entry)
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _write_component(part: Path, library: str, kind: str) -> None:
    part.mkdir(parents=True, exist_ok=True)
    if kind.endswith("Scheduler"):
        (part / "scheduler_config.json").write_text(json.dumps({"_class_name": kind}))
    elif kind.endswith("Tokenizer"):
        (part / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {}}}))
        (part / "tokenizer_config.json").write_text("{}")
        (part / "spiece.model").write_bytes(b"vocabulary")
    else:
        (part / "config.json").write_text(json.dumps({"_class_name": kind}))
        (part / WEIGHTS[library]).write_bytes(tensors("proj_in.weight", "proj_out.weight"))
