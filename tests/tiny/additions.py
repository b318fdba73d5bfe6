"""LoRAs, ControlNets and adapters for the tiny pipelines, with seeded weights that show in the pictures."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from .weights import randomize

df: Any = import_module("diffusers")

PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0", "q_proj", "v_proj")


def lora_tensors(
    model: nn.Module, component: str, rank: int = 2, seed: int = 0, size: float = 1.0
) -> dict[str, Tensor]:
    """A LoRA on every projection of attention of a model, in the format of diffusers."""
    found, generator = {}, torch.Generator()
    for path, layer in model.named_modules():
        if not isinstance(layer, nn.Linear) or not path.endswith(PROJECTIONS):
            continue
        outputs, inputs = layer.weight.shape
        generator.manual_seed(seed + crc32(path.encode()))
        name = f"{component}.{path}"
        found[f"{name}.lora_A.weight"] = torch.randn(rank, inputs, generator=generator) / inputs**0.5
        found[f"{name}.lora_B.weight"] = size * torch.randn(outputs, rank, generator=generator)
    return found


def save_lora(path: Path, parts: Mapping[str, nn.Module], rank: int = 2, seed: int = 0, size: float = 1.0) -> Path:
    """Save a LoRA on components of a pipeline."""
    tensors: dict[str, Tensor] = {}
    for component, model in parts.items():
        tensors |= lora_tensors(model, component, rank, seed, size)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


def save_controlnet(folder: Path, pipe: Any, name: str = "controlnet") -> Path:
    """Save a ControlNet made of the denoiser of a tiny Stable Diffusion."""
    model = df.ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(8, 8, 8, 16))
    randomize(name, model)
    model.save_pretrained(folder)
    return folder


def save_union(folder: Path, pipe: Any) -> Path:
    """Save a ControlNet of four kinds of control for the UNet of a tiny Stable Diffusion XL."""
    width, config = pipe.unet.config.block_out_channels[0], pipe.unet.config
    taken = inspect.signature(df.ControlNetUnionModel.__init__).parameters.keys() & config.keys()
    model = df.ControlNetUnionModel(
        **{name: config[name] for name in taken},
        conditioning_embedding_out_channels=(8, 8, 8, 16),
        num_control_type=4,
        num_trans_channel=width,
        num_proj_channel=width,
        num_trans_head=2,
    )
    randomize("controlnet", model)
    model.save_pretrained(folder)
    return folder


def save_t2i_adapter(folder: Path, pipe: Any) -> Path:
    """Save a T2I-Adapter as wide as the UNet of a tiny Stable Diffusion."""
    channels = list(pipe.unet.config.block_out_channels)
    model = df.T2IAdapter(3, channels=channels, num_res_blocks=1, downscale_factor=8, adapter_type="full_adapter")
    randomize("adapter", model)
    model.save_pretrained(folder)
    return folder


def save_ip_adapter(folder: Path, pipe: Any) -> Path:
    """Save an IP-Adapter for the UNet of a tiny Stable Diffusion, and its encoder of pictures."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes, projection_dim=12, image_size=32, patch_size=8))
    randomize("image_encoder", encoder)
    encoder.save_pretrained(folder / "image_encoder")
    width, generator, tensors = pipe.unet.config.cross_attention_dim, torch.Generator().manual_seed(7), {}
    crossing = [name for name in pipe.unet.attn_processors if name.endswith("attn2.processor")]
    for number, name in enumerate(crossing):
        layer = pipe.unet.get_submodule(name.removesuffix(".processor")).to_k
        for side in ("to_k_ip", "to_v_ip"):
            tensors[f"ip_adapter.{2 * number + 1}.{side}.weight"] = torch.randn(layer.weight.shape, generator=generator)
    tensors["image_proj.proj.weight"] = torch.randn(4 * width, 12, generator=generator)
    tensors["image_proj.proj.bias"] = torch.randn(4 * width, generator=generator)
    tensors["image_proj.norm.weight"] = torch.ones(width)
    tensors["image_proj.norm.bias"] = torch.zeros(width)
    save_file(tensors, folder / "ip.safetensors")
    return folder
