"""ddpm-church: DDPM on LSUN Church (Ho et al. 2020, arXiv 2006.11239), 256x256 pixels, unconditional.

A prompt only names an item: pictures differ by their seeds.
"""

from genrun.adapters.adapter import Adapter

ADAPTER = Adapter(
    name="ddpm-church",
    title="DDPM on LSUN Church: 256x256 pixels, without text; vary the seeds",
    kind="image",
    pipeline="DDPMPipeline",
    checkpoint="google/ddpm-ema-church-256",
    dtype="float32",
    defaults={"steps": 1000, "scheduler": {"kind": "DDPMScheduler"}},
    lacks=("guidance_scale", "height", "width", "negative_prompt"),
)
