"""hunyuanvideo1.5: HunyuanVideo 1.5 8.3B, from text or a picture, at 480p and 720p.

Guidance is a guider's in the checkpoint, 6 by default and 1 in distilled ones, and no argument of the call. So is the
shift the checkpoint's: 5 at 480p, and at 720p 9 from text and 7 from a picture. The pipeline from a picture takes its size
from that. The facts are those of diffusers' conversion and of the pipelines' defaults; the model's card was not consulted.
"""

from dataclasses import replace

from genrun.adapters.adapter import Adapter

_LARGE = {"height": 720, "width": 1280}

_T2V = Adapter(
    name="hunyuanvideo1.5",
    title="HunyuanVideo 1.5 8.3B, text to video at 480p; 720p and picture to video by checkpoint",
    kind="video",
    pipeline="HunyuanVideo15Pipeline",
    checkpoint="hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v",
    fps=24,
    defaults={"steps": 50, "height": 480, "width": 848, "num_frames": 121},
    variants={
        "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-720p_t2v": _LARGE,
        "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v_distilled": {},
    },
    multiples=16,
    frames=(4, 1),
    lacks=("guidance_scale",),
    is_chosen=True,
    billions={"transformer": 8.3, "text_encoder": 7.1, "text_encoder_2": 0.2},
)
_I2V = replace(
    _T2V,
    pipeline="HunyuanVideo15ImageToVideoPipeline",
    checkpoint="hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_i2v",
    defaults={"steps": 50, "num_frames": 121},
    variants={
        "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-720p_i2v": {},
        "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_i2v_distilled": {},
        "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-720p_i2v_distilled": {},
    },
    lacks=("guidance_scale", "height", "width"),
    billions={"transformer": 8.3, "text_encoder": 7.1, "text_encoder_2": 0.2, "image_encoder": 0.4},
)

ADAPTER = replace(_T2V, forms=(_I2V,))
