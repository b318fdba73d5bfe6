"""qwen-image-edit: Qwen-Image-Edit 20B (arXiv 2508.02324), which changes a picture as a prompt says.

A picture comes out with about a million pixels, in the shape of the one that went in, unless a size is asked for. Guided as
`qwen_image` is. Steps and guidance are the pipelines' defaults.
"""

from dataclasses import replace

from genrun.adapters.adapter import Adapter

_PLUS = Adapter(
    name="qwen-image-edit",
    title="Qwen-Image-Edit 20B, image editing: about 1024x1024",
    kind="image",
    pipeline="QwenImageEditPlusPipeline",
    checkpoint="Qwen/Qwen-Image-Edit-2509",
    defaults={"steps": 50, "true_cfg_scale": 4.0, "negative_prompt": " "},
    variants={"Qwen/Qwen-Image-Edit-2511": {}},
    multiples=16,
    is_chosen=True,
    billions={"transformer": 20.4, "text_encoder": 8.3},
)

ADAPTER = replace(
    _PLUS, forms=(replace(_PLUS, pipeline="QwenImageEditPipeline", checkpoint="Qwen/Qwen-Image-Edit", variants={}),)
)
