"""VBench's 16 dimensions: how they are scaled and weighed into quality, semantic and total, and what each one needs.

    scaled = (x - low) / (high - low)
    quality, semantic = weighted means of the scaled dimensions of that kind
    total = (4 quality + semantic) / 5

Beside them stand two of its image-to-video suite, which compare a clip with its start image. Ranges and weights are those of
VBench's leaderboard (its scripts/constant.py); files and their places those that vbench 0.1.5 looks for in its cache folder,
when told to work with local files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

QUALITY_WEIGHT = 4
SEMANTIC_WEIGHT = 1


@dataclass(frozen=True)
class Weights:
    """A file or folder of weights.

    Attributes:
        path: in vbench's cache folder.
        source: where its authors publish it.
    """

    path: str
    source: str


@dataclass(frozen=True)
class Dimension:
    """A dimension: its scale, its weight, and what it needs.

    Attributes:
        name: of vbench's module and of its result.
        kind: which mean it goes into.
        needs: weights it looks for.
        low: end of the scale.
        high: end of the scale.
        weight: in its mean.
        custom: whether it can be measured on prompts that are not VBench's own.
        modules: Python packages that `pip install vbench` does not bring, as pip names them.
        hub: checkpoints that it loads from the Hugging Face cache.
        unit: what a single video's result is divided by to be on the dimension's scale.
    """

    name: str
    kind: Literal["quality", "semantic", "i2v"]
    needs: tuple[Weights, ...] = ()
    low: float = 0.0
    high: float = 1.0
    weight: float = 1.0
    custom: bool = True
    modules: tuple[str, ...] = ()
    hub: tuple[str, ...] = ()
    unit: float = 1.0

    def scaled(self, value: float) -> float:
        """Return a result on the scale of the leaderboard."""
        return (value - self.low) / (self.high - self.low)


_CLIP = "https://openaipublic.azureedge.net/clip/models/"
_USED = "https://huggingface.co/OpenGVLab/VBench_Used_Models/resolve/main/"
VIT_B_32 = Weights(
    "clip_model/ViT-B-32.pt", f"{_CLIP}40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt"
)
VIT_L_14 = Weights(
    "clip_model/ViT-L-14.pt", f"{_CLIP}b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt"
)
DINO = (
    Weights("dino_model/facebookresearch_dino_main", "git clone https://github.com/facebookresearch/dino"),
    Weights(
        "dino_model/dino_vitbase16_pretrain.pth",
        "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth",
    ),
)
AESTHETIC = Weights(
    "aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth",
    "https://github.com/LAION-AI/aesthetic-predictor/blob/main/sa_0_4_vit_l_14_linear.pth?raw=true",
)
MUSIQ = Weights(
    "pyiqa_model/musiq_spaq_ckpt-358bb6af.pth",
    "https://github.com/chaofengc/IQA-PyTorch/releases/download/v0.1-weights/musiq_spaq_ckpt-358bb6af.pth",
)
AMT = Weights("amt_model/amt-s.pth", "https://huggingface.co/lalala125/AMT/resolve/main/amt-s.pth")
RAFT = Weights(
    "raft_model/models/raft-things.pth", "https://dl.dropboxusercontent.com/s/4j4z58wuv8o0mfz/models.zip (unpack it)"
)
GRIT = Weights(
    "grit_model/grit_b_densecap_objectdet.pth",
    "https://datarelease.blob.core.windows.net/grit/models/grit_b_densecap_objectdet.pth",
)
TAG2TEXT = Weights(
    "caption_model/tag2text_swin_14m.pth",
    "https://huggingface.co/spaces/xinyu1205/recognize-anything/resolve/main/tag2text_swin_14m.pth",
)
VICLIP = (
    Weights("ViCLIP/ViClip-InternVid-10M-FLT.pth", f"{_USED}ViClip-InternVid-10M-FLT.pth"),
    Weights(
        "ViCLIP/bpe_simple_vocab_16e6.txt.gz",
        "https://raw.githubusercontent.com/openai/CLIP/main/clip/bpe_simple_vocab_16e6.txt.gz",
    ),
)
UMT = Weights("umt_model/l16_ptk710_ftk710_ftk400_f16_res224.pth", f"{_USED}l16_ptk710_ftk710_ftk400_f16_res224.pth")
DREAMSIM = (
    Weights(
        "dreamsim_model/clip_vitb16_lora",
        "https://github.com/ssundaram21/dreamsim/releases/download/v0.1.0/dreamsim_checkpoint.zip (unpack it)",
    ),
    Weights("dreamsim_model/facebookresearch_dino_main", "git clone https://github.com/facebookresearch/dino"),
    DINO[1],
)
BERT = ("bert-base-uncased",)


def _grit(name: str) -> Dimension:
    return Dimension(name, "semantic", (GRIT,), custom=False, modules=("detectron2",), hub=BERT)


DIMENSIONS: Mapping[str, Dimension] = {
    dimension.name: dimension
    for dimension in (
        Dimension("subject_consistency", "quality", DINO, low=0.1462),
        Dimension("background_consistency", "quality", (VIT_B_32,), low=0.2615),
        Dimension("temporal_flickering", "quality", low=0.6293),
        Dimension("motion_smoothness", "quality", (AMT,), low=0.706, high=0.9975),
        Dimension("dynamic_degree", "quality", (RAFT,), weight=0.5),
        Dimension("aesthetic_quality", "quality", (VIT_L_14, AESTHETIC)),
        Dimension("imaging_quality", "quality", (MUSIQ,), unit=100.0),
        _grit("object_class"),
        _grit("multiple_objects"),
        Dimension("human_action", "semantic", (UMT,)),
        _grit("color"),
        _grit("spatial_relationship"),
        Dimension("scene", "semantic", (TAG2TEXT,), high=0.8222, custom=False, hub=BERT),
        Dimension("appearance_style", "semantic", (VIT_B_32,), low=0.0009, high=0.2855, custom=False),
        Dimension("temporal_style", "semantic", VICLIP, high=0.364),
        Dimension("overall_consistency", "semantic", VICLIP, high=0.364),
    )
}

I2V: Mapping[str, Dimension] = {
    dimension.name: dimension
    for dimension in (
        Dimension("i2v_subject", "i2v", DINO, low=0.1462),
        Dimension("i2v_background", "i2v", DREAMSIM, low=0.2615, modules=("dreamsim",)),
    )
}
ALL: Mapping[str, Dimension] = {**DIMENSIONS, **I2V}
I2V_SUITE = (*I2V, *(name for name, dimension in DIMENSIONS.items() if dimension.kind == "quality"))
"""Dimensions in which VBench measures clips made from pictures, but for camera_motion."""

CAMERA_MOTION = "camera_motion"
NO_TRACKER = "vbench 0.1.5's package lacks the tracker of points (CoTracker) that camera_motion follows the camera with"


def combined(values: Mapping[str, float]) -> dict[str, float]:
    """Return quality, semantic and total, each where all of its dimensions have a value.

    Args:
        values: dimension -> result, as vbench gives it.

    Returns:
        Some of "quality", "semantic", "total".
    """
    found: dict[str, float] = {}
    for kind in ("quality", "semantic"):
        members = [dimension for dimension in DIMENSIONS.values() if dimension.kind == kind]
        if all(member.name in values for member in members):
            weighted = sum(member.weight * member.scaled(values[member.name]) for member in members)
            found[kind] = weighted / sum(member.weight for member in members)
    if len(found) == 2:
        weighted = QUALITY_WEIGHT * found["quality"] + SEMANTIC_WEIGHT * found["semantic"]
        found["total"] = weighted / (QUALITY_WEIGHT + SEMANTIC_WEIGHT)
    return found
