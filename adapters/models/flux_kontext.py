"""flux-kontext: FLUX.1-Kontext-dev 12B (arXiv 2506.15742), which changes a picture as a prompt says; guidance embedded.

Its pipeline scales a size that is asked for to `max_area` pixels; an item gives its own size for that, so that pictures
come out as large as they are asked for.
"""

from genrun.adapters.adapter import Adapter

ADAPTER = Adapter(
    name="flux-kontext",
    title="FLUX.1-Kontext-dev 12B, image editing: 1024x1024",
    kind="image",
    pipeline="FluxKontextPipeline",
    checkpoint="black-forest-labs/FLUX.1-Kontext-dev",
    defaults={"steps": 28, "guidance_scale": 2.5, "height": 1024, "width": 1024},
    multiples=16,
    needs_true_cfg=True,
    is_chosen=True,
    billions={"transformer": 11.9, "text_encoder": 0.1, "text_encoder_2": 4.8},
)
