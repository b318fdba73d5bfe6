"""cogvideox1.5-i2v: CogVideoX1.5-5B from a picture (arXiv 2408.06072), v-prediction under its checkpoint's scheduler.

Its card has the shorter side at 768 and the longer one up to 1360, in multiples of 16. See `cogvideox15` for the frames.
"""

from genrun.adapters.adapter import Adapter

ADAPTER = Adapter(
    name="cogvideox1.5-i2v",
    title="CogVideoX1.5 5B, picture to video: 1360x768, 81 frames at 16 a second",
    kind="video",
    pipeline="CogVideoXImageToVideoPipeline",
    checkpoint="zai-org/CogVideoX1.5-5B-I2V",
    fps=16,
    defaults={"steps": 50, "guidance_scale": 6.0, "height": 768, "width": 1360, "num_frames": 81},
    multiples=16,
    largest=1360,
    frames=(8, 1),
    marks={"patch_size_t": True},
    is_chosen=True,
    billions={"transformer": 5.6, "text_encoder": 4.8},
)
