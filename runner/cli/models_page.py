"""docs/models.md: per model its checkpoints, defaults, caches and meshes, and diffusers' pipelines, read off the code."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.adapters.caches.contract import split_refusal
from genrun.adapters.checkpoint.pipeline_classes import call_parameters, missing_inputs
from genrun.adapters.parallel.support import TWICE, refusals, splits
from genrun.adapters.pipeline.denoisers import NATIVE, transformer_of, unsuited

if TYPE_CHECKING:
    from genrun.adapters.adapter import Adapter
    from genrun.runner.job.options import RegistryLike


HEAD = """# Models

Written by `genrun models --markdown > docs/models.md` from the adapters themselves; a test tells when it is stale.

`model: NAME` takes the model's default checkpoint, `model: {adapter: NAME, checkpoint: FOLDER_OR_ID}` another one of
the same pipeline. A field that `sampling:` leaves out has the model's default, and what the model cannot do is
refused when the job is checked, with the nearest that it can. Every stock pipeline below is tested with tiny
components (`tests/unit/test_time_parallel.py`, `tests/unit/test_model_families.py`, `tests/e2e/test_models_submit.py`):
each solver at tolerance 0 gives the plain pipeline's bits, sound included. Meshes are explained in [meshes.md](meshes.md).

A model that is made as several pipelines, or in several sizes, has a section with a table for each: which one a
checkpoint is, its hub id or its files say. A job that names such a checkpoint and no adapter, `model: FOLDER_OR_ID`,
means the adapter wherever its section says "chosen"; `adapter: auto` leaves everything to the checkpoint. Memory is that of
the weights; `genrun plan` estimates what else a job needs.
"""

TAIL = """
## auto: any other pipeline

`model: FOLDER_OR_ID` reads everything off the checkpoint, and knows of a pipeline's class its frames, sizes and pace. Tried
with tiny components, through `genrun submit` to media files: LTX, besides the models above. What else a pipeline refuses,
it says itself when the item is made.

`model: {checkpoint: FOLDER_OR_ID, task: image-to-image}` makes the pipeline for another task of the same components: also
inpainting, image-to-video and video-to-video; [inputs.md](inputs.md) has what prompts give them.

What goes by the loop's counter follows the step in work, with the plain pipeline's bits: `skip_guidance_layers`,
`denoising_start`, `denoising_end`, `control_guidance_start`, `control_guidance_end`, guiders with a window, and loops
that begin at a later step or change their latents between steps. What a guider keeps from step to step, such as a
momentum, steps with the latents. For solver `sequential` alone: `callback_on_step_end`, guidance with a momentum that
begins in a later step than the first, and loops that draw noise themselves.

## Checkpoints

A folder in diffusers' layout or a hub id; safetensors only, and no code that comes with a checkpoint is run. Of
several files for one component, such as `model.safetensors` and `model.fp16.safetensors`, the plain one is read, or
the only one that there is, component by component; `model: {checkpoint: FOLDER_OR_ID, variant: fp16}` reads the
variant wherever it is there. A variant is part of an item's id where it changes which files are read.

Refused when the job is checked, from names and headers:

