"""ltx2: LTX-2 19B, video and sound together, from text or a picture; LTX-2.3 by checkpoint.

Two schedulers step in turn, the picture's and the sound's, of which a solver makes one state. Shift by the number of
tokens, as its checkpoint says. Guidance is CFG, another one between the two, and one against a skipped block, all by
options of the call. The facts are those of the pipeline's documentation and defaults.
"""

from dataclasses import replace

from genrun.adapters.adapter import Adapter

_T2V = Adapter(
    name="ltx2",
    title="LTX-2 19B, text to video with sound: 768x512, 121 frames at 24 a second; picture to video by checkpoint",
    kind="video",
    pipeline="LTX2Pipeline",
    checkpoint="Lightricks/LTX-2",
    fps=24,
    defaults={"steps": 30, "guidance_scale": 3.0, "height": 512, "width": 768, "num_frames": 121},
    variants={"diffusers/LTX-2.3-Diffusers": {}},
    multiples=32,
    frames=(8, 1),
    is_chosen=True,
    sound=True,
    billions={"transformer": 18.9, "text_encoder": 12.2},
)

ADAPTER = replace(_T2V, forms=(replace(_T2V, pipeline="LTX2ImageToVideoPipeline", checkpoint=None, variants={}),))
