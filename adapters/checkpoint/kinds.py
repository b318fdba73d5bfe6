"""Kinds of weights in one file, told from the names of its tensors: a LoRA is no checkpoint, and a VAE no denoiser."""

from __future__ import annotations

import re
from collections.abc import Collection

from genrun.adapters.checkpoint.index import CheckpointError
from genrun.adapters.checkpoint.lora import LAYER, OTHER_KINDS

LORA, CONTROLNET, IP_ADAPTER, T2I_ADAPTER = "a LoRA", "a ControlNet", "an IP-Adapter", "a T2I-Adapter"
EMBEDDING, VAE, UNET = "a textual inversion", "a VAE", "a UNet"

_PREFIX = r"(model\.diffusion_model\.|diffusion_model\.|first_stage_model\.|control_model\.|vae\.|unet\.|model\.)?"
_CONTROLNET = re.compile(_PREFIX + r"(controlnet_|input_hint_block\.|zero_convs\.)")
_EMBEDDINGS = {"emb_params", "string_to_param", "clip_l", "clip_g", "t5xxl"}
_VAE = re.compile(r"(first_stage_model\.|vae\.|model\.)?(encoder|decoder)(_unet)?\.")
_BESIDE_VAE = re.compile(_PREFIX + r"((post_)?quant_conv|conv[12]\.|per_channel_statistics|bn\.|latents?_)")
_UNET = re.compile(_PREFIX + r"(down_blocks|up_blocks|input_blocks|output_blocks)\.")

DENOISERS = (LORA, EMBEDDING, IP_ADAPTER, T2I_ADAPTER, CONTROLNET, VAE)
"""Kinds that are no denoiser, and no checkpoint of a pipeline."""


def kind_of(names: Collection[str]) -> str | None:
    """Return the kind of a file of weights, or None where the names of its tensors do not tell."""
    layers = sum(1 for name in names if LAYER.fullmatch(name) or OTHER_KINDS.search(name) or name.endswith(".alpha"))
    tests = {
        LORA: layers > len(names) / 2,
        EMBEDDING: len(names) <= len(_EMBEDDINGS) and _EMBEDDINGS.issuperset(names),
        IP_ADAPTER: all(name.startswith(("image_proj.", "ip_adapter.", "proj_in.")) for name in names),
        T2I_ADAPTER: all(name.startswith(("adapter.", "body.", "conv_in.")) for name in names),
        # Of a checkpoint of Stable Diffusion with a ControlNet in it, the denoiser counts.
        CONTROLNET: any(map(_CONTROLNET.match, names)) and not any("output_blocks." in name for name in names),
        VAE: all(_VAE.match(name) or _BESIDE_VAE.match(name) for name in names),
        UNET: any(map(_UNET.match, names)) and not any(map(_VAE.match, names)),
    }
    return next((kind for kind, is_it in tests.items() if is_it), None)


def refuse_kind(names: Collection[str], name: str, wanted: str, kinds: Collection[str] = DENOISERS) -> None:
    """Refuse a file that is of another kind than it is named for.

    Args:
        names: of its tensors.
        name: what messages call it.
        wanted: what it is named for.
        kinds: that it must not be.

    Raises:
        CheckpointError: it is of one of the kinds.
    """
    kind = kind_of(names)
    if kind is not None and kind in kinds:
        raise CheckpointError(f"{name} is {kind}, and {wanted} is wanted there", REMEDIES.get(kind, "Name another"))


REMEDIES = {
    LORA: "Name it under loras: [{path: FILE}]",
    CONTROLNET: "Name the folder of the ControlNet under controlnet",
    IP_ADAPTER: "Name it under ip_adapter: {path: FOLDER, weight_name: FILE}",
    T2I_ADAPTER: "Name the folder of the adapter under t2i_adapter",
    EMBEDDING: "genrun takes no textual inversions: leave it out",
    VAE: "Name it under components: {vae: FILE}",
}
