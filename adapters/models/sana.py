"""sana: Sana 1.6B (arXiv 2410.10629) and Sana 1.5 (arXiv 2501.18427), linear attention, DPM-Solver++ on flow matching.

The scheduler, with shift 3, is the checkpoint's. Its pipeline draws in the nearest of the model's own sizes and resizes what
came out; with `options: {use_resolution_binning: false}` it draws in the size that is asked for.
"""

from genrun.adapters.adapter import Adapter

ADAPTER = Adapter(
    name="sana",
    title="Sana 1.6B, text to image: 1024x1024; Sana 1.5 by checkpoint",
    kind="image",
    pipeline="SanaPipeline",
    checkpoint="Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers",
    defaults={"steps": 20, "guidance_scale": 4.5, "height": 1024, "width": 1024},
    variants={
        "Efficient-Large-Model/SANA1.5_1.6B_1024px_diffusers": {},
        "Efficient-Large-Model/Sana_1600M_512px_diffusers": {"height": 512, "width": 512},
    },
    multiples=32,
    is_chosen=True,
    billions={"transformer": 1.6, "text_encoder": 2.6},
)
