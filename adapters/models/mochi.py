"""mochi: Mochi 1 preview 10B, flow matching on noise levels that rise, as its checkpoint says."""

from genrun.adapters.adapter import Adapter

ADAPTER = Adapter(
    name="mochi",
    title="Mochi 1 10B, text to video: 848x480, 85 frames at 30 a second",
    kind="video",
    pipeline="MochiPipeline",
    checkpoint="genmo/mochi-1-preview",
    fps=30,
    defaults={"steps": 64, "guidance_scale": 4.5, "height": 480, "width": 848, "num_frames": 85},
    multiples=16,
    frames=(6, 1),
    is_chosen=True,
    billions={"transformer": 10.0, "text_encoder": 4.8},
)
