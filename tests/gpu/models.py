"""The models that count, at their real sizes and with random weights: transformer and VAE by their public configurations.

Text encoders are left out: a pipeline is called with random embeddings of the right shapes. With `tiny`, the pipelines of
`tests.tiny` go the same way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from genrun.adapters import registry
from genrun.runner.memory.estimate import Shape, latent_shape
from tests.tiny import build

df: Any = import_module("diffusers")
SPREAD = 0.02
"""Standard deviation of random weights, as at the beginning of a training."""

PICTURES = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 16,
    "sample_size": 1024,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
WAN = {"cross_attn_norm": True, "qk_norm": "rms_norm_across_heads", "text_dim": 4096, "freq_dim": 256}


@dataclass(frozen=True)
class SizedModel:
    """A model that counts.

    Attributes:
        name: such as flux.
        title: with its number of parameters.
        adapter: genrun's, whose scheduler and steps it has.
        family: its tiny pipeline in `tests.tiny`.
        pipeline: class of its pipeline.
        transformer: class and configuration, as published.
        vae: the same of its VAE.
        job: size that jobs ask for: height, width, num_frames.
        cut: what of it is less here, to fit the time.
        calls: transformer calls an evaluation, guidance included.
        text: tokens of a prompt.
        checkpoint: of the adapter's variant, or None.
    """

    name: str
    title: str
    adapter: str
    family: str
    pipeline: str
    transformer: tuple[str, Mapping[str, Any]]
    vae: tuple[str, Mapping[str, Any]]
    job: Mapping[str, int]
    cut: Mapping[str, int]
    calls: int
    text: int
    checkpoint: str | None = None

    def size(self, *, tiny: bool) -> dict[str, int]:
        """Return height, width and frames of a sample here."""
        if tiny:
            return {name: 9 if name == "num_frames" else 32 for name in self.job}
        return {**self.job, **self.cut}

    def shape(self, *, tiny: bool) -> Shape:
        """Return the same for the plan of memory."""
        size = self.size(tiny=tiny)
        return Shape(size["height"], size["width"], size.get("num_frames", 1))

    def make(self, device: str, dtype: torch.dtype, *, tiny: bool, **fewer: int) -> Any:
        """Return the pipeline on a device, without text encoders.

        Args:
            device: a torch device.
            dtype: of the weights.
            tiny: take the tiny one of its family.
            fewer: layers of the transformer in place of its own, such as num_layers=4; the tiny one keeps its own.
        """
        if tiny:
            pipe = build(self.family, dtype)
            for name in [name for name in pipe.components if name.startswith(("text_encoder", "tokenizer"))]:
                setattr(pipe, name, None)
            return pipe.to(device)
        kind, config = self.transformer
        models = {
            "transformer": random_model(kind, {**config, **fewer}, dtype, device),
            "vae": random_model(*self.vae, dtype, device),
            "scheduler": self.scheduler(),
        }
        taken = getattr(df, self.pipeline)._get_signature_keys(getattr(df, self.pipeline))[0]
        pipe = getattr(df, self.pipeline)(**{**dict.fromkeys(taken), **models})
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def scheduler(self) -> Any:
        """Return the scheduler of the adapter, or else of the published pipeline."""
        adapter = registry.get(self.adapter)
        sampling = {**adapter.defaults, **adapter.variants.get(self.checkpoint or "", {})}
        if "scheduler" in sampling:
            config = dict(sampling["scheduler"])
            return getattr(df, config.pop("kind"))(**config)
        if self.adapter == "flux":
            return df.FlowMatchEulerDiscreteScheduler(
                shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15
            )
        return df.CogVideoXDDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
            set_alpha_to_one=True,
            snr_shift_scale=1.0,
        )

    def call(self, pipe: Any, steps: int, device: str, *, tiny: bool) -> dict[str, Any]:
        """Return the arguments of a call: random embeddings, a fresh generator, latents out."""
        dtype = pipe.transformer.dtype
        config, noise = pipe.transformer.config, torch.Generator(device).manual_seed(1)

        def random(*shape: int) -> Tensor:
            return torch.randn(1, *shape, generator=noise, device=device, dtype=torch.float32).to(dtype)

        tokens = 16 if tiny else self.text
        given: dict[str, Any] = {"generator": torch.Generator(device).manual_seed(0), "output_type": "latent"}
        given |= {"num_inference_steps": steps, **self.size(tiny=tiny)}
        width = config.get("joint_attention_dim") or config.get("text_embed_dim") or config.get("text_dim")
        if self.adapter == "cogvideox1.5":
            tokens = config.max_text_seq_length  # positions of a tiny one are made for so many
        given["prompt_embeds"] = random(tokens, width)
        if "pooled_projection_dim" in config:
            given["pooled_prompt_embeds"] = random(config.pooled_projection_dim)
        if self.adapter == "hunyuanvideo":
            given["prompt_attention_mask"] = torch.ones(1, tokens, device=device, dtype=dtype)
        if self.adapter in ("wan2.1", "sd3.5", "cogvideox1.5"):
            given["negative_prompt_embeds"] = random(tokens, width)
            given["guidance_scale"] = 5.0
        if self.adapter == "sd3.5":
            given["negative_pooled_prompt_embeds"] = random(config.pooled_projection_dim)
        return given

    def latents(self, pipe: Any, *, tiny: bool) -> Tensor:
        """Return random latents for the VAE."""
        vae = pipe.vae
        channels, frames, height, width = latent_shape(type(vae).__name__, vae.config, self.shape(tiny=tiny))
        shape = (1, channels, frames, height, width) if "num_frames" in self.job else (1, channels, height, width)
        return torch.randn(shape, device=vae.device, dtype=torch.float32).to(vae.dtype)

    def checkpoint_folder(self, pipe: Any, root: Path) -> Path:
        """Write a checkpoint of the headers of the pipeline's weights and holes for these, for the plan of memory."""
        index: dict[str, Any] = {"_class_name": type(pipe).__name__}
        for name in ("transformer", "vae"):
            model = pipe.components[name]
            folder = root / name
            folder.mkdir(parents=True)
            index[name] = ["diffusers", type(model).__name__]
            (folder / "config.json").write_text(json.dumps(dict(model.config), default=str))
            write_holes(folder / "diffusion_pytorch_model.safetensors", model)
        (root / "model_index.json").write_text(json.dumps(index))
        return root


NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


def write_holes(path: Path, model: nn.Module) -> None:
    """Write a safetensors file of a model's tensors whose data are a hole: it takes no room on the disk."""
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in model.state_dict().items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": NAMES.get(tensor.dtype, "F32"),
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def random_model(kind: str, config: Mapping[str, Any], dtype: torch.dtype, device: str) -> Any:
    """Return a diffusers model with random weights, made on the device: small matrices, norms of one, the rest zero.

    Modules that diffusers keeps in float32 are, as when a checkpoint is loaded.
    """
    with init_empty_weights():
        model = getattr(df, kind)(**config)
    kept = set(getattr(model, "_keep_in_fp32_modules", None) or ())
    generator = torch.Generator(device).manual_seed(0)
    for path, module in model.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            wanted = torch.float32 if kept & {*path.split("."), name} else dtype
            value = torch.empty(parameter.shape, dtype=wanted, device=device)
            if parameter.ndim > 1:
                value.normal_(0.0, SPREAD, generator=generator)
            else:
                value.fill_(1.0 if name in ("weight", "gamma") else 0.0)
            setattr(module, name, nn.Parameter(value, requires_grad=False))
    saved = {*model.state_dict()}
    for name, buffer in model.named_buffers():
        # As when a checkpoint is loaded: those that are in it are cast with the rest.
        is_cast = name in saved and buffer.is_floating_point()
        buffer.data = buffer.data.to(device, dtype if is_cast else buffer.dtype)
    return model.eval()


SUBJECTS: Mapping[str, SizedModel] = {
    subject.name: subject
    for subject in (
        SizedModel(
            "flux",
            "FLUX.1-dev 12B",
            "flux",
            "flux",
            "FluxPipeline",
            ("FluxTransformer2DModel", {"guidance_embeds": True}),
            ("AutoencoderKL", {**PICTURES, "scaling_factor": 0.3611, "shift_factor": 0.1159}),
            {"height": 1024, "width": 1024},
            {},
            1,
            512,
        ),
        SizedModel(
            "sd35",
            "Stable Diffusion 3.5 large 8B",
            "sd3.5",
            "sd3",
            "StableDiffusion3Pipeline",
            (
                "SD3Transformer2DModel",
                {
                    "num_layers": 38,
                    "num_attention_heads": 38,
                    "caption_projection_dim": 2432,
                    "pos_embed_max_size": 192,
                    "qk_norm": "rms_norm",
                },
            ),
            ("AutoencoderKL", {**PICTURES, "scaling_factor": 1.5305, "shift_factor": 0.0609}),
            {"height": 1024, "width": 1024},
            {},
            1,
            333,
        ),
        SizedModel(
            "hunyuanvideo",
            "HunyuanVideo 13B",
            "hunyuanvideo",
            "hunyuanvideo",
            "HunyuanVideoPipeline",
            ("HunyuanVideoTransformer3DModel", {}),
            ("AutoencoderKLHunyuanVideo", {}),
            {"height": 544, "width": 960, "num_frames": 61},
            {"num_frames": 33},
            1,
            256,
        ),
        SizedModel(
            "wan14b",
            "Wan 2.1 14B",
            "wan2.1",
            "wan21",
            "WanPipeline",
            ("WanTransformer3DModel", {**WAN, "num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 40}),
            ("AutoencoderKLWan", {}),
            {"height": 720, "width": 1280, "num_frames": 81},
            {"num_frames": 13},
            2,
            512,
            "Wan-AI/Wan2.1-T2V-14B-Diffusers",
        ),
        SizedModel(
            "wan1b",
            "Wan 2.1 1.3B",
            "wan2.1",
            "wan21",
            "WanPipeline",
            ("WanTransformer3DModel", {**WAN, "num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}),
            ("AutoencoderKLWan", {}),
            {"height": 480, "width": 832, "num_frames": 81},
            {},
            2,
            512,
        ),
        SizedModel(
            "cogvideox",
            "CogVideoX1.5 5B",
            "cogvideox1.5",
            "cogvideox_ddim",
            "CogVideoXPipeline",
            (
                "CogVideoXTransformer3DModel",
                {
                    "num_attention_heads": 48,
                    "num_layers": 42,
                    "patch_size_t": 2,
                    "patch_bias": False,
                    "sample_width": 170,
                    "sample_height": 96,
                    "sample_frames": 81,
                    "use_rotary_positional_embeddings": True,
                },
            ),
            (
                "AutoencoderKLCogVideoX",
                {
                    "block_out_channels": (128, 256, 256, 512),
                    "latent_channels": 16,
                    "layers_per_block": 3,
                    "sample_height": 768,
                    "sample_width": 1360,
                    "scaling_factor": 0.7,
                },
            ),
            {"height": 768, "width": 1360, "num_frames": 81},
            {"num_frames": 17},
            1,
            226,
        ),
    )
}
