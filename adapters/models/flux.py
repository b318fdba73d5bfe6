"""flux: FLUX.1-dev, guidance embedded, flow matching with a shift that its pipeline computes from the resolution."""

from genrun.adapters.adapter import Adapter

ADAPTER = Adapter(
    name="flux",
    title="FLUX.1-dev 12B, text to image: 1024x1024",
    kind="image",
    pipeline="FluxPipeline",
    checkpoint="black-forest-labs/FLUX.1-dev",
    defaults={
        "steps": 50,
        "guidance_scale": 3.5,
        "height": 1024,
        "width": 1024,
    },
    multiples=16,
    needs_true_cfg=True,
    billions={"transformer": 11.9, "text_encoder": 0.1, "text_encoder_2": 4.8},
)
