"""Properties of a pipeline's pictures, known without loading it: from its class, and its VAE's and denoiser's configs.

Diffusers rounds numbers of frames and sizes that a VAE cannot give, and says so in a log that nobody reads. The frame rate
of a pipeline stands only in the examples of its documentation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from genrun.adapters import registry
from genrun.adapters.adapter import NUMBER_FIELDS, Adapter, Frames
from genrun.adapters.checkpoint.index import INDEX, components_of
from genrun.adapters.checkpoint.pipeline_classes import call_parameters

FPS = {
    "AllegroPipeline": 15,
    "AnimateDiffControlNetPipeline": 8,
    "AnimateDiffPAGPipeline": 8,
    "AnimateDiffPipeline": 8,
    "AnimateDiffSDXLPipeline": 8,
    "AnimateDiffSparseControlNetPipeline": 8,
    "AnimateDiffVideoToVideoControlNetPipeline": 8,
    "AnimateDiffVideoToVideoPipeline": 8,
    "AnyFlowFARPipeline": 16,
    "AnyFlowPipeline": 16,
    "ChronoEditPipeline": 16,
    "CogVideoXFunControlPipeline": 8,
    "CogVideoXImageToVideoPipeline": 8,
    "CogVideoXPipeline": 8,
    "CogVideoXVideoToVideoPipeline": 8,
    "ConsisIDPipeline": 8,
    "Cosmos2VideoToWorldPipeline": 16,
    "Cosmos2_5_PredictBasePipeline": 16,
    "Cosmos2_5_TransferPipeline": 30,
    "Cosmos3OmniPipeline": 24,
    "CosmosTextToWorldPipeline": 30,
    "CosmosVideoToWorldPipeline": 30,
    "EasyAnimateControlPipeline": 8,
    "EasyAnimateInpaintPipeline": 8,
    "EasyAnimatePipeline": 8,
    "HeliosPipeline": 24,
    "HeliosPyramidPipeline": 24,
    "HunyuanSkyreelsImageToVideoPipeline": 24,
    "HunyuanVideo15ImageToVideoPipeline": 24,
    "HunyuanVideo15Pipeline": 24,
    "HunyuanVideoFramepackPipeline": 30,
    "HunyuanVideoImageToVideoPipeline": 24,
    "HunyuanVideoPipeline": 24,
    "I2VGenXLPipeline": 16,
    "Kandinsky5I2VPipeline": 24,
    "Kandinsky5T2VPipeline": 24,
    "Kandinsky6TI2VAPipeline": 24,
    "LTX2ConditionPipeline": 24,
    "LTX2DFRPipeline": 24,
    "LTX2HDRPipeline": 24,
    "LTX2ImageToVideoPipeline": 24,
    "LTX2InContextPipeline": 24,
    "LTX2Pipeline": 24,
    "LTXConditionPipeline": 25,
    "LTXI2VLongMultiPromptPipeline": 25,
    "LTXImageToVideoPipeline": 25,
    "LTXPipeline": 25,
    "LattePipeline": 8,
    "LucyEditPipeline": 24,
    "MochiPipeline": 30,
    "MotifVideoImage2VideoPipeline": 24,
    "MotifVideoPipeline": 24,
    "PIAPipeline": 8,
    "SanaImageToVideoPipeline": 16,
    "SanaVideoPipeline": 16,
    "SanaWMPipeline": 16,
    "SkyReelsV2DiffusionForcingImageToVideoPipeline": 24,
    "SkyReelsV2DiffusionForcingPipeline": 24,
    "SkyReelsV2DiffusionForcingVideoToVideoPipeline": 24,
    "SkyReelsV2ImageToVideoPipeline": 24,
    "SkyReelsV2Pipeline": 24,
    "StableVideoDiffusionPipeline": 7,
    "TextToVideoSDPipeline": 8,
    "TextToVideoZeroPipeline": 4,
    "TextToVideoZeroSDXLPipeline": 4,
    "VideoToVideoSDPipeline": 8,
    "WanAnimatePipeline": 30,
    "WanImageToVideoPipeline": 16,
    "WanPipeline": 16,
    "WanVACEPipeline": 16,
    "WanVideoToVideoPipeline": 16,
}
"""Video pipelines of diffusers, with the frame rate that their models are trained at."""

OPEN = "auto"
"""The adapter that leaves everything to the checkpoint."""

COGVIDEOX15_FPS = 16
"""Frame rate of CogVideoX1.5, whose class is that of CogVideoX; it is known by its denoiser's patches in time."""

