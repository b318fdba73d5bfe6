"""sdxl: Stable Diffusion XL base 1.0 (arXiv 2307.01952), noise prediction under the Euler scheduler of its checkpoint."""

from genrun.adapters.adapter import Adapter

ADAPTER = Adapter(
    name="sdxl",
    title="Stable Diffusion XL, text to image: 1024x1024",
    kind="image",
    pipeline="StableDiffusionXLPipeline",
    checkpoint="stabilityai/stable-diffusion-xl-base-1.0",
    dtype="float16",
    defaults={"steps": 50, "guidance_scale": 5.0, "height": 1024, "width": 1024},
    is_chosen=True,
    billions={"unet": 2.6, "text_encoder": 0.1, "text_encoder_2": 0.7},
)
