"""Seeded weights for tiny models: nothing is left at zero, so every input of a model shows in its output."""

from zlib import crc32

import torch
from torch import Tensor, nn

SPREAD = 0.2


def randomize(name: str, module: nn.Module) -> None:
    """Fill every parameter of `module` with noise that depends on `name` and the parameter's own name only.

    Zero-initialised layers (AdaLN-zero, output projections) would make a fresh model ignore its inputs.
    Matrices and kernels keep their inputs' variance, embeddings are of unit variance, scales of norms stay near
    one, and the rest is small.

    Args:
        name: Name of the component in its pipeline, so that two equal components get different weights.
        module: The model to fill, in place.
    """
    generator = torch.Generator()
    tables = {f"{path}.weight" for path, part in module.named_modules() if isinstance(part, nn.Embedding)}
    with torch.no_grad():
        for path, parameter in module.named_parameters():
            generator.manual_seed(crc32(f"{name}.{path}".encode()))
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise if path in tables else _scaled(path, noise))


def _scaled(path: str, noise: Tensor) -> Tensor:
    leaf = path.rsplit(".", 1)[-1]
    if leaf == "gamma" or (leaf == "weight" and noise.ndim == 1):
        return 1 + SPREAD * noise
    if noise.ndim < 2 or leaf != "weight":
        return SPREAD * noise
    return noise / noise[0].numel() ** 0.5


def cast(module: nn.Module, dtype: torch.dtype) -> None:
    """Give `module` the dtypes that `from_pretrained(..., dtype=dtype)` gives it.

    Some diffusers models (Wan) keep named submodules in float32; `module.to(dtype)` would lose that.

    Args:
        module: The model to cast, in place.
        dtype: Floating dtype wanted.
    """
    kept = set(getattr(module, "_keep_in_fp32_modules", None) or ()) if dtype == torch.bfloat16 else set()
    kept -= {"wo"}  # transformers keeps T5's `wo` in float32 under float16 only
    for path, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point() and kept.isdisjoint(path.split(".")):
            tensor.data = tensor.data.to(dtype)
