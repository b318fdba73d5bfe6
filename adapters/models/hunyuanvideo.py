"""hunyuanvideo: HunyuanVideo 13B (Kong et al. 2024, arXiv 2412.03603), guidance embedded, flow matching with shift 7."""

from genrun.adapters.adapter import Adapter

ADAPTER = Adapter(
    name="hunyuanvideo",
    title="HunyuanVideo 13B, text to video: 720p, 129 frames at 24 a second",
    kind="video",
    pipeline="HunyuanVideoPipeline",
    checkpoint="hunyuanvideo-community/HunyuanVideo",
    fps=24,
    defaults={
        "steps": 50,
        "guidance_scale": 6.0,
        "height": 720,
        "width": 1280,
        "num_frames": 129,
        "scheduler": {"kind": "FlowMatchEulerDiscreteScheduler", "shift": 7.0},
    },
    multiples=16,
    frames=(4, 1),
    needs_true_cfg=True,
    billions={"transformer": 12.8, "text_encoder": 7.5, "text_encoder_2": 0.1},
)