PICTURE_VAES = frozenset(
    {
        "AsymmetricAutoencoderKL",
        "AutoencoderDC",
        "AutoencoderKL",
        "AutoencoderKLFlux2",
        "AutoencoderKLHunyuanImage",
        "AutoencoderKLQwenImage",
        "AutoencoderTiny",
        "PaellaVQModel",
        "VQModel",
    }
)
"""VAEs of single pictures: a pipeline of diffusers that has one, and is none of `FPS`, makes images."""

SOUND = ("vocoder", "audio_vae", "sound_tokenizer")
"""Components that turn latents into sound."""

WITHOUT_VAE = frozenset({"DDIMPipeline", "DDPMPipeline", "ConsistencyModelPipeline", "IFPipeline"})
"""Pipelines of images whose models work on pixels."""

SIDES = {
    32: "LTX SanaPipeline",
    16: "AnyFlow Cosmos EasyAnimate Helios HunyuanVideo HunyuanSkyreels Kandinsky5T2V Kandinsky5I2V SkyReelsV2 Wan CogView4",
}
"""Number -> prefixes of the classes of pipelines that refuse sizes which are not multiples of it."""

IN_PAIRS = (
    "Bria",
    "Chroma",
    "Flux",
    "HunyuanImage",
    "LongCatImage",
    "NucleusMoE",
    "OmniGen",
    "OvisImage",
    "QwenImage",
    "StableDiffusion3",
    "ZImage",
)
"""Prefixes of the classes of pipelines that pack latents into 2x2 patches: they round sizes, or refuse them."""

FREE = ("Helios", "HunyuanVideoFramepack", "LTXI2VLong", "SanaWM")
"""Video pipelines that join windows of frames; how many come out is seen when they have come out."""

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Parts:
    """The parts of a pipeline that tell what it makes, read without loading it.

    Attributes:
        pipeline: its class.
        vae: class of its VAE, or "".
        vae_config: the VAE's config.json.
        denoiser_config: that of its transformer or UNet.
        index: its model_index.json.
    """

    pipeline: str
    vae: str = ""
    vae_config: Config = field(default_factory=dict)
    denoiser_config: Config = field(default_factory=dict)
    index: Config = field(default_factory=dict)


def parts_of(pipe: Any) -> Parts:
    """Read the parts of a loaded pipeline."""
    vae = getattr(pipe, "vae", None) or getattr(pipe, "movq", None)
    denoiser = getattr(pipe, "transformer", None) or getattr(pipe, "unet", None)
    vae_name = "" if vae is None else type(vae).__name__
    return Parts(type(pipe).__name__, vae_name, _config(vae), _config(denoiser), _config(pipe))


def frames_cut(parts: Parts) -> int:
    """Return how many frames a pipeline cuts off what it decodes: the four of the picture it starts from, or none."""
    is_cutting = parts.pipeline == "HunyuanVideoImageToVideoPipeline"
    return 4 if is_cutting and parts.denoiser_config.get("image_condition_type") == "latent_concat" else 0


def parts_at(read: Callable[[str], Any]) -> Parts | None:
    """Read the parts of a checkpoint whose files lie where `read` finds them; None where its index is not there.

    Args:
        read: the JSON in a file of the checkpoint by its relative name, or None.
    """
    index = read(INDEX)
    name = index.get("_class_name") if isinstance(index, dict) else None
    if not isinstance(name, str):
        return None
    classes = {part: cls for part, (_, cls) in components_of(index).items()}
    vae = next((part for part in ("vae", "movq") if part in classes), "")
    denoiser = next((part for part in ("transformer", "unet") if part in classes), "")
    configs = [read(f"{part}/config.json") if part else None for part in (vae, denoiser)]
    vae_config, denoiser_config = (config if isinstance(config, dict) else {} for config in configs)
    return Parts(name, classes.get(vae, ""), vae_config, denoiser_config, index)


