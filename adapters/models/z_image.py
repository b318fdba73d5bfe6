"""z-image: Z-Image 6B (arXiv 2511.22699), Turbo in eight steps without guidance, and the base model.

A folder does not tell which of the two it holds, and has the pipeline's own steps and guidance, for the base model. For
Turbo in a folder write `sampling: {steps: 8, guidance_scale: 0.0}`.
"""

from genrun.adapters.adapter import Adapter

ADAPTER = Adapter(
    name="z-image",
    title="Z-Image 6B, text to image: 1024x1024; Turbo, or the base model with checkpoint Tongyi-MAI/Z-Image",
    kind="image",
    pipeline="ZImagePipeline",
    checkpoint="Tongyi-MAI/Z-Image-Turbo",
    defaults={"steps": 50, "guidance_scale": 5.0, "height": 1024, "width": 1024},
    variants={
        "Tongyi-MAI/Z-Image-Turbo": {"steps": 8, "guidance_scale": 0.0},
        "Tongyi-MAI/Z-Image": {"guidance_scale": 4.0},
    },
    multiples=16,
    is_chosen=True,
    billions={"transformer": 6.2, "text_encoder": 4.0},
)
