"""Which fields of a job a certificate depends on: every field of the schema is decided here, and each is tried."""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from genrun.adapters.input_files import InputFile
from genrun.adapters.pipeline.call_options import ARGUMENTS
from genrun.runner.api.calibrating import _targets
from genrun.runner.api.jobs import load_job, plan
from genrun.runner.job import certificates
from genrun.runner.job.certificates import conditions_of_cell, own_conditions
from genrun.runner.job.nearest import differences, unmatched
from genrun.runner.job.plan import models_of
from genrun.runner.job.prompt_files import FIELDS
from genrun.runner.job.schema import JobSpec, PromptSpec
from tests.fakes.certificates import certify

JOB: dict[str, Any] = {
    "model": "demo-image",
    "prompts": ["a", "b"],
    "sampling": {"steps": 20},
    "solver": {"kind": "collocation", "workers": 8, "tolerance": 0.05},
}
SLURM = {"kind": "slurm"}
TWO = {"kind": "torchrun", "processes": 2}

CONDITIONS: dict[str, dict[str, Any]] = {
    "sampling.steps": {"sampling": {"steps": 10}},
    "sampling.guidance_scale": {"sampling": {"steps": 20, "guidance_scale": 3.0}},
    "sampling.negative_prompt": {"sampling": {"steps": 20, "negative_prompt": "c"}},
    "sampling.scheduler": {
        "sampling": {"steps": 20, "scheduler": {"kind": "FlowMatchEulerDiscreteScheduler", "shift": 2.0}}
    },
    "solver.kind": {"solver": {**JOB["solver"], "kind": "ropa"}},
    "solver.*": {"solver": {**JOB["solver"], "max_rounds": 9}},
    "cache.kind": {"cache": "first_block"},
    "prompts.negative_prompt": {"prompts": [{"prompt": "a", "negative_prompt": "c"}]},
    "prompts.steps": {"prompts": [{"prompt": "a", "steps": 10}]},
    "prompts.guidance_scale": {"prompts": [{"prompt": "a", "guidance_scale": 3.0}]},
}
"""Fields that the error of an item depends on, each with a change of JOB."""

INDIFFERENT: dict[str, dict[str, Any]] = {
    "name": {"name": "other"},
    "seeds": {"seeds": [7]},
    "prompts.prompt": {"prompts": ["c"]},
    "prompts.name": {"prompts": [{"prompt": "a", "name": "first"}]},
    "prompts.seed": {"prompts": [{"prompt": "a", "seed": 7}]},
    "solver.confidence": {"solver": {**JOB["solver"], "confidence": 0.9}},
    "objective": {"objective": "latency"},
    "parallel.data": {"launch": TWO, "parallel": {"data": 2}},
    "parallel.time": {"launch": TWO, "parallel": {"time": 2}},
    "parallel.cfg": {"launch": TWO, "parallel": {"cfg": 2}},
    "parallel.elastic": {"launch": TWO, "parallel": {"elastic": True}},
    "launch.kind": {"launch": "slurm"},
    "launch.processes": {"launch": TWO},
    "launch.threads": {"launch": {"threads": 2}},
    "launch.max_attempts": {"launch": {"max_attempts": 3}},
    "launch.setup": {"launch": {"setup": ["true"]}},
    "launch.partition": {"launch": {**SLURM, "partition": "long"}},
    "launch.array": {"launch": {**SLURM, "array": 2}},
    "launch.at_once": {"launch": {**SLURM, "array": 4, "at_once": 2}},
    "launch.nodes": {"launch": {**SLURM, "nodes": 2, "gpus": 1}, "parallel": {"time": 2}},
    "launch.gpus": {"launch": {**SLURM, "gpus": 2}},
    "launch.time": {"launch": {**SLURM, "time": "01:00:00"}},
    "launch.agent": {"launch": {**SLURM, "agent": "srun"}},
    "launch.options": {"launch": {**SLURM, "options": {"mem": "8G"}}},
    "launch.then": {"launch": {**SLURM, "then": ["report"]}},
    "output.save_latents": {"output": {"save_latents": True}},
    "output.format": {"output": {"format": "png"}},
    "output.previews": {"output": {"previews": True}},
    "model.device": {"model": {"adapter": "demo-image", "device": "cpu"}},
    "model.encode": {"model": {"adapter": "demo-image", "encode": "once"}},
    "score": {"score": ["ssim"]},
    "audit": {"audit": 1},
    "gates": {"score": ["ssim"], "gates": {"ssim": {"min": 0.5}}},
    "notify": {"notify": {"command": ["true"]}},
    "nightly": {"nightly": {"keep": 3}},
    "matrix": {"matrix": {"sampling.steps": [20]}},
}
"""Fields that it does not depend on."""

