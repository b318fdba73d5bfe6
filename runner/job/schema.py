"""The sections of a job file. Shorthands (`solver: ropa`) are expanded before; options of solvers are checked elsewhere."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from genrun.runner.job.field_types import (
    MAX_FPS,
    Allowance,
    Attention,
    Clock,
    Compile,
    Components,
    CountOrAuto,
    Dtypes,
    Folder,
    Folders,
    FrameCount,
    Gpus,
    Guidance,
    Inputs,
    Limit,
    LoraName,
    MetricSpec,
    Options,
    Positive,
    Revision,
    Scale,
    Seed,
    Side,
    Steps,
    Subfolder,
    Text,
    Time,
    Variant,
    WeightName,
)

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$"
COSTS = {"rounds": False, "nfe": False, "speedup": True, "elapsed_s": False}
"""Costs of an item, which gates may limit like metrics -> True when higher is better."""

AUDIT = "audit"
"""Share of the audited items that are within their tolerance, which a gate may limit like a metric."""

FILE_TAG, LIST_TAG = "prompts-file", "prompts-list"
SUITE_TAG, COCO_TAG = "prompts-suite", "prompts-coco"
TEMPLATE_TAG, TEXT_TAG, ROW_TAG = "prompts-template", "prompt-text", "prompt-row"
PROMPT_TAGS = (FILE_TAG, LIST_TAG, SUITE_TAG, COCO_TAG, TEMPLATE_TAG, TEXT_TAG, ROW_TAG)


def _prompts_tag(value: Any) -> str:
    if isinstance(value, list | tuple):
        return LIST_TAG
    has = value.keys() if isinstance(value, dict) else vars(value).keys() if isinstance(value, BaseModel) else ()
    by_key = {"suite": SUITE_TAG, "coco": COCO_TAG, "template": TEMPLATE_TAG}
    return next((tag for key, tag in by_key.items() if key in has), FILE_TAG)


def _prompt_tag(value: Any) -> str:
    return ROW_TAG if isinstance(value, dict | BaseModel) else TEXT_TAG


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Kind(BaseModel):
    """A kind and its options."""

    model_config = ConfigDict(frozen=True, extra="allow")

    kind: Text

    @property
    def options(self) -> dict[str, Any]:
        """Everything but the kind."""
        return dict(self.model_extra or {})


class VaeSpec(_Section):
    """Decoding of latents."""

    tiling: bool = Field(default=False, description="In overlapping tiles: less memory, and blended where they meet.")
    slicing: bool = Field(default=False, description="One picture of a batch at a time.")


class QuantizationSpec(_Section):
    """Weights of fewer bits; other keys are options of the backend."""

    model_config = ConfigDict(frozen=True, extra="allow")

    backend: Literal["bitsandbytes_4bit", "bitsandbytes_8bit", "torchao", "quanto"] = Field(
        description="A backend of diffusers, whose package must be installed."
    )
    components: tuple[Text, ...] = Field(
        default=(), description="Components to quantise; those of the backend when empty."
    )


class LoraSpec(_Section):
    """A LoRA on top of the weights."""

    path: Text = Field(description="A .safetensors file, a folder that has one, or a hub id.")
    weight: Scale = Field(default=1.0, description="How much of it is added; 1 as it was trained.")
    name: LoraName | None = Field(default=None, description="What messages and records call it; the file's by default.")
    weight_name: WeightName | None = Field(
        default=None, description="The file in the folder or hub id; its usual or only one by default."
    )
    partial: bool = Field(default=False, description="Take it even where diffusers leaves some of its tensors out.")
    component: Literal["transformer_2"] | None = Field(
        default=None, description="The denoiser to put it on, where there are two; the first by default."
    )


class IpAdapterSpec(_Section):
    """An IP-Adapter: pictures as prompts."""

    path: Text = Field(description="A folder, or a hub id.")
    weight_name: WeightName = Field(description="The .safetensors file in it.")
    subfolder: Subfolder | None = Field(default=None, description="The folder of that file, such as models.")
    scale: Scale = Field(default=1.0, description="How much the picture counts.")
    image_encoder: Subfolder | None = Field(
        default=None, description="Folder of the encoder of pictures in `path`, where the checkpoint has none."
    )


class ModelSpec(_Section):
    """The model that makes the pictures."""

    adapter: Text = Field(default="auto", description="Name of the adapter; `genrun models` lists them.")
    checkpoint: Text | None = Field(default=None, description="Folder or hub id; the adapter's own when missing.")
    revision: Revision | None = Field(default=None, description="Branch, tag or commit of a hub checkpoint.")
    variant: Variant | None = Field(
        default=None,
        description="Which of the weights files to read, such as fp16 for *.fp16.safetensors; by default the plain ones, "
        "or the only ones that there are.",
    )
    dtype: Dtypes | None = Field(
        default=None,
        description="Number type of the weights; or one for each component that is named, such as {vae: float32}.",
    )
    config: Text | None = Field(
        default=None, description="For a checkpoint that is one file: a folder with the configurations of its pipeline."
    )
    components: Components | None = Field(
        default=None,
        description="Component -> folder, hub id or file (.safetensors, .gguf) in place of the checkpoint's own; null to go "
        "without one that the pipeline can do without.",
    )
    task: (
        Literal["text-to-image", "image-to-image", "inpainting", "text-to-video", "image-to-video", "video-to-video"]
        | None
    ) = Field(default=None, description="What to do with the checkpoint, where several pipelines can run it.")
    loras: tuple[LoraSpec, ...] | None = Field(
        default=None, description="LoRAs; as an axis of the matrix, they change while the model stays loaded."
    )
    controlnet: Folders | None = Field(default=None, description="Folder or hub id of a ControlNet, or a list of them.")
    t2i_adapter: Folders | None = Field(default=None, description="Folder or hub id of a T2I-Adapter, or a list.")
    ip_adapter: IpAdapterSpec | None = Field(default=None, description="An IP-Adapter.")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="Where to run.")
    offload: Literal["none", "model", "sequential", "group"] | None = Field(
        default=None, description="What waits in main memory: nothing, each model, each layer, or each group of blocks."
    )
    vae: VaeSpec | None = Field(default=None, description="Decoding of latents.")
    compile: Compile | None = Field(
        default=None, description="true: compile the denoiser; regional: the blocks it repeats."
    )
    quantization: QuantizationSpec | None = Field(
        default=None, description="Weights of fewer bits, by a backend of diffusers."
    )
    encode: Literal["once", "each"] | None = Field(
        default=None,
        description="once: encode all prompts first, then free the text encoders; each: keep them beside the model.",
    )


class PromptSpec(_Section):
    """A prompt with fields of its own; a row of a .csv or .jsonl has the same."""

    prompt: Text = Field(description="The text.")
    name: Annotated[Text, Field(max_length=200)] | None = Field(
        default=None, description="What the report and exported files call it."
    )
    negative_prompt: str | None = Field(default=None, description="In place of the job's.")
    seed: Seed | None = Field(default=None, description="The only one that it is sampled with.")
    image: Inputs | None = Field(default=None, description="A picture to start from, or to edit; perhaps several.")
    last_image: Text | None = Field(default=None, description="The last frame of a clip.")
    video: Text | None = Field(default=None, description="A clip to start from.")
    mask: Text | None = Field(default=None, description="White where the picture is to be painted anew.")
    control_image: Inputs | None = Field(default=None, description="What a ControlNet or T2I-Adapter follows.")
    ip_adapter_image: Inputs | None = Field(default=None, description="What an IP-Adapter looks at.")
    strength: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="How much of the picture or clip is made anew; 1 is all of it."
    )
    steps: Steps | None = Field(default=None, description="In place of sampling.steps.")
    guidance_scale: Guidance | None = Field(default=None, description="In place of sampling.guidance_scale.")
    height: Side | None = Field(default=None, description="In place of sampling.height.")
    width: Side | None = Field(default=None, description="In place of sampling.width.")
    num_frames: FrameCount | None = Field(default=None, description="In place of sampling.num_frames.")


class PromptFile(_Section):
    """Prompts from a file."""

    file: Text = Field(description="A .txt, .csv or .jsonl file, relative to the job file, or packaged with genrun.")
    limit: Positive | None = Field(default=None, description="Use the first prompts only.")
    wildcards: bool = Field(default=False, description="Write a prompt with `{a|b}` out, once for each of them.")


class PromptTemplate(_Section):
    """Prompts made of a template: one for each combination of its variables."""

    template: Text | Annotated[tuple[Text, ...], Field(min_length=1)] = Field(
        description="A Jinja template such as `a {{ colour }} kite`, or a list of them."
    )
    variables: dict[str, Annotated[tuple[str | int | float | bool, ...], Field(min_length=1)]] = Field(
        default_factory=dict, description="Name -> its values."
    )
    wildcards: bool = Field(default=False, description="Write `{a|b}` out, once for each of them.")
    limit: Positive | None = Field(default=None, description="Use the first prompts only.")


class PromptSuite(_Section):
    """Prompts of a benchmark."""

    suite: Literal["vbench"] = Field(description="vbench: VBench's own prompts; take five seeds of each.")
    images: Text | None = Field(
        default=None,
        description="Folder of the start images of its image-to-video suite, whose list full_info is then.",
    )
    dimensions: Annotated[tuple[Text, ...], Field(min_length=1)] | None = Field(
        default=None, description="Only the prompts of these dimensions."
    )
    full_info: Text | None = Field(
        default=None,
        description="VBench_full_info.json, relative to the job file; the installed vbench's own when missing.",
    )
    limit: Positive | None = Field(default=None, description="Use the first prompts only.")


class CocoCaptions(_Section):
    """Captions of COCO, one of each picture."""

    coco: Text = Field(description="A captions file such as captions_val2014.json, relative to the job file.")
    sample: Positive | None = Field(default=None, description="How many, drawn by seed; all when missing.")
    seed: Seed = Field(default=0, description="Of the draw.")


class SchedulerSpec(_Kind):
    """A diffusers scheduler in place of the pipeline's own; its other keys are the scheduler's config."""

    kind: Text = Field(description="Name of a diffusers scheduler class.")


class SamplingSpec(_Section):
    """Arguments of the pipeline; what is missing comes from the adapter."""

    steps: Steps | None = Field(default=None, description="Sequential steps N.")
    guidance_scale: Guidance | None = Field(default=None, description="Guidance.")
    height: Side | None = Field(default=None, description="Height in pixels.")
    width: Side | None = Field(default=None, description="Width in pixels.")
    num_frames: FrameCount | None = Field(default=None, description="Frames of a clip.")
    negative_prompt: str | None = Field(
        default=None, description="Negative prompt of every prompt that has none of its own."
    )
    scheduler: SchedulerSpec | None = Field(default=None, description="A scheduler in place of the pipeline's own.")
    options: dict[str, Any] = Field(default_factory=dict, description="Further arguments of the pipeline's call.")


class SolverSpec(_Kind):
    """The solver; its other keys are the solver's options."""

    kind: Text = Field(default="sequential", description="Name of the solver; `genrun solvers` lists them.")
    confidence: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] | None = Field(
        default=None,
        description="Share of new items that are to be within the tolerance, such as 0.95, which `genrun calibrate` "
        "certifies a setting for; 0: run what is written, whatever was calibrated.",
    )