def chosen(checkpoint: str, parts: Parts | None) -> str | None:
    """Name the adapter that a job means which names a checkpoint alone; None for `auto`.

    Args:
        checkpoint: a hub id, or a folder.
        parts: of a folder. Those of a hub id are no argument: they are not there on every machine, or at every time.
    """
    for adapter in _own():
        forms = (adapter, *adapter.forms)
        is_of = any(form.is_of(checkpoint) if parts is None else _fits(form, parts) for form in forms)
        if adapter.is_chosen and is_of:
            return adapter.name
    return None


def form_of(adapter: Adapter, parts: Parts) -> Adapter:
    """Return the form of an adapter that a pipeline is; the adapter itself where it has no such form."""
    return next((form for form in (adapter, *adapter.forms) if _fits(form, parts)), adapter)


def as_pipeline(adapter: Adapter, parts: Parts) -> Adapter:
    """Return an adapter for a pipeline that is made of its model's components, in the form that is known of it if any."""
    forms = [form for form in (adapter, *adapter.forms) if form.pipeline == parts.pipeline]
    if forms or adapter.pipeline is None:
        return next((form for form in forms if not wrong_mark(form, parts)), forms[0] if forms else adapter)
    taken = {parameter.name for parameter in call_parameters(parts.pipeline) or ()}
    kept = {name: value for name, value in adapter.defaults.items() if name not in NUMBER_FIELDS or name in taken}
    return replace(adapter, pipeline=parts.pipeline, defaults=kept, forms=(), marks={})


def wrong_mark(adapter: Any, parts: Parts) -> str:
    """Say what a checkpoint has or lacks that no form of an adapter does: "boundary_ratio is not set"; "" for nothing."""
    entries = {**parts.denoiser_config, **parts.index}
    marks = getattr(adapter, "marks", {})
    wrong = next((name for name, is_set in marks.items() if bool(entries.get(name)) is not is_set), None)
    return "" if wrong is None else f"{wrong} is {'not set' if marks[wrong] else 'set'}"


def _fits(adapter: Adapter, parts: Parts) -> bool:
    return adapter.pipeline == parts.pipeline and not wrong_mark(adapter, parts)


def _own() -> Iterator[Adapter]:
    return map(registry.get, registry.OWN)


def informed(adapter: Adapter, parts: Parts) -> Adapter:
    """Complete an adapter by the pipeline that it loads: in the form of it, or with all that is known of an open one.

    An open adapter's defaults and further arguments of the call stay: they are part of the items' ids.
    """
    if adapter.name != OPEN:
        return form_of(adapter, parts)
    forms = [form for each in _own() for form in (each, *each.forms) if form.pipeline == parts.pipeline]
    forms.sort(key=lambda form: not form.marks)
    kin = next((form for form in forms if _fits(form, parts)), forms[0] if forms else None)
    # A class of several models has the pace of most of them; marks tell which one it is.
    fps = kin.fps if kin is not None and kin.marks and _fits(kin, parts) else fps_of(parts)
    return replace(
        adapter,
        loads=parts.pipeline,
        kind=kind_of(parts),
        fps=fps or adapter.fps,
        knows_fps=fps is not None,
        multiples=math.lcm(adapter.multiples, sides_of(parts)),
        frames=frames_of(parts)[0],
        also_frames=frames_of(parts)[1:],
        lacks=adapter.lacks if kin is None else kin.lacks,
        needs_true_cfg=adapter.needs_true_cfg if kin is None else kin.needs_true_cfg,
        sound=has_sound(parts),
    )


def kind_of(parts: Parts) -> Any:
    """Say what it makes, "video" or "image"; None where it is seen only when it is made."""
    if parts.pipeline in FPS:
        return "video"
    return "image" if parts.vae in PICTURE_VAES or parts.pipeline in WITHOUT_VAE else None


def has_sound(parts: Parts) -> bool:
    """Return whether a pipeline makes sound beside its pictures."""
    return parts.pipeline in FPS and any(
        isinstance(entry := parts.index.get(name), list | tuple) and any(entry) for name in SOUND
    )


def fps_of(parts: Parts) -> int | None:
    """Return the frame rate of a pipeline's model, or None where nothing says it."""
    if parts.pipeline.startswith("CogVideoX") and parts.denoiser_config.get("patch_size_t"):
        return COGVIDEOX15_FPS
    return FPS.get(parts.pipeline)