MODEL = {
    "adapter": "auto",
    "checkpoint": "/models/a",
    "fingerprint": "3" * 20,
    "dtype": "float32",
    "device": "auto",
    "loras": [{"path": "l", "weight": 1.0, "name": "l"}],
    "ip_adapter": {"path": "i", "weight_name": "i.safetensors", "scale": 1.0},
    "controlnet": ["c"],
    "components": {"vae": "v"},
    "contents": {each: each * 20 for each in "licvtm"},
}
"""The model of an item, as its plan has it."""

OF_MODEL: dict[str, tuple[dict[str, Any], bool]] = {
    "adapter": ({"adapter": "flux"}, True),
    # A copy elsewhere has the same weights; other weights, another revision, variant or file have another fingerprint.
    "checkpoint": ({"checkpoint": "/models/b"}, False),
    "fingerprint": ({"fingerprint": "4" * 20}, True),
    "revision": ({"revision": "main"}, False),
    "variant": ({"variant": "fp16"}, True),
    "dtype": ({"dtype": {"default": "float32", "vae": "float16"}}, True),
    "config": ({"config": "m"}, True),
    "components": ({"components": {"vae": None}}, True),
    "task": ({"task": "image-to-image"}, True),
    "loras.path": ({"loras": [{"path": "m", "weight": 1.0}]}, True),
    "loras.weight": ({"loras": [{"path": "l", "weight": 0.5}]}, True),
    "loras.name": ({"loras": [{"path": "l", "weight": 1.0, "name": "m"}]}, False),
    # Of a folder here its file alone is what `path` names, and no `weight_name` is kept; of a hub id that tells the file.
    "loras.weight_name": ({"loras": [{"path": "l", "weight": 1.0, "weight_name": "l"}]}, True),
    "loras.component": ({"loras": [{"path": "l", "weight": 1.0, "component": "transformer_2"}]}, True),
    "loras.partial": ({"loras": [{"path": "l", "weight": 1.0, "partial": True}]}, False),
    "controlnet": ({"controlnet": ["c", "v"]}, True),
    "t2i_adapter": ({"t2i_adapter": ["t"]}, True),
    "ip_adapter.path": ({"ip_adapter": {**MODEL["ip_adapter"], "path": "m"}}, True),
    "ip_adapter.weight_name": ({"ip_adapter": {**MODEL["ip_adapter"], "weight_name": "j.safetensors"}}, True),
    "ip_adapter.subfolder": ({"ip_adapter": {**MODEL["ip_adapter"], "subfolder": "models"}}, True),
    "ip_adapter.scale": ({"ip_adapter": {**MODEL["ip_adapter"], "scale": 0.5}}, True),
    "ip_adapter.image_encoder": ({"ip_adapter": {**MODEL["ip_adapter"], "image_encoder": "other"}}, True),
    "device": ({"device": "cuda"}, False),
    "offload": ({"offload": "model"}, False),
    # Pictures that items are made from are encoded in tiles, too.
    "vae.tiling": ({"vae": {"tiling": True}}, True),
    "vae.slicing": ({"vae": {"slicing": True}}, False),
    "compile": ({"compile": True}, True),
    "quantization.backend": ({"quantization": {"backend": "quanto"}}, True),
    "quantization.components": ({"quantization": {"backend": "quanto", "components": ["unet"]}}, True),
    "encode": ({"encode": "once"}, False),
}
"""Fields of an item's model, each with a change of MODEL, and whether the error of an item depends on it."""

ELSEWHERE = {
    "model": "OF_MODEL, but for the two keys that it has beside the section's",
    "attention": "test_all_that_a_pipeline_is_called_with_is_a_condition",
    **dict.fromkeys((f"sampling.{name}" for name in ("height", "width", "num_frames", "options")), "as attention"),
    **dict.fromkeys((f"prompts.{name}" for name in (*ARGUMENTS, "strength")), "test_a_prompts_own_conditions_are_..."),
    **dict.fromkeys(
        (f"prompts.{name}" for name in ("height", "width", "num_frames")), "test_a_prompts_own_conditions_are_..."
    ),
    **dict.fromkeys(
        ("parallel.ring", "parallel.ulysses", "parallel.backend"), "as parallel.cfg: no demo model has them"
    ),
    "launch.template": "as launch.setup: is a file",
    "output.dir": "is where certificates are looked for",
    **dict.fromkeys(("output.crf", "output.fps", "output.sound"), "test_how_a_clip_is_written_is_no_condition"),
}
"""Fields that are decided in another place, and where."""


