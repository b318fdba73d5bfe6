"""sd3.5: Stable Diffusion 3.5 (Esser et al. 2024, arXiv 2403.03206), large and medium, flow matching with shift 3."""

from genrun.adapters.adapter import Adapter

ADAPTER = Adapter(
    name="sd3.5",
    title="Stable Diffusion 3.5: large; medium with checkpoint stabilityai/stable-diffusion-3.5-medium",
    kind="image",
    pipeline="StableDiffusion3Pipeline",
    checkpoint="stabilityai/stable-diffusion-3.5-large",
    defaults={
        "steps": 28,
        "guidance_scale": 3.5,
        "height": 1024,
        "width": 1024,
        "scheduler": {"kind": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
    },
    variants={"stabilityai/stable-diffusion-3.5-medium": {"steps": 40, "guidance_scale": 4.5}},
    multiples=16,
    billions={"transformer": 8.1, "text_encoder": 0.1, "text_encoder_2": 0.7, "text_encoder_3": 4.8},
)