class CacheSpec(_Kind):
    """The cache; its other keys are the cache's options."""

    kind: Text = Field(default="none", description="Name of the cache; `genrun caches` lists them.")


class ParallelSpec(_Section):
    """The mesh of ranks: data x time x cfg x ring x ulysses. Never changes the pictures beyond rounding."""

    data: CountOrAuto = Field(default="auto", description="Groups of ranks that take different items.")
    time: CountOrAuto = Field(
        default=1,
        description="Ranks, or slots of ranks, that share the points of one item's rounds; auto: by `objective`.",
    )
    cfg: Literal[1, 2] = Field(default=1, description="2: two ranks share the guidance branches of one evaluation.")
    ring: Positive = Field(
        default=1, description="Ranks that share an evaluation's tokens, passing keys and values around."
    )
    ulysses: Positive = Field(
        default=1, description="Ranks that share an evaluation's tokens, exchanging attention heads."
    )
    backend: Literal["diffusers", "xfuser"] = Field(
        default="diffusers", description="What shares an evaluation's tokens out; xfuser is an extra, for GPUs."
    )
    elastic: bool = Field(
        default=False, description="Groups that run out of items share the points of those that are left."
    )


class StepSpec(_Section):
    """A job of its own that is run after the items."""

    step: Literal["score", "report"] = Field(description="score or report.")
    options: Options = Field(default_factory=dict, description="#SBATCH options of this job, over those of `launch`.")