def _paths(section: type[BaseModel], above: str = "") -> Iterator[str]:
    """Yield the fields of a section and of those in it; lists of prompts count as the rows of one."""
    for name, field in section.model_fields.items():
        path = f"{above}.{name}" if above else name
        inner = PromptSpec if path == "prompts" else next(_sections(field.annotation), None)
        if path in ("notify", "nightly", "gates", "launch.then", "output.previews", "sampling.scheduler", "score"):
            inner = None
        yield from (path,) if inner is None else _paths(inner, path)
    if section.model_config.get("extra") == "allow" and above in ("solver", "cache"):
        yield f"{above}.*"


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in typing.get_args(annotation):
        yield from _sections(each)


def _with_runs(change: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    return {**JOB, **change, "output": {**change.get("output", {}), "dir": str(folder)}}


def test_every_field_of_a_job_is_decided() -> None:
    decided = [*CONDITIONS, *INDIFFERENT, *ELSEWHERE, *(f"model.{name}" for name in OF_MODEL)]
    fields = {*_paths(JobSpec), "solver.*", "model", "model.fingerprint"}
    known = {"cache.kind", "cache.*", *decided}
    assert fields - known == set(), "decide in CONDITIONS, INDIFFERENT or OF_MODEL whether errors depend on it"
    assert known - fields == set()


@pytest.mark.parametrize("field", CONDITIONS)
def test_a_certificate_of_other_conditions_is_not_taken_and_the_difference_is_said(field: str, tmp_path: Path) -> None:
    certify(tmp_path, load_job(_with_runs({}, tmp_path)))
    loaded = load_job(_with_runs(CONDITIONS[field], tmp_path))
    items = plan(loaded)
    assert all(not item.promise for item in items)
    lines = unmatched(loaded, models_of(loaded))
    if field == "solver.kind":
        assert not lines
        return
    name = field.rpartition(".")[2]
    expected = {"solver.*": "solver.max_rounds", "cache.kind": "cache", "prompts.negative_prompt": "negative_prompt"}
    assert len(lines) == 1 and f"is not for these items: {expected.get(field, '')}" in lines[0]
    assert expected.get(field, f"sampling.{name}") in lines[0]


@pytest.mark.parametrize("field", INDIFFERENT)
def test_a_certificate_is_taken_whatever_else_is_changed(field: str, tmp_path: Path) -> None:
    certify(tmp_path, load_job(_with_runs({}, tmp_path)))
    items = plan(load_job(_with_runs(INDIFFERENT[field], tmp_path)))
    assert {item.promise.get("state") for item in items if not item.is_reference} == {certificates.CERTIFIED}
    assert {item.solver.get("tolerance") for item in items if not item.is_reference} == {0.7 * 0.05}


@pytest.mark.parametrize("written", [{"crf": 20}, {"fps": 12}])
def test_how_a_clip_is_written_is_no_condition(written: dict[str, Any], tmp_path: Path) -> None:
    job = {"model": "demo-video", "output": written}
    certify(tmp_path, load_job(_with_runs({"model": "demo-video"}, tmp_path)))
    items = plan(load_job(_with_runs(job, tmp_path)))
    assert {item.promise.get("state") for item in items} == {certificates.CERTIFIED}


@pytest.mark.parametrize("field", OF_MODEL)
def test_of_a_model_what_changes_the_pictures_is_a_condition(field: str) -> None:
    cell = load_job(JOB).cells[0]
    change, depends = OF_MODEL[field]
    same = conditions_of_cell(cell, MODEL) == conditions_of_cell(cell, {**MODEL, **change})
    assert same is not depends


def test_all_that_a_pipeline_is_called_with_is_a_condition() -> None:
    cell = load_job(JOB).cells[0]
    (model,) = models_of(load_job(JOB))
    more = [{"height": 48}, {"width": 48}, {"num_frames": 9}, {"options": {"eta": 0.5}}]
    calls = [replace(cell, sampling={**cell.sampling, **each}) for each in more]
    kernel = replace(cell, job=cell.job.model_copy(update={"attention": "sage"}))
    seen = [json.dumps(conditions_of_cell(each, model)) for each in (cell, *calls, kernel)]
    assert len({*seen}) == len(seen) == 6


def test_a_prompts_own_conditions_are_its_inputs_its_negative_prompt_and_its_sampling() -> None:
    rows = [
        {"prompt": "b", name: value}
        for name, value in {"height": 32, "width": 32, "steps": 4, "guidance_scale": 2.0, "negative_prompt": ""}.items()
    ]
    cell = load_job({**JOB, "prompts": ["a", *rows]}).cells[0]
    plain, *own = cell.prompts
    assert own_conditions(cell, plain, {}) == {}
    assert all(own_conditions(cell, prompt, {}) for prompt in own)
    picture = InputFile(Path("a.png"), "a" * 64, ".png", 8, 8, 1)
    seen = [own_conditions(cell, plain, {field: (picture,) * count}) for field in ARGUMENTS for count in (1, 2)]
    assert len({json.dumps(each) for each in seen}) == 2 * len(ARGUMENTS) == 2 * len({*FIELDS} & {*ARGUMENTS})
    # Another picture is another prompt, and no other condition.
    other = InputFile(Path("b.png"), "b" * 64, ".png", 16, 16, 1)
    assert own_conditions(cell, plain, {"image": (picture,)}) == own_conditions(cell, plain, {"image": (other,)})


@pytest.mark.parametrize(("parallel", "taken"), [({"data": 2}, True), ({"time": 2}, False), ({"cfg": 2}, True)])
def test_a_certificate_of_one_process_is_not_taken_where_ranks_share_rounds(
    parallel: dict[str, Any], taken: bool, tmp_path: Path
) -> None:
    open_k = {**JOB, "solver": {"kind": "collocation", "tolerance": 0.05}, "output": {"dir": str(tmp_path)}}
    certify(tmp_path, load_job(open_k))
    loaded = load_job({**open_k, "launch": TWO, "parallel": parallel})
    items = plan(loaded)
    assert all(bool(item.promise) is taken for item in items)
    lines = unmatched(loaded, models_of(loaded))
    assert ["solver.workers is 2 and not 1" in line for line in lines] == [True] * (not taken)


def test_prompts_of_a_job_are_calibrated_by_their_conditions(tmp_path: Path) -> None:
    rows = ["a", "b", {"prompt": "c", "negative_prompt": "d"}, {"prompt": "e", "steps": 10}]
    made = {**JOB, "prompts": rows, "output": {"dir": str(tmp_path)}}
    loaded = load_job(made)
    assert [[prompt.text for prompt in each.cell.prompts] for each in _targets(loaded)] == [["a", "b"], ["c"]]
    certify(tmp_path, loaded)
    states = {item.prompt: item.promise.get("state") for item in plan(loaded)}
    assert states == {**dict.fromkeys("abc", certificates.CERTIFIED), "e": None}
    assert len({item.promise.get("certificate") for item in plan(loaded)}) == 3


def test_a_certificate_of_a_lower_confidence_is_named(tmp_path: Path) -> None:
    made = _with_runs({"solver": {**JOB["solver"], "confidence": 0.99}}, tmp_path)
    path = certify(tmp_path, load_job(made))
    loaded = load_job(made)
    (why,) = unmatched(loaded, models_of(loaded))
    assert {item.promise["state"] for item in plan(loaded)} == {certificates.AIM}
    assert why == f"collocation: certificate {path.stem} is for 95 %, and 99 % are asked for"


def test_another_jobs_certificate_is_named_only_where_a_promise_is_asked_for(tmp_path: Path) -> None:
    certify(tmp_path, load_job(_with_runs({}, tmp_path)))
    other = {"sampling": {"steps": 10}, "cache": "first_block"}
    for confidence, lines in ((None, 0), (0, 0), (0.95, 1)):
        solver = {**JOB["solver"], **({} if confidence is None else {"confidence": confidence})}
        loaded = load_job(_with_runs({**other, "solver": solver}, tmp_path))
        assert len(unmatched(loaded, models_of(loaded))) == lines


@pytest.mark.parametrize(
    ("asked", "held", "told"),
    [
        (
            {"sampling": {"options": {"strength": 0.5}}},
            {"sampling": {}},
            "sampling.options.strength is 0.5 and not none",
        ),
        ({"cache": {}}, {"cache": {"kind": "first_block", "threshold": 0.1}}, "cache is none and not first_block"),
        ({"inputs": {"image": 2}}, {}, "inputs.image is 2 and not none"),
        ({"model": {"loras": [["3" * 20, 0.5]]}}, {"model": {"loras": [["3" * 20, 1.0]]}}, "model.loras differs"),
        ({"model": {"fingerprint": "3" * 20}}, {"model": {"fingerprint": "4" * 20}}, "model.fingerprint differs"),
        # What a file says is not printed where a terminal would obey it.
        ({"attention": "native"}, {"attention": "\033[2J"}, "attention differs"),
        ({}, {"\033[2J": 1}, "another field is none and not 1"),
    ],
)
def test_differences_are_told_in_a_few_letters(asked: dict[str, Any], held: dict[str, Any], told: str) -> None:
    ((_, text),) = differences({"cell": asked}, {"cell": held})
    assert text == told
