"""flux2: FLUX.2, from text or from pictures: dev 32B with guidance embedded, and klein 4B and 9B.

Klein is distilled to four steps without guidance; its base models are guided by a second call, and have no negative prompt
either. The shift is computed by the pipelines from the number of tokens and of steps.
"""

from dataclasses import replace

from genrun.adapters.adapter import Adapter

_SIZE = {"height": 1024, "width": 1024}

_DEV = Adapter(
    name="flux2",
    title="FLUX.2: dev 32B, text to image or image editing: 1024x1024; klein 4B and 9B by checkpoint",
    kind="image",
    pipeline="Flux2Pipeline",
    checkpoint="black-forest-labs/FLUX.2-dev",
    defaults={"steps": 50, "guidance_scale": 4.0, **_SIZE},
    multiples=16,
    lacks=("negative_prompt",),
    is_chosen=True,
    billions={"transformer": 32.2, "text_encoder": 24.0},
)
_KLEIN = replace(
    _DEV,
    pipeline="Flux2KleinPipeline",
    checkpoint="black-forest-labs/FLUX.2-klein-4B",
    defaults={"steps": 4, "guidance_scale": 1.0, **_SIZE},
    variants={"black-forest-labs/FLUX.2-klein-9B": {}},
    marks={"is_distilled": True},
    billions={"transformer": 4.0, "text_encoder": 4.0},
)
_KLEIN_BASE = replace(
    _KLEIN,
    checkpoint="black-forest-labs/FLUX.2-klein-base-4B",
    defaults={"steps": 50, "guidance_scale": 4.0, **_SIZE},
    variants={"black-forest-labs/FLUX.2-klein-base-9B": {}},
    marks={"is_distilled": False},
)

ADAPTER = replace(_DEV, forms=(_KLEIN, _KLEIN_BASE))
