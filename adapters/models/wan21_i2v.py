"""wan2.1-i2v: Wan 2.1 14B from a picture (arXiv 2503.20314), at 480p and 720p, and from a first and a last frame.

The shift goes with the resolution, 3 at 480p and 5 at 720p; the model of two frames has 16. A folder keeps the scheduler
that lies in it: a class does not tell which of the three it holds.
"""

from genrun.adapters.adapter import Adapter
from genrun.adapters.models.wan21 import unipc

ADAPTER = Adapter(
    name="wan2.1-i2v",
    title="Wan 2.1 14B, picture to video at 480p; 720p and first-and-last-frame by checkpoint",
    kind="video",
    pipeline="WanImageToVideoPipeline",
    checkpoint="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
    fps=16,
    defaults={"steps": 50, "guidance_scale": 5.0, "height": 480, "width": 832, "num_frames": 81},
    variants={
        "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers": {"scheduler": unipc(3.0)},
        "Wan-AI/Wan2.1-I2V-14B-720P-Diffusers": {"height": 720, "width": 1280, "scheduler": unipc(5.0)},
        "Wan-AI/Wan2.1-FLF2V-14B-720P-diffusers": {
            "guidance_scale": 5.5,
            "height": 720,
            "width": 1280,
            "scheduler": unipc(16.0),
        },
    },
    multiples=16,
    frames=(4, 1),
    marks={"boundary_ratio": False, "expand_timesteps": False},
    is_chosen=True,
    billions={"transformer": 16.4, "text_encoder": 5.7, "image_encoder": 0.6},
)
