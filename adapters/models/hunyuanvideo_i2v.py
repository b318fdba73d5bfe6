"""hunyuanvideo-i2v: HunyuanVideo 13B from a picture (arXiv 2412.03603), 720p.

Of its two releases the newer one has guidance embedded. The first, with 33 channels, is guided by nothing as released, and
its pipeline gives four frames fewer than it is asked for: it cuts off those that stand for the picture.
The scheduler is the checkpoint's own. Sizes and steps are the pipeline's defaults.
"""

from genrun.adapters.adapter import Adapter

ADAPTER = Adapter(
    name="hunyuanvideo-i2v",
    title="HunyuanVideo 13B, picture to video: 720p, 129 frames at 24 a second",
    kind="video",
    pipeline="HunyuanVideoImageToVideoPipeline",
    checkpoint="hunyuanvideo-community/HunyuanVideo-I2V",
    fps=24,
    defaults={"steps": 50, "guidance_scale": 6.0, "height": 720, "width": 1280, "num_frames": 129},
    variants={"hunyuanvideo-community/HunyuanVideo-I2V-33ch": {"guidance_scale": 1.0}},
    multiples=16,
    frames=(4, 1),
    needs_true_cfg=True,
    is_chosen=True,
    billions={"transformer": 12.8, "text_encoder": 8.4, "text_encoder_2": 0.1},
)