class LaunchSpec(_Section):
    """The launcher of the workers, and its options. Never changes the pictures."""

    kind: Text = Field(
        default="inline",
        description="inline (one process), torchrun, or slurm; torchrun where `parallel` asks for ranks.",
    )
    processes: CountOrAuto = Field(
        default="auto", description="Processes (ranks): the product of `parallel`; with slurm, those of a task."
    )
    threads: Positive = Field(default=1, description="CPU threads a rank.")
    max_attempts: Positive = Field(default=2, description="Tries of an item before it counts as failed.")
    setup: tuple[Text, ...] = Field(default=(), description="Shell lines that workers run first.")
    partition: Text | None = Field(
        default=None, description="slurm: the partition; the cluster's default when missing."
    )
    array: CountOrAuto = Field(
        default=1, description="slurm: tasks of the array, which share the items out among them."
    )
    at_once: Positive | None = Field(default=None, description="slurm: how many tasks may run at the same time.")
    nodes: Positive = Field(
        default=1, description="slurm: nodes of a task; several for one item when parallel.time says so."
    )
    gpus: Gpus = Field(default=0, description="slurm: GPUs of a node, such as 8 or h200:8; one rank on each.")
    time: Time | None = Field(default=None, description='slurm: time limit of a task, such as "04:00:00".')
    agent: Literal["torchrun", "srun"] = Field(
        default="torchrun", description="slurm: what starts the ranks of a task."
    )
    options: Options = Field(default_factory=dict, description="slurm: any other #SBATCH option, by its long name.")
    template: Text | None = Field(
        default=None, description="slurm: a Jinja template of the batch script in place of ours."
    )
    then: tuple[StepSpec, ...] = Field(
        default=(), description="slurm: jobs to run after the items, each after the one before: score, report."
    )


