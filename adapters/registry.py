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
        "wan2.1": "wan21:ADAPTER",
        "cogvideox1.5": "cogvideox15:ADAPTER",
        "sd3.5": "sd35:ADAPTER",
        "flux": "flux:ADAPTER",
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
