"""Model adapters by name: one module each in `adapters/models/`, others by the entry point `genrun.adapters`."""

from genrun.registry import Registry

_REGISTRY = Registry(
    what="model",
    group="genrun.adapters",
    package="genrun.adapters.models",
    own={
        "demo-video": "demo_video:ADAPTER",
        "demo-image": "demo_image:ADAPTER",
        "hunyuanvideo": "hunyuanvideo:ADAPTER",
        "hunyuanvideo-i2v": "hunyuanvideo_i2v:ADAPTER",
        "hunyuanvideo1.5": "hunyuanvideo15:ADAPTER",
        "wan2.1": "wan21:ADAPTER",
        "wan2.1-i2v": "wan21_i2v:ADAPTER",
        "wan2.2": "wan22:ADAPTER",
        "cogvideox1.5": "cogvideox15:ADAPTER",
        "cogvideox1.5-i2v": "cogvideox15_i2v:ADAPTER",
        "ltx2": "ltx2:ADAPTER",
        "mochi": "mochi:ADAPTER",
        "sd3.5": "sd35:ADAPTER",
        "flux": "flux:ADAPTER",
        "flux-kontext": "flux_kontext:ADAPTER",
        "flux2": "flux2:ADAPTER",
        "qwen-image": "qwen_image:ADAPTER",
        "qwen-image-edit": "qwen_image_edit:ADAPTER",
        "z-image": "z_image:ADAPTER",
        "sana": "sana:ADAPTER",
        "sdxl": "sdxl:ADAPTER",
        "sd2": "sd2:ADAPTER",
        "ddpm-church": "ddpm_church:ADAPTER",
        "auto": "auto:ADAPTER",
    },
    hint="; or give a diffusers folder or a hub id (owner/name)",
)
names = _REGISTRY.names
get = _REGISTRY.get
OWN = tuple(_REGISTRY.own)
"""The adapters that come with genrun."""