class PreviewSpec(_Section):
    """Previews of items in work."""

    every: Positive = Field(default=1, description="Rounds from one preview to the next; a few seconds at least.")
    decoder: Text | None = Field(
        default=None,
        description="Folder of a diffusers AutoencoderTiny for the model's latents; without one, colours are fitted on "
        "the first decoded items.",
    )


class OutputSpec(_Section):
    """Folder and format of media."""

    dir: Folder = Field(default="runs", description="Folder of run folders.")
    save_latents: bool = Field(default=False, description="Keep the final latents of every item.")
    format: Literal["auto", "mp4", "png"] = Field(default="auto", description="auto: mp4 for video, png for images.")
    fps: Annotated[int, Field(ge=1, le=MAX_FPS)] | None = Field(
        default=None, description="Frames a second; the adapter's when missing."
    )
    crf: Annotated[int, Field(ge=0, le=51)] = Field(
        default=18, description="H.264 quality, 1 (finest; 0 is taken for it) to 51."
    )
    sound: bool | None = Field(
        default=None,
        description="Sound in a clip; by default where the model makes it. true: only of a model that does.",
    )
    previews: PreviewSpec | None = Field(
        default=None, description="Draw items in work, for `genrun report --serve --live`. true: with the defaults."
    )


class GateSpec(_Section):
    """Limits of one metric. A gate fails only when the interval of the mean lies wholly beyond a limit."""

    max: Limit | None = Field(default=None, description="The mean may be at most this; a percentage for shares.")
    min: Limit | None = Field(default=None, description="The mean must be at least this; a percentage for shares.")
    max_drop: Allowance | None = Field(
        default=None,
        description="How far the mean may fall below the baseline's: in the metric's units, or as 0.5% of it.",
    )
    max_rise: Allowance | None = Field(
        default=None,
        description="How far the mean may rise above the baseline's: in the metric's units, or as 0.5% of it.",
    )
    max_missing: Allowance | None = Field(
        default=None,
        description="Items that need not be measured: a number, or such as 5% of them; by default all have to be.",
    )


