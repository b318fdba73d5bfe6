"""xfuser (xDiT) in place of diffusers' context parallelism: its groups, its transformers, the stock pipeline around them.

xfuser orders its ranks tensor, sequence, pipeline, cfg, data, the last the outermost. Its data dimension holds our data x
time: the ranks that evaluate different points lie as far apart there as those that make different items. It works on GPUs
only, and can be imported nowhere else, so that what is here beyond the refusals has been run on none of our machines:
`tests/gpu/xfuser_smoke.py` compares it with one rank.
"""

# Tests compare its arithmetic with ours where it is installed, without what it needs: it may be there or not.
# pyright: reportMissingImports=false
from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from genrun.adapters.errors import RefusedError

if TYPE_CHECKING:
    from genrun.adapters.parallel.slot import Slot

INSTALL = "pip install 'genrun[xfuser]'"
WRAPPERS = {
    "FluxTransformer2DModel": ("transformer_flux", "xFuserFlux1Transformer2DWrapper"),
    "HunyuanVideoTransformer3DModel": ("transformer_hunyuan_video", "xFuserHunyuanVideoTransformer3DWrapper"),
    "QwenImageTransformer2DModel": ("transformer_qwen", "xFuserQwenImageTransformerWrapper"),
    "WanTransformer3DModel": ("transformer_wan", "xFuserWanTransformer3DWrapper"),
}
"""diffusers' transformers, and those of xfuser that are subclasses of them: module and class."""


def degrees(sizes: dict[str, int]) -> dict[str, int]:
    """Return a mesh, axis -> size, as xfuser's degrees of parallelism."""
    return {
        "data_parallel_degree": sizes["data"] * sizes["time"],
        "classifier_free_guidance_degree": sizes["cfg"],
        "sequence_parallel_degree": sizes["ring"] * sizes["ulysses"],
        "ring_degree": sizes["ring"],
        "ulysses_degree": sizes["ulysses"],
    }


def check(pipe: Any, slot: Slot) -> None:
    """Refuse what cannot be.

    Raises:
        RefusedError: no GPU, no xfuser, or a pipeline or axis that is not for it; the message says what to do.
    """
    import torch

    if not torch.cuda.is_available():
        raise RefusedError("parallel.backend: xfuser needs GPUs, and there is none here; use backend: diffusers")
    if find_spec("xfuser") is None:
        raise RefusedError(f"parallel.backend: xfuser is not installed: {INSTALL}; or use backend: diffusers")
    if slot.cfg > 1:
        raise RefusedError("parallel.cfg: 2 works with parallel.backend: diffusers only; use that, or write cfg: 1")
    name = type(pipe.transformer).__name__ if hasattr(pipe, "transformer") else type(pipe).__name__
    if name not in WRAPPERS:
        raise RefusedError(
            f"parallel.backend: xfuser is not driven for {name}; known are {', '.join(sorted(WRAPPERS))}"
        )


def enable(pipe: Any, slot: Slot) -> None:
    """Put xfuser's transformer in the place of the pipeline's, with its weights, on xfuser's groups.

    Raises:
        RefusedError: as `check`.
    """
    check(pipe, slot)
    import torch.distributed as dist
    from xfuser import xFuserArgs
    from xfuser.core.distributed import (
        initialize_runtime_state,
        runtime_state_is_initialized,
    )

    if not runtime_state_is_initialized():
        slots = dist.get_world_size() // (slot.ring * slot.ulysses)
        arguments = xFuserArgs(
            model=pipe.config._name_or_path,
            data_parallel_degree=slots,
            ring_degree=slot.ring,
            ulysses_degree=slot.ulysses,
        )
        initialize_runtime_state(pipe, arguments.create_config()[0])
    plain = pipe.transformer
    module, name = WRAPPERS[type(plain).__name__]
    wrapper = getattr(import_module(f"xfuser.model_executor.models.transformers.{module}"), name)
    ours = wrapper.from_config(plain.config)
    ours.load_state_dict(plain.state_dict(), assign=True)
    pipe.transformer = ours.to(plain.device).eval()
