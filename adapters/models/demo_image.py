"""demo-image: a small stock Stable Diffusion 3 (flow matching), trained on drawn scenes by `adapters/training/train.py`."""

from pathlib import Path

from genrun.adapters.adapter import Adapter

ADAPTER = Adapter(
    name="demo-image",
    title="64x64 pictures of coloured shapes; ships with genrun, runs on a laptop",
    kind="image",
    pipeline="StableDiffusion3Pipeline",
    checkpoint=Path(__file__).parents[1] / "demo" / "weights" / "demo-image",
    dtype="float32",
    fps=8,
    defaults={
        "steps": 50,
        "guidance_scale": 5.0,
        "height": 64,
        "width": 64,
    },
    multiples=16,
    largest=64,
    call={"max_sequence_length": 12},
    captions="demo",
)
