"""wan2.2: Wan 2.2 A14B, two experts of 14B one after the other, and 5B, which has one and a VAE of 16x16x4.

Which expert is evaluated, the pipeline decides by the timestep of each call, so that a solver may take the steps in any
order. Both experts stay in memory. Schedulers are the checkpoints' own: UniPC on flow matching, shift 3 for A14B and 5 for
5B. Steps, guidance and frame rate as its authors run it; diffusers' documentation has the checkpoints alone.
"""

from dataclasses import replace

from genrun.adapters.adapter import Adapter

_T2V = Adapter(
    name="wan2.2",
    title="Wan 2.2, text to video: A14B at 720p; picture to video, and 5B at 24 frames a second, by checkpoint",
    kind="video",
    pipeline="WanPipeline",
    checkpoint="Wan-AI/Wan2.2-T2V-A14B-Diffusers",
    fps=16,
    defaults={
        "steps": 40,
        "guidance_scale": 4.0,
        "guidance_scale_2": 3.0,
        "height": 720,
        "width": 1280,
        "num_frames": 81,
    },
    multiples=16,
    frames=(4, 1),
    marks={"boundary_ratio": True},
    is_chosen=True,
    billions={"transformer": 14.3, "transformer_2": 14.3, "text_encoder": 5.7},
)
_I2V = replace(
    _T2V,
    pipeline="WanImageToVideoPipeline",
    checkpoint="Wan-AI/Wan2.2-I2V-A14B-Diffusers",
    defaults={"steps": 40, "guidance_scale": 3.5, "height": 480, "width": 832, "num_frames": 81},
)
_T2V_5B = replace(
    _T2V,
    checkpoint="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
    fps=24,
    defaults={"steps": 50, "guidance_scale": 5.0, "height": 704, "width": 1280, "num_frames": 121},
    multiples=32,
    marks={"expand_timesteps": True},
    billions={"transformer": 5.0, "text_encoder": 5.7},
)
_I2V_5B = replace(_T2V_5B, pipeline="WanImageToVideoPipeline", checkpoint=None)

ADAPTER = replace(_T2V, forms=(_I2V, _T2V_5B, _I2V_5B))
