"""What the real architectures hold besides their weights, without weights: the numbers of `runner/memory/estimate.py`.

    python -m tests.bench.activations

Each model is made on the meta device at its real width (a few of its blocks, since they follow one another) and called once
at a usual size, and the storages that are alive at once are added up. Attention counts as its output alone, as flash
attention does.
"""

from __future__ import annotations

import argparse
import weakref
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

df: Any = import_module("diffusers")
HALF = torch.bfloat16
LEVELS = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}


class Alive(TorchDispatchMode):
    """Adds up the storages that operations have made and nothing has freed."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        known = [*model.parameters(), *model.buffers()]
        self._seen = {each.untyped_storage()._cdata for each in known}
        self._now = self.peak_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in tree_leaves(made):
            if isinstance(each, Tensor) and each.untyped_storage()._cdata not in self._seen:
                storage = each.untyped_storage()
                self._seen.add(storage._cdata)
                self._now += storage.nbytes()
                self.peak_bytes = max(self.peak_bytes, self._now)
                weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())
        return made

    def _free(self, key: int, size_bytes: int) -> None:
        self._now -= size_bytes
        self._seen.discard(key)


class Flash(TorchFunctionMode):
    """Attention that holds its output and nothing else."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.scaled_dot_product_attention:
            return torch.empty_like(args[0] if args else (kwargs or {})["query"])
        return func(*args, **(kwargs or {}))


def meta(kind: str, **config: Any) -> Any:
    """A model in bfloat16 without storage."""
    with torch.device("meta"):
        return nn.Module.to(getattr(df, kind)(**config), HALF).eval()


def empty(*shape: int, dtype: torch.dtype = HALF) -> Tensor:
    """An input without storage."""
    return torch.empty(shape, device="meta", dtype=dtype)


def numbers(model: Any, call: Callable[[], Any]) -> float:
    """The most numbers of two bytes that are alive at once in a call."""
    alive = Alive(model)
    with torch.no_grad(), Flash(), alive:
        call()
    return alive.peak_bytes / 2


def flux() -> float:
    """1024 x 1024."""
    model, tokens = meta("FluxTransformer2DModel", guidance_embeds=True, num_layers=2, num_single_layers=2), 4096
    inputs = {"hidden_states": empty(1, tokens, 64), "encoder_hidden_states": empty(1, 512, 4096)}
    inputs |= {"pooled_projections": empty(1, 768), "timestep": empty(1), "guidance": empty(1)}
    inputs |= {"img_ids": empty(tokens, 3), "txt_ids": empty(512, 3)}
    return numbers(model, lambda: model(**inputs)) / (tokens + 512) / 3072


def sd3() -> float:
    """3.5 large at 1024 x 1024."""
    width = {"attention_head_dim": 64, "num_attention_heads": 38, "caption_projection_dim": 2432}
    sizes = {"sample_size": 128, "in_channels": 16, "pos_embed_max_size": 192, "pooled_projection_dim": 2048}
    model = meta("SD3Transformer2DModel", num_layers=3, joint_attention_dim=4096, qk_norm="rms_norm", **width, **sizes)
    inputs = {"hidden_states": empty(2, 16, 128, 128), "encoder_hidden_states": empty(2, 333, 4096)}
    inputs |= {"pooled_projections": empty(2, 2048), "timestep": empty(2)}
    return numbers(model, lambda: model(**inputs)) / 2 / (4096 + 333) / 2432


def hunyuanvideo() -> float:
    """960 x 544, 61 frames."""
    model, (frames, height, width) = (
        meta("HunyuanVideoTransformer3DModel", num_layers=2, num_single_layers=2),
        (16, 68, 120),
    )
    inputs = {"hidden_states": empty(1, 16, frames, height, width), "encoder_hidden_states": empty(1, 256, 4096)}
    inputs |= {"encoder_attention_mask": empty(1, 256), "pooled_projections": empty(1, 768)}
    inputs |= {"timestep": empty(1), "guidance": empty(1)}
    return numbers(model, lambda: model(**inputs)) / (frames * height * width // 4 + 256) / 3072


def wan() -> float:
    """1.3B at 832 x 480, 81 frames."""
    model = meta("WanTransformer3DModel", num_layers=2, num_attention_heads=12, ffn_dim=8960)
    inputs = {"hidden_states": empty(1, 16, 21, 60, 104), "encoder_hidden_states": empty(1, 512, 4096)}
    return numbers(model, lambda: model(timestep=empty(1), **inputs)) / (21 * 30 * 52) / 1536


def cogvideox() -> float:
    """1.5 5B at 1360 x 768, 81 frames."""
    sizes = {"patch_size_t": 2, "patch_bias": False, "sample_width": 170, "sample_height": 96, "sample_frames": 81}
    heads = {"num_attention_heads": 48, "use_rotary_positional_embeddings": True}
    model, tokens = meta("CogVideoXTransformer3DModel", num_layers=2, **heads, **sizes), 11 * 48 * 85
    inputs = {"hidden_states": empty(2, 22, 16, 96, 170), "encoder_hidden_states": empty(2, 226, 4096)}
    rope = (empty(tokens, 64, dtype=torch.float32), empty(tokens, 64, dtype=torch.float32))
    held = numbers(model, lambda: model(timestep=empty(2), image_rotary_emb=rope, **inputs))
    return held / 2 / (tokens + 226) / 3072


def unet() -> float:
    """Stable Diffusion 2 at 768 x 768."""
    heads = {"attention_head_dim": (5, 10, 20, 20), "cross_attention_dim": 1024, "use_linear_projection": True}
    model = meta("UNet2DConditionModel", sample_size=96, **heads)
    held = numbers(model, lambda: model(empty(2, 4, 96, 96), empty(2), encoder_hidden_states=empty(2, 77, 1024)))
    return held / 2 / 96 / 96 / 320


def decoder(kind: str, channels: int, latents: tuple[int, ...], **config: Any) -> float:
    """A VAE's decoder, for each pixel of a frame and each channel of its last block."""
    model = meta(kind, **config)
    model.use_framewise_decoding = False
    return numbers(model, lambda: model.decode(empty(*latents))) / (latents[-1] * latents[-2] * 64) / channels


MODELS: dict[str, Callable[[], float]] = {
    "FluxTransformer2DModel": flux,
    "SD3Transformer2DModel": sd3,
    "HunyuanVideoTransformer3DModel": hunyuanvideo,
    "WanTransformer3DModel": wan,
    "CogVideoXTransformer3DModel": cogvideox,
    "UNet2DConditionModel": unet,
    "AutoencoderKL": lambda: decoder(
        "AutoencoderKL", 128, (1, 16, 128, 128), block_out_channels=(128, 256, 512, 512), latent_channels=16, **LEVELS
    ),
    "AutoencoderKLWan": lambda: decoder("AutoencoderKLWan", 96, (1, 16, 21, 60, 104)),
    "AutoencoderKLQwenImage": lambda: decoder("AutoencoderKLQwenImage", 96, (1, 16, 1, 128, 128)),
    "AutoencoderKLCogVideoX": lambda: decoder("AutoencoderKLCogVideoX", 128, (1, 16, 11, 60, 90), latent_channels=16),
    # Its temporal tiles are of 16 frames and one more.
    "AutoencoderKLHunyuanVideo": lambda: decoder("AutoencoderKLHunyuanVideo", 128, (1, 16, 5, 68, 120)),
}


def main() -> None:
    """Print a line for each model."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for name, measure in MODELS.items():
        print(f"{name:32} {measure():7.1f}", flush=True)


if __name__ == "__main__":
    main()
