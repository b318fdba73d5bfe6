"""CLIP score: how well pictures fit their caption (Radford et al., 2021; CLIPScore: Hessel et al., 2021).

    cosine(frame) = <e_image, e_text> / (|e_image| |e_text|)
    clip_score    = mean over frames of 100 max(cosine, 0)
    clip_score.cosine = mean over frames of cosine

`clip_score` is scaled as in torchmetrics and in the tables of parallel samplers (ROPA, with ViT-g-14; ParaSolver-Turbo);
Hessel et al. write 2.5 max(cosine, 0), which is clip_score / 40. A clip's frames are sampled evenly, at most `frames`
of them. Captions longer than the text model's window (77 tokens for most) are cut there.

CLIP sees single frames: it cannot tell directions of motion apart, and small differences of a number or place hardly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from genrun.adapters.scorers._options import Device, Dtype, device_of, identity, spread
from genrun.adapters.scorers.contract import Sample, UnscoredError

if TYPE_CHECKING:
    from genrun.adapters.shapes import PerFrame, RgbFrames, SomeFrames, Vectors

VIT_G_14 = "laion/CLIP-ViT-g-14-laion2B-s12B-b42K"
DEMO = Path(__file__).parents[1] / "demo" / "weights" / "demo-clip"
DEMO_PREFIX = "demo"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


@dataclass(frozen=True)
class ClipOptions:
    """Options of `clip_score`.

    Attributes:
        checkpoint: folder or hub id of a CLIPModel; by default LAION's ViT-g-14, and for the demo models the small CLIP
            of the demo world that comes with genrun.
        revision: branch, tag or commit of a hub checkpoint.
        frames: how many frames of a clip are looked at.
        batch: frames at once.
        device: where to run.
        dtype: number type of the weights.
    """

    checkpoint: str | None = None
    revision: str | None = None
    frames: int = 8
    batch: int = 32
    device: Device = "auto"
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        for name in ("frames", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: wanted at least 1")


@dataclass(frozen=True)
class ClipScore:
    """100 x cosine of the embeddings of frames and caption."""

    options: ClipOptions = field(default_factory=ClipOptions)
    name: str = "clip_score"
    version: int = 1
    title: str = "CLIP"
    definition: str = (
        "CLIPScore (Hessel et al., 2021) of the frames for their caption: 100 times the cosine of their CLIP "
        "embeddings, at least 0, mean over frames spread over the clip."
    )
    needs: str = "a CLIP checkpoint"
    higher_is_better: bool = True
    style: Literal["number"] = "number"
    reads: Literal["media"] = "media"
    compares: bool = False

    @property
    def settings(self) -> Mapping[str, Any]:
        """The options that decide values: all but the device and the batch, and the weights of a folder."""
        options = self.options
        folder = DEMO if options.checkpoint is None else Path(options.checkpoint)
        chosen = {name: value for name, value in vars(options).items() if name not in {"device", "batch"}}
        return {**chosen, "weights": identity(folder) if folder.is_dir() else "hub"}

    def measure(self, sample: Sample, _reference: Sample | None, /) -> Mapping[str, float]:
        """Return {"clip_score": ..., "clip_score.cosine": ...}.

        Raises:
            UnscoredError: no caption, or the checkpoint cannot be had.
        """
        if not sample.caption.strip():
            raise UnscoredError("there is no caption")
        frames = spread(sample.frames, self.options.frames)
        cosines = self.clip_of(sample.adapter).cosines(frames, sample.caption)
        scores = 100 * cosines.clamp(min=0)
        return {self.name: scores.mean().item(), f"{self.name}.cosine": cosines.mean().item()}

    def clip_of(self, adapter: str) -> LoadedClip:
        """Return the model for an adapter's items, loaded once; a failure is kept too, since hubs are slow to say no.

        Raises:
            UnscoredError: the checkpoint cannot be had.
        """
        folder = str(DEMO) if adapter.startswith(DEMO_PREFIX) else VIT_G_14
        checkpoint = self.options.checkpoint or folder
        if checkpoint not in self._loaded:
            try:
                self._loaded[checkpoint] = load(checkpoint, self.options)
            except UnscoredError as error:
                self._loaded[checkpoint] = error
        found = self._loaded[checkpoint]
        if isinstance(found, UnscoredError):
            raise found
        return found

    @cached_property
    def _loaded(self) -> dict[str, LoadedClip | UnscoredError]:
        return {}


@dataclass(frozen=True)
class LoadedClip:
    """A CLIP that is ready to embed."""

    model: Any
    tokenizer: Any
    processor: Any
    batch: int

    def cosines(self, frames: RgbFrames, caption: str) -> PerFrame:
        """Return the cosine of each frame with the caption, (T,) float32 on the CPU.

        Args:
            frames: (T, H, W, 3) uint8.
            caption: the text.
        """
        import torch

        with torch.inference_mode():
            text = self._text(caption)
            images = torch.cat([self._images(part) for part in _parts(frames, self.batch)])
        return (_unit(images) @ _unit(text)[0]).float().cpu()

    def embeddings(self, frames: RgbFrames) -> Vectors:
        """Return the embedding of each frame at length 1, (T, D) float32 on the CPU.

        Args:
            frames: (T, H, W, 3) uint8.
        """
        import torch

        with torch.inference_mode():
            return _unit(torch.cat([self._images(part) for part in _parts(frames, self.batch)])).cpu()

    def _text(self, caption: str) -> Vectors:
        limit = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer([caption], truncation=True, max_length=limit, return_tensors="pt")
        return _embedding(self.model.get_text_features(**tokens.to(self.model.device)))

    def _images(self, frames: RgbFrames) -> Vectors:
        pixels = self.processor(list(frames), return_tensors="pt")["pixel_values"]
        return _embedding(self.model.get_image_features(pixel_values=pixels.to(self.model.device, self.model.dtype)))


def load(checkpoint: str, options: ClipOptions) -> LoadedClip:
    """Load a CLIP from a folder or the hub.

    Raises:
        UnscoredError: it cannot be had; the message says what to do.
    """
    import torch
    from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel
    from transformers.utils import logging

    _check_folder(checkpoint)
    # The file is not trusted with code: safetensors only.
    keywords: dict[str, Any] = {} if options.revision is None else {"revision": options.revision}
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        ways = {"dtype": getattr(torch, options.dtype), "use_safetensors": True, **keywords}
        loader: Any = CLIPModel
        model, info = loader.from_pretrained(checkpoint, output_loading_info=True, **ways)
        if info["missing_keys"]:
            # transformers has drawn random numbers for them.
            raise ValueError(f"its weights lack {', '.join(sorted(info['missing_keys'])[:3])}")
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, **keywords)
        # The same pixels everywhere: the default processor differs with torchvision and without.
        processor = CLIPImageProcessorPil.from_pretrained(checkpoint, **keywords)
    except Exception as error:
        why = " ".join(str(error).split())[:200]
        raise UnscoredError(
            f"the CLIP checkpoint {checkpoint} cannot be loaded ({type(error).__name__}: {why}); give a folder that has "
            "one: score: [{kind: clip_score, checkpoint: FOLDER}]"
        ) from error
    finally:
        if bars:
            logging.enable_progress_bar()
    return LoadedClip(model.eval().to(device_of(options.device)), tokenizer, processor, options.batch)


def _check_folder(checkpoint: str) -> None:
    """Refuse a folder that holds no CLIPModel, before transformers takes its name for a hub id."""
    folder = Path(checkpoint)
    if not (folder.is_dir() or folder.is_absolute() or checkpoint.startswith((".", "~"))):
        return
    if not (folder / "config.json").is_file():
        raise UnscoredError(f"{checkpoint}: there is no CLIP checkpoint: no config.json in that folder")
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise UnscoredError(f"{checkpoint}: there are no weights: no model.safetensors in that folder")


def _parts(frames: RgbFrames, size: int) -> list[SomeFrames]:
    return [frames[start : start + size] for start in range(0, len(frames), size)]


def _embedding(features: Any) -> Vectors:
    """Return the projected embedding, (B, D) float32; transformers 5 wraps it with the tower's other outputs."""
    return getattr(features, "pooler_output", features).float()


def _unit(vectors: Vectors) -> Vectors:
    return vectors / vectors.norm(dim=-1, keepdim=True)


METRIC = ClipScore()
