"""qwen-image: Qwen-Image 20B (arXiv 2508.02324), flow matching with a shift that its pipeline computes from the resolution.

It is guided by a second call, `true_cfg_scale`, which the pipeline makes only where there is a negative prompt: that is a
blank one by default.
"""

from genrun.adapters.adapter import Adapter

ADAPTER = Adapter(
    name="qwen-image",
    title="Qwen-Image 20B, text to image: 1328x1328",
    kind="image",
    pipeline="QwenImagePipeline",
    checkpoint="Qwen/Qwen-Image",
    defaults={"steps": 50, "true_cfg_scale": 4.0, "negative_prompt": " ", "height": 1328, "width": 1328},
    variants={"Qwen/Qwen-Image-2512": {}},
    multiples=16,
    is_chosen=True,
    billions={"transformer": 20.4, "text_encoder": 8.3},
)