class NotifySpec(_Section):
    """A command that is told how a submission or a night ended. It reads JSON; genrun itself opens no connection."""

    command: Annotated[tuple[Text, ...], Field(min_length=1)] = Field(
        description="Program and arguments, without a shell; gets JSON on stdin."
    )
    timeout_s: Positive = Field(default=30, description="Seconds after which it is stopped.")
    when: Literal["always", "trouble"] = Field(default="always", description="Always, or when it did not end well.")


class NightlySpec(_Section):
    """The baseline of `genrun nightly`, its time, and who is told."""

    baseline: Text = Field(
        default="pinned",
        description="pinned (`genrun pin RUN`), last (the night before), or a run, such as demo/2026-01-31...",
    )
    at: Clock = Field(default="02:00", description='When it is meant to begin, local time; "HH:MM".')
    keep: Positive = Field(default=30, description="Nights whose runs are kept; the baseline is never removed.")
    notify: NotifySpec | None = Field(default=None, description="A command that is told how the night went.")


Prompt = Annotated[
    Annotated[Text, Tag(TEXT_TAG)] | Annotated[PromptSpec, Tag(ROW_TAG)],
    Discriminator(_prompt_tag),
]
Prompts = Annotated[
    Annotated[PromptFile, Tag(FILE_TAG)]
    | Annotated[PromptSuite, Tag(SUITE_TAG)]
    | Annotated[CocoCaptions, Tag(COCO_TAG)]
    | Annotated[PromptTemplate, Tag(TEMPLATE_TAG)]
    | Annotated[tuple[Prompt, ...], Field(min_length=1), Tag(LIST_TAG)],
    Discriminator(_prompts_tag),
]


class JobSpec(_Section):
    """A batch: every prompt x every seed x every cell of the matrix."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="genrun job")

    name: Annotated[str, Field(pattern=NAME_PATTERN)] = Field(
        description="Name of its run folders; the file's by default."
    )
    model: ModelSpec
    prompts: Prompts = Field(
        description="A list of prompts, a file of them, a template, VBench's suite, or COCO's captions."
    )
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = Field(
        default=(0,), description="Every prompt is sampled with each; 10 and 0..9 are short for [0, 1, ..., 9]."
    )
    sampling: SamplingSpec = SamplingSpec()
    solver: SolverSpec = SolverSpec()
    cache: CacheSpec = CacheSpec()
    attention: Attention = Field(default="native", description="Attention kernel, in place of torch's own.")
    parallel: ParallelSpec = ParallelSpec()
    objective: Literal["throughput", "latency"] = Field(
        default="throughput", description="What `parallel: auto` looks for: all items soonest, or each item soonest."
    )
    launch: LaunchSpec = LaunchSpec()
    output: OutputSpec = OutputSpec()
    score: tuple[MetricSpec, ...] = Field(
        default=(), description="Metrics to compute; `genrun score --list` lists them."
    )
    audit: Allowance | None = Field(
        default=None,
        description="Items, drawn at random, that are also sampled sequentially and compared: a number, or such as 2% of "
        "each cell; the report and a gate `audit` tell how many are within their tolerance.",
    )
    gates: dict[str, GateSpec] = Field(
        default_factory=dict,
        description="Metric -> limits, such as {latent_rmse: {max: 0.06}, vbench.quality: {max_drop: 0.5%}}.",
    )
    notify: NotifySpec | None = Field(default=None, description="A command that is told how a submission ended.")
    nightly: NightlySpec | None = Field(
        default=None, description="What `genrun nightly` compares with, keeps and tells."
    )
    matrix: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(
        default_factory=dict, description="Dotted path -> values; every combination is run."
    )
