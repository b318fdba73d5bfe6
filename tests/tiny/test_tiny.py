"""The tiny pipelines are what other tests take them for: deterministic, alive, loadable, and stock."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor, nn

from tests.tiny import (
    FAMILIES,
    OF_EACH_LOOP,
    SCHEDULERS,
    build,
    build_scheduler_variants,
    call_kwargs,
    latents_of,
)

pytestmark = pytest.mark.unit_part(family=OF_EACH_LOOP)
WITH_TEXT = [family for family in FAMILIES if family != "ddpm"]
GUIDANCE = ("true_cfg_scale", "guidance_scale")
VISIBLE = 1e-3
STEPS = 4
HUNYUANVIDEO15_LENGTHS = (
    "system_message",
    "prompt_template_encode_start_idx",
    "tokenizer_max_length",
    "tokenizer_2_max_length",
    "vision_num_semantic_tokens",
)
"""What its pipeline keeps out of its configuration."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def pipeline(family: str) -> DiffusionPipeline:
    return build(family)


@pytest.fixture(scope="module")
def result(pipeline: DiffusionPipeline, family: str) -> Tensor:
    return sample(pipeline, family)


@pytest.fixture(scope="module")
def saved(pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pipeline")
    pipeline.save_pretrained(path)
    return path


def load(path: Path, dtype: torch.dtype = torch.float32) -> Any:
    pipeline: Any = DiffusionPipeline.from_pretrained(path, dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def align(pipeline: Any) -> None:
    """Move weights out of their file's mapping: some processors' kernels round otherwise at unaligned addresses."""
    for module in pipeline.components.values():
        for parameter in module.parameters() if isinstance(module, nn.Module) else ():
            parameter.data = parameter.data.clone()


def sample(pipeline: Any, family: str, seed: int = 0, **changes: Any) -> Tensor:
    return latents_of(pipeline(**call_kwargs(family, seed) | {"num_inference_steps": STEPS} | changes))


def denoiser(pipeline: Any) -> nn.Module:
    return pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer


def distance(result: Tensor, other: Tensor) -> float:
    return float((result - other).norm() / result.norm())


def first_evaluation(pipeline: Any, family: str, **changes: Any) -> tuple[dict[str, Any], Tensor, Tensor]:
    """The named inputs and the output of a call's first evaluation of the model, and the call's result."""
    seen: list[tuple[dict[str, Any], Tensor]] = []

    def record(model: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        inputs = inspect.signature(model.forward).bind(*args, **kwargs).arguments
        seen.append((inputs, tensor_of(output[0]).clone()))

    handle = denoiser(pipeline).register_forward_hook(record, with_kwargs=True)
    result = sample(pipeline, family, **changes)
    handle.remove()
    return *seen[0], result


def tensor_of(output: Any) -> Tensor:
    """A model's output; Z-Image's is a list with an entry for each row."""
    return torch.stack(output) if isinstance(output, list) else output


def test_two_builds_give_the_same_bits(pipeline: DiffusionPipeline, family: str, result: Tensor) -> None:
    assert torch.equal(result, sample(pipeline, family))
    assert torch.equal(result, sample(build(family), family))


def test_result_is_finite_and_of_sensible_spread(result: Tensor) -> None:
    assert result.isfinite().all()
    assert 0.05 < result.std() < 50


def test_result_depends_on_the_seed(pipeline: DiffusionPipeline, family: str, result: Tensor) -> None:
    assert distance(result, sample(pipeline, family, seed=1)) > VISIBLE


def test_model_output_depends_on_latents_and_timestep(pipeline: DiffusionPipeline, family: str) -> None:
    inputs, output, _ = first_evaluation(pipeline, family, num_inference_steps=2)
    latents = next(name for name in ("hidden_states", "sample", "x") if name in inputs)
    time = "timestep" if "timestep" in inputs else "t"
    timestep, given = torch.as_tensor(inputs[time]), inputs[latents]
    for change in (
        {latents: [1.1 * row for row in given] if isinstance(given, list) else 1.1 * given},
        # Time runs from 0 in some models.
        {time: torch.where(timestep == 0, torch.full_like(timestep, 0.5), 0.8 * timestep).to(timestep.dtype)},
    ):
        with torch.no_grad():
            changed = tensor_of(denoiser(pipeline)(**inputs | change)[0])
        assert distance(output, changed) > VISIBLE, change.keys()


def test_every_parameter_is_away_from_zero(pipeline: DiffusionPipeline) -> None:
    for component in pipeline.components.values():
        if isinstance(component, nn.Module):
            silent = [name for name, parameter in component.named_parameters() if not parameter.any()]
            assert not silent


def test_decodes_to_pictures_that_show_the_seed(pipeline: DiffusionPipeline, family: str) -> None:
    shown = {"output_type": "pt", "num_inference_steps": 2}
    pictures = sample(pipeline, family, **shown)
    assert pictures.shape[-3] == 3
    assert pictures.isfinite().all()
    assert 0 <= pictures.min() < pictures.max() <= 1
    assert distance(pictures, sample(pipeline, family, seed=1, **shown)) > VISIBLE


@pytest.mark.parametrize("family", WITH_TEXT, scope="module")
def test_model_output_and_result_depend_on_the_prompt(pipeline: DiffusionPipeline, family: str) -> None:
    _, output, result = first_evaluation(pipeline, family, num_inference_steps=2)
    _, changed, other = first_evaluation(pipeline, family, num_inference_steps=2, prompt="a blue square moving right")
    # SD3 and its like stack [unconditional, conditional]: the last row is the prompt's. Z-Image has them the other way.
    row = 0 if family == "z_image" else -1
    assert distance(output[row], changed[row]) > VISIBLE
    assert distance(result, other) > VISIBLE


@pytest.mark.parametrize("family", [f for f in WITH_TEXT if f != "hunyuanvideo15"], scope="module")
def test_guidance_is_on(pipeline: DiffusionPipeline, family: str, result: Tensor) -> None:
    scale = next(name for name in GUIDANCE if name in call_kwargs(family))
    weaker: dict[str, Any] = {scale: 1.5}
    assert distance(result, sample(pipeline, family, **weaker)) > VISIBLE


def test_hunyuanvideo15_is_guided_by_its_guider() -> None:
    pipeline: Any = build("hunyuanvideo15")
    result = sample(pipeline, "hunyuanvideo15")
    pipeline.guider.guidance_scale = 1.5
    assert distance(result, sample(pipeline, "hunyuanvideo15")) > VISIBLE


def test_wan22_evaluates_both_experts() -> None:
    pipeline: Any = build("wan22")
    evaluations = {"transformer": 0, "transformer_2": 0}
    for name in evaluations:

        def count(*_: Any, name: str = name) -> None:
            evaluations[name] += 1

        getattr(pipeline, name).register_forward_hook(count)
    sample(pipeline, "wan22")
    assert min(evaluations.values()) >= 2
    assert sum(evaluations.values()) == 2 * STEPS


def test_building_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    build("sd3")
    assert torch.equal(before, torch.get_rng_state())


def test_saved_and_loaded_it_is_the_same(pipeline: Any, family: str, result: Tensor, saved: Path) -> None:
    loaded = load(saved)
    for name in HUNYUANVIDEO15_LENGTHS if family == "hunyuanvideo15" else ():
        setattr(loaded, name, getattr(pipeline, name))
    align(loaded)
    assert type(loaded) is type(pipeline)
    assert torch.equal(result, sample(loaded, family))


@pytest.mark.parametrize("family", ["hunyuanvideo15"], scope="module")
def test_hunyuanvideo15_heeds_the_prompt_at_its_own_lengths(saved: Path, family: str) -> None:
    loaded = load(saved)
    result = sample(loaded, family, num_inference_steps=1)
    other = sample(loaded, family, num_inference_steps=1, prompt="a blue square")
    assert distance(result, other) > 1e-5


# Wan keeps parts in float32; the others stand for each kind of text encoder.
@pytest.mark.parametrize("family", ["sd3", "flux2", "hunyuanvideo", "wan22", "qwenimage"], scope="module")
def test_bfloat16_build_has_the_dtypes_of_a_loaded_pipeline(family: str, saved: Path) -> None:
    loaded = load(saved, torch.bfloat16)
    for name, component in build(family, torch.bfloat16).components.items():
        if isinstance(component, nn.Module):
            theirs = {path: tensor.dtype for path, tensor in getattr(loaded, name).state_dict().items()}
            assert {path: tensor.dtype for path, tensor in component.state_dict().items()} == theirs


def test_bfloat16_result_is_near_the_float32_one(family: str, result: Tensor) -> None:
    rounded = sample(build(family, torch.bfloat16), family).float()
    assert rounded.isfinite().all()
    assert 0 < distance(result, rounded) < 0.7


def test_scheduler_variants_are_fresh_pairs() -> None:
    for kind, names in SCHEDULERS.items():
        first, second = build_scheduler_variants(kind), build_scheduler_variants(kind)
        assert tuple(name for name, _ in first) == names
        assert all(one is not other for (_, one), (_, other) in zip(first, second, strict=True))


def test_pipeline_and_model_are_stock(pipeline: DiffusionPipeline) -> None:
    assert type(pipeline).__module__.startswith("diffusers.pipelines.")
    assert type(denoiser(pipeline)).__module__.startswith("diffusers.models.")