- no pipeline of the installed diffusers, code of its own, a component that is missing or of another library;
- a pipeline that needs more than text, such as a picture to start from (of a hub id: if its model_index.json is in
  the hub's cache);
- a link to nowhere, a pointer of Git LFS, an empty or damaged JSON file, in any component, tokenizers too;
- weights that are cut off, too long, or not what their header says; a missing shard, or one that lacks a tensor which
  the list of shards puts there; pickled weights alone; several variants, no plain weights and no `variant`.

Refused when it is loaded, before anything is sampled:

- a tensor that a model has and its files have not, or in another shape, text encoders too; a denoiser or VAE with more
  blocks than its configuration says;
- a gated model, and of a hub id whatever of the above was downloaded.

Each message names the file and the tensor, and says what to do.

## What happens beside sampling

Prompts are encoded once per run, before. While an item is sampled, the last one is written (H.264 or PNG, hash,
record) in a thread of the rank that leads, at most one item deep; the bytes are the same. On a CPU it is decoded
there as well, unless `encode: each` keeps text encoders loaded: decoding then asks them again, and tokenizers belong
to one thread. On a GPU decoding stays before the next item: denoising leaves the GPU no time, and the two together
would need the memory of both.
"""

TRUE_CFG = "embedded; true CFG, two calls a step, with `options: {true_cfg_scale: 4.0}` and a `negative_prompt`"
ONE_CALL = "CFG, one call of two rows; `negative_prompt`"
EXPERTS = "CFG, two calls a step; `negative_prompt`; two experts: `options: {guidance_scale_2: 3.0}`"
GUIDER = "CFG by the checkpoint's guider, two calls a step; `negative_prompt`"
QWEN_CFG = "true CFG, two calls a step: `options: {true_cfg_scale: 4.0}` and a `negative_prompt`, blank by default"
MODALITIES = (
    "CFG, one call of two rows; `negative_prompt`; more calls by `options: {stg_scale: 1.0, modality_scale: 3.0}`, and for "
    "sound `audio_guidance_scale`, `audio_stg_scale`, `audio_modality_scale`"
)
GUIDANCE: Mapping[str, str] = {
    "FluxPipeline": TRUE_CFG,
    "HunyuanVideoPipeline": TRUE_CFG,
    "FluxKontextPipeline": TRUE_CFG,
    "HunyuanVideoImageToVideoPipeline": TRUE_CFG,
    "WanPipeline": EXPERTS,
    "WanImageToVideoPipeline": EXPERTS,
    "CogVideoXPipeline": f"{ONE_CALL}; `options: {{use_dynamic_cfg: true}}`",
    "CogVideoXImageToVideoPipeline": f"{ONE_CALL}; `options: {{use_dynamic_cfg: true}}`",
    "HunyuanVideo15Pipeline": GUIDER,
    "HunyuanVideo15ImageToVideoPipeline": GUIDER,
    "LTX2Pipeline": MODALITIES,
    "LTX2ImageToVideoPipeline": MODALITIES,
    "QwenImagePipeline": QWEN_CFG,
    "QwenImageEditPipeline": QWEN_CFG,
    "QwenImageEditPlusPipeline": QWEN_CFG,
    "Flux2Pipeline": "embedded; no negative prompt",
    "Flux2KleinPipeline": "distilled: none; base: CFG, two calls a step; no negative prompt",
    "ZImagePipeline": f"{ONE_CALL}; `options: {{cfg_truncation: 0.5, cfg_normalization: true}}`",
    "DDPMPipeline": "none",
    **dict.fromkeys(
        (
            "StableDiffusion3Pipeline",
            "StableDiffusionPipeline",
            "StableDiffusionXLPipeline",
            "MochiPipeline",
            "SanaPipeline",
        ),
        ONE_CALL,
    ),
}
INPUTS = ("image", "last_image", "video", "mask_image", "control_image", "ip_adapter_image", "strength")
"""Arguments of a pipeline's call that a prompt's inputs become."""
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def page(adapters: RegistryLike, caches: RegistryLike) -> str:
    """Return the page, as Markdown."""
    known = [adapters.get(name) for name in adapters.names()]
    found = {name: caches.get(name) for name in caches.names() if name != "none"}
    sections = ("\n".join(_section(adapter, found)) for adapter in known if adapter.pipeline is not None)
    return "\n".join([HEAD, *sections]) + section() + TAIL


def _section(adapter: Adapter, caches: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {adapter.name}\n"
    chosen = " Chosen for a checkpoint of it, too." if adapter.is_chosen else ""
    yield f"{adapter.title}.{chosen}\n"
    for form in (adapter, *adapter.forms):
        yield from _form(form, caches)


def _form(adapter: Adapter, caches: Mapping[str, Any]) -> Iterator[str]:
    pipeline = adapter.pipeline or ""
    yield "| | |\n|---|---|"
    rows = {
        "pipeline": f"`{pipeline}`, {adapter.dtype}" + (f", {adapter.fps} frames a second" * (adapter.kind == "video")),
        "input": _inputs(pipeline),
        **(
            {"sound": "AAC in the mp4, at its vocoder's rate; `output: {sound: false}` leaves it out"}
            if adapter.sound
            else {}
        ),
        "checkpoint": _checkpoint(adapter),
        **({"memory": _memory(adapter)} if adapter.billions else {}),
        "defaults": _fields(adapter.defaults),
        **{f"with `{name}`": _fields(changes) or "the same" for name, changes in adapter.variants.items()},
        "guidance": GUIDANCE[pipeline],
        "refused": "; ".join(_refused(adapter)),
        "caches": _caches(pipeline, caches),
        "attention": ", ".join(_kernels(transformer_of(pipeline) or "")),
        "meshes": "; ".join(_meshes(pipeline)),
    }
    yield from (f"| {name} | {text} |" for name, text in rows.items())
    yield ""


def _inputs(pipeline: str) -> str:
    taken = [one for one in call_parameters(pipeline) or () if one.name in INPUTS]
    needed = {*missing_inputs(pipeline)}
    words = (f"`{one.name}`" if one.name in needed else f"`{one.name}` if given" for one in taken)
    return ", ".join(["none" if pipeline == "DDPMPipeline" else "text", *words])


def _checkpoint(adapter: Adapter) -> str:
    if isinstance(adapter.checkpoint, Path):
        return "ships with genrun"
    told = ", ".join(f"{name} {'set' if is_set else 'not set'}" for name, is_set in adapter.marks.items())
    named = f"`{adapter.checkpoint}`" if adapter.checkpoint else "that of text to video with `task: image-to-video`"
    return f"{named}; folders with {told}" if told else named


def _memory(adapter: Adapter) -> str:
    """Say how large the weights are, component by component."""
    each = (f"{name} {billions * BYTES[adapter.dtype]:.1f}" for name, billions in adapter.billions.items())
    return f"weights in {adapter.dtype}, GB: {', '.join(each)}"


def _kernels(transformer: str) -> Iterator[str]:
    yield NATIVE
    yield from (kernel for kernel in ("flash", "sage") if unsuited(kernel, transformer) is None)


def _fields(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in fields.items())


def _value(value: Any) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    rest = ", ".join(f"{name} {each}" for name, each in value.items() if name != "kind")
    return f"{value['kind']} ({rest})" if rest else value["kind"]


def _refused(adapter: Adapter) -> Iterator[str]:
    sides = [side for side in ("height", "width") if side not in adapter.lacks]
    if sides:
        yield f"{' and '.join(sides)} that are no multiples of {adapter.multiples}"
    if adapter.kind == "image":
        yield "num_frames"
    elif adapter.rules != ((1, 0),):
        yield f"frames other than {adapter.frame_forms}"
    yield from adapter.lacks
    if adapter.needs_true_cfg:
        yield "a negative prompt without true CFG, which would be ignored"
    yield "checkpoints of another pipeline"


def _caches(pipeline: str, caches: Mapping[str, Any]) -> str:
    fitting = {
        name: cache for name, cache in caches.items() if transformer_of(pipeline) in getattr(cache, "models", ())
    }
    on_any = [name for name, cache in fitting.items() if not cache.needs_order]
    in_order = [name for name, cache in fitting.items() if cache.needs_order]
    if not fitting and transformer_of(pipeline):
        return f"none: no cache knows the blocks of {transformer_of(pipeline)}"
    if not fitting:
        return "none: they cache blocks of a transformer, and this is a UNet"
    kinds = f"{', '.join(on_any)} with any solver; {', '.join(in_order)} in the order of steps"
    return "; ".join([kinds, *_not_on_meshes(pipeline, fitting)])


def _not_on_meshes(pipeline: str, caches: Mapping[str, Any]) -> Iterator[str]:
    """Yield the caches that a mesh of the pipeline's refuses."""
    for axis in ("cfg", "ulysses", "ring"):
        split = splits(pipeline, **{axis: 2})
        refused = [name for name, cache in caches.items() if split_refusal(name, cache, split)]
        if refused and not list(refusals(pipeline, **{axis: 2})):
            yield f"not with {axis}: {', '.join(refused)}"


def _meshes(pipeline: str) -> Iterator[str]:
    yield "data and time: exact"
    cfg = "exact" if pipeline in TWICE else "to rounding"
    for axis, how in (("cfg", cfg), ("ulysses", "to rounding"), ("ring", "on GPUs, not run here")):
        refused = any(name == axis for name, _ in refusals(pipeline, **{axis: 2}))
        yield f"{axis}: {'refused' if refused else how}"


MEASURED = Path(__file__).with_name("pipelines.json")
PIPELINES = """
## diffusers' own pipelines

Every pipeline class that diffusers' tests build from tiny random components, called as those tests call it with {steps}
steps: solver `sequential`, `paradigms` and `collocation` (exact) at tolerance 0 beside the plain pipeline. Measured on
{date} with diffusers {diffusers}, in {dtype} on a CPU, by a harness that reads those tests from diffusers' repository
and is not part of this one: of {classes} classes with a finite plain result **{exact} have the plain pipeline's bits
under every solver** ({percent:.1f} %), {refused} are refused by name, and {other} are neither.
{absent}

A class counts once, with the family of its folder in diffusers.

| family | classes | exact | refused |
|---|---|---|---|"""
SCHEDULERS = """
Schedulers: `python -m tests.bench.scheduler_matrix` tries every scheduler class that steps latents with every option of its
config that changes its steps. Of {configurations} configurations with which the plain loop is finite {exact} are exact
under all three solvers, {refused} refused when the job is checked."""


def section() -> str:
    """Return the section, as Markdown."""
    found = json.loads(MEASURED.read_text(encoding="utf-8"))
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    families: Mapping[str, Mapping[str, int]] = found["families"]
    total = {key: sum(family.get(key, 0) for family in families.values()) for key in ("exact", "refused", "other")}
    classes = sum(total.values())
    yield PIPELINES.format(**{**found, **total}, classes=classes, percent=100 * total["exact"] / classes)
    for name, family in families.items():
        yield f"| {name} | {sum(family.values())} | {family.get('exact', 0)} | {family.get('refused', 0)} |"
    yield ""
    yield "Refused:\n"
    yield from (f"- `{each['pipeline']}`, {each['solvers']}: {each['why']}" for each in found["refused_classes"])
    if found.get("narrow"):
        yield "\nIn {dtype}, a class each of {classes} families: {exact} are exact. {rest}".format(**found["narrow"])
    yield SCHEDULERS.format(**found["schedulers"])
