"""demo-video: a small stock CogVideoX (v-prediction, DDIM), trained on drawn scenes by `adapters/training/train.py`."""

from pathlib import Path

from genrun.adapters.adapter import Adapter

ADAPTER = Adapter(
    name="demo-video",
    title="9 frames of 64x64: coloured shapes that move; ships with genrun, runs on a laptop",
    kind="video",
    pipeline="CogVideoXPipeline",
    checkpoint=Path(__file__).parents[1] / "demo" / "weights" / "demo-video",
    dtype="float32",
    fps=8,
    defaults={
        "steps": 50,
        "guidance_scale": 5.0,
        "height": 64,
        "width": 64,
        "num_frames": 9,
    },
    frames=(8, 1),
    also_frames=((8, 0),),
    multiples=16,
    call={"max_sequence_length": 12},
    captions="demo",
)
