"""wan2.1: Wan 2.1 (arXiv 2503.20314), 1.3B at 480p and 14B at 720p, under UniPC on flow matching as released.

The shift goes with the resolution: 3 at 480p, 5 at 720p. For Euler instead, name the scheduler in the job:
`scheduler: {kind: FlowMatchEulerDiscreteScheduler, shift: 3.0}`.
"""

from collections.abc import Mapping
from typing import Any

from genrun.adapters.adapter import Adapter


def unipc(flow_shift: float) -> Mapping[str, Any]:
    """Return UniPC on flow matching with a shift, as a section `scheduler`."""
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": flow_shift}
    return {"kind": "UniPCMultistepScheduler", **flow}


ADAPTER = Adapter(
    name="wan2.1",
    title="Wan 2.1, text to video: 1.3B at 480p; 14B at 720p with checkpoint Wan-AI/Wan2.1-T2V-14B-Diffusers",
    kind="video",
    pipeline="WanPipeline",
    checkpoint="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    fps=16,
    defaults={
        "steps": 50,
        "guidance_scale": 5.0,
        "height": 480,
        "width": 832,
        "num_frames": 81,
        "scheduler": unipc(3.0),
    },
    variants={"Wan-AI/Wan2.1-T2V-14B-Diffusers": {"height": 720, "width": 1280, "scheduler": unipc(5.0)}},
    multiples=16,
    frames=(4, 1),
    billions={"transformer": 1.4, "text_encoder": 5.7},
)