def fps_asked(sampling: Mapping[str, Any]) -> float | None:
    """Return the frame rate that a call tells its model, or None."""
    options = sampling.get("options") or {}
    found = (options.get(name) for name in ("frame_rate", "fps", "target_fps"))
    return next((float(rate) for rate in found if isinstance(rate, int | float) and rate > 0), None)


def frames_of(parts: Parts) -> Frames:
    """Return the numbers of frames that come out as they are asked for: every one where nothing is known."""
    stride = _stride(parts)
    if stride is None or stride < 2 or parts.pipeline.startswith(FREE):
        return ((1, 0),)
    if parts.vae == "AutoencoderKLCogVideoX":
        # Latent frames are decoded in pairs, and only an odd one in front gives a frame of its own.
        return ((2 * stride, 1), (2 * stride, 0))
    return ((stride, 0),) if parts.vae == "AutoencoderKLAllegro" else ((stride, 1),)


def sides_of(parts: Parts) -> int:
    """Return the number that height and width must be multiples of."""
    sides = [number for number, names in SIDES.items() if parts.pipeline.startswith(tuple(names.split()))]
    if parts.pipeline.startswith("Wan"):
        patch = parts.denoiser_config.get("patch_size")
        if isinstance(patch, list | tuple) and len(patch) == 3:
            sides.append(patch[1] * _whole(parts.vae_config.get("scale_factor_spatial"), 8))
    elif parts.pipeline.startswith(IN_PAIRS):
        sides.append(2 * _shrinks(parts))
    return math.lcm(*sides) if sides else 1


def _shrinks(parts: Parts) -> int:
    """Return the factor by which a VAE of pictures shrinks the sides."""
    config = parts.vae_config
    if given := _whole(config.get("spatial_compression_ratio"), 0):
        return given
    levels = config.get("temperal_downsample") if parts.vae == "AutoencoderKLQwenImage" else None
    if isinstance(levels, list | tuple):
        return 2 ** len(levels)
    blocks = config.get("block_out_channels")
    return 2 ** (len(blocks) - 1) if isinstance(blocks, list | tuple) and blocks else 8


def _stride(parts: Parts) -> int | None:
    """Return the frames behind one latent frame, or None for a VAE that is not known to shrink time."""
    config = parts.vae_config
    if parts.vae in _STRIDES:
        return _STRIDES[parts.vae](config)
    given = config.get("temporal_compression_ratio") or config.get("scale_factor_temporal")
    return _whole(given, 0) or None


def _wan(config: Config) -> int:
    return _whole(config.get("scale_factor_temporal"), 4)


def _ratio(default: int) -> Callable[[Config], int]:
    return lambda config: _whole(config.get("temporal_compression_ratio"), default)


def _ltx(config: Config) -> int:
    scaling = config.get("spatio_temporal_scaling")
    halvings = sum(map(bool, scaling)) if isinstance(scaling, list | tuple) else 3
    return _whole(config.get("temporal_compression_ratio"), _whole(config.get("patch_size_t"), 1) * 2**halvings)


def _mochi(config: Config) -> int:
    del config  # its pipeline has the number written into it
    return 6


def _magvit(config: Config) -> int:
    blocks = config.get("block_out_channels")
    return 2 ** max(len(blocks) - 2, 0) if isinstance(blocks, list | tuple) else 4


_STRIDES: Mapping[str, Callable[[Config], int]] = {
    "AutoencoderKLAllegro": _ratio(4),
    "AutoencoderKLCogVideoX": _ratio(4),
    "AutoencoderKLCosmos": _ratio(8),
    "AutoencoderKLHunyuanVideo": _ratio(4),
    "AutoencoderKLHunyuanVideo15": _ratio(4),
    "AutoencoderKLLTX2Video": _ltx,
    "AutoencoderKLLTXVideo": _ltx,
    "AutoencoderKLMagvit": _magvit,
    "AutoencoderKLMochi": _mochi,
    "AutoencoderKLWan": _wan,
}


def _config(model: Any) -> Config:
    return dict(getattr(model, "config", None) or {})


def _whole(value: Any, default: int) -> int:
    """Return a number of a configuration, which may say anything."""
    return (
        int(value) if isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value < 1024 else default
    )
