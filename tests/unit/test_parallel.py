"""What can be evaluated on several ranks, and what is refused, by name, before or after a model is loaded."""

from __future__ import annotations

import json
import re
from importlib import metadata
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist

from genrun.adapters.errors import RefusedError
from genrun.adapters.parallel import xfuser
from genrun.adapters.parallel.context import dispatch_all, rank_by_rank
from genrun.adapters.parallel.enable import enable_parallelism
from genrun.adapters.parallel.slot import FailureBarrier, Slot
from genrun.adapters.parallel.support import CONTEXT, DOUBLED, MASKED, TWICE, product, refusals, uneven
from genrun.runner.errors import SubmissionRefusedError as QueueRefusedError
from genrun.runner.job import LoadedJob, load
from genrun.runner.job.errors import JobFileError
from genrun.runner.job.plan import plan
from genrun.runner.launch import local
from genrun.runner.launch.protocol import LaunchRequest
from genrun.runner.parallel.mesh import Mesh, MeshRequest
from genrun.runner.store import environment
from tests.fakes.jobs import BASE, items_of, problems_of
from tests.tiny import build, call_kwargs, latents_of


def slot(**sizes: Any) -> Slot:
    return Slot(cast(Any, None), **sizes)


def test_a_mesh_has_slots_of_ranks_in_teams_in_groups() -> None:
    mesh = Mesh(data=2, time=3, cfg=2, ring=1, ulysses=4)
    assert (mesh.ranks_per_slot, mesh.ranks_per_team, mesh.ranks) == (8, 24, 48)
    assert str(mesh) == "data x time x cfg x ulysses = 2 x 3 x 2 x 4"
    assert product(Mesh(1, 2).to_dict(), "parallel.") == "parallel.data x parallel.time = 1 x 2"


@pytest.mark.parametrize(("ranks", "data"), [(None, 1), (3, 1), (4, 1), (9, 2)])
def test_as_many_groups_as_there_are_ranks_for(ranks: int | None, data: int) -> None:
    assert MeshRequest(time=2, ulysses=2).mesh(ranks) == Mesh(data, 2, ulysses=2)
    assert MeshRequest(data=5, time=2).mesh(ranks) == Mesh(5, 2)


@pytest.mark.parametrize("pipeline", sorted({*CONTEXT, *DOUBLED, *TWICE, "DDPMPipeline", "HunyuanVideo15Pipeline"}))
def test_every_cell_of_the_table_is_supported_or_refused_by_name(pipeline: str) -> None:
    found = dict(refusals(pipeline, cfg=2, ring=2, ulysses=2))
    assert ("cfg" in found) == (pipeline not in DOUBLED + TWICE)
    assert ("ulysses" in found) == (pipeline not in CONTEXT)
    assert ("ring" in found) == (pipeline not in CONTEXT or pipeline in MASKED)
    assert all(pipeline in message for message in found.values())
    assert list(refusals(pipeline)) == []


def test_a_loaded_pipeline_that_cannot_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"parallel\.ulysses: DDPMPipeline cannot share its tokens out"):
        enable_parallelism(build("ddpm"), slot(ulysses=2))
    with pytest.raises(RefusedError, match=r"parallel\.cfg: it is not known how Flux2Pipeline guides"):
        enable_parallelism(build("flux2"), slot(cfg=2))


def test_the_ring_is_refused_on_a_cpu_with_the_reason() -> None:
    with pytest.raises(RefusedError, match=r"parallel\.ring needs GPUs: .* log-sum-exp"):
        enable_parallelism(build("flux"), slot(ring=2))


def test_heads_that_cannot_be_shared_equally_are_refused_with_what_can() -> None:
    message = "4 ranks cannot share the 2 attention heads of WanTransformer3DModel equally; write one of 1, 2"
    with pytest.raises(RefusedError, match=message):
        enable_parallelism(build("wan21"), slot(ulysses=4))


@pytest.mark.parametrize(
    ("model", "mesh", "message"),
    [
        (
            "demo-video",
            "ulysses: 3",
            "ulysses: 3 ranks cannot share the 4 attention heads of CogVideoXTransformer3DModel",
        ),
        ("demo-video", "ring: 2", "parallel.ring: needs model.dtype: bfloat16 or float16"),
        ("{adapter: flux, device: cpu}", "ring: 2", "parallel.ring: needs GPUs"),
        ("{adapter: flux, dtype: {default: bfloat16, transformer: float32}}", "ring: 2", "ring: needs model.dtype"),
    ],
)
def test_what_ranks_cannot_share_is_told_when_the_job_is_checked(
    here: Path, model: str, mesh: str, message: str
) -> None:
    del here
    with pytest.raises(JobFileError, match=re.escape(message)):
        plan(job_of(model, mesh))


@pytest.mark.parametrize(("model", "mesh"), [("demo-video", "ulysses: 4"), ("flux", "ring: 2")])
def test_what_ranks_can_share_is_taken(here: Path, model: str, mesh: str) -> None:
    del here
    assert len(plan(job_of(model, mesh))) == 1


def job_of(model: str, mesh: str) -> LoadedJob:
    """A job in the current folder."""
    Path("job.yaml").write_text(f"model: {model}\nprompts: [a]\nparallel: {{{mesh}}}\n")
    return load("job.yaml", environ={})


@pytest.mark.parametrize("heads", [None, "4", True, 0, -4, 4.0, 10**9])
def test_a_configuration_may_say_anything_of_heads(heads: Any) -> None:
    assert uneven("Model", heads, 3) is None


def test_a_mask_follows_its_tokens_rank_by_rank() -> None:
    image, text = torch.arange(5), torch.arange(10, 13)
    mask = torch.cat([image, text]).view(1, 1, 1, 8)
    assert rank_by_rank(mask, 5, 2).flatten().tolist() == [0, 1, 2, 10, 11, 3, 4, 12]


@pytest.mark.parametrize("family", ["sd3", "cogvideox_ddim"])
def test_attention_through_diffusers_dispatch_is_the_stock_one_bit_for_bit(family: str) -> None:
    pipe = build(family)
    stock = latents_of(pipe(**{**call_kwargs(family), "num_inference_steps": 2}))
    dispatch_all(pipe.transformer)
    dispatch_all(pipe.transformer)
    assert torch.equal(latents_of(pipe(**{**call_kwargs(family), "num_inference_steps": 2})), stock)
    names = {type(module.processor).__name__ for module in pipe.transformer.modules() if hasattr(module, "processor")}
    assert all(name.startswith("Dispatching") and name.count("Dispatching") == 1 for name in names)


def test_an_alarm_on_which_all_agree_is_over_at_once(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        FailureBarrier(cast(Any, dist.group.WORLD), grace_s=60).wait(MemoryError("x"))
    finally:
        dist.destroy_process_group()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


TORCHRUN = "launch: {kind: torchrun, processes: 6}\n"


@pytest.mark.parametrize(
    ("parallel", "problem"),
    [
        (
            "{data: 2, time: 2, ulysses: 2}",
            "job.yaml:4:37: launch.processes: 6 is not parallel.data x parallel.time x parallel.ulysses = 2 x 2 x 2 = 8.",
        ),
        (
            "{ulysses: 4}",
            "launch.processes: 6 cannot be shared out in groups of parallel.time x parallel.ulysses = 1 x 4",
        ),
        ("{cfg: 3}", "job.yaml:3:17: parallel.cfg: wanted 1 or 2, got 3."),
        ("{ulyses: 2}", "parallel.ulyses: unknown option. Did you mean 'ulysses'?"),
    ],
)
def test_a_mesh_that_does_not_fit_is_told_with_its_place(here: Path, parallel: str, problem: str) -> None:
    del here
    assert any(problem in line for line in problems_of(f"{BASE}parallel: {parallel}\n{TORCHRUN}"))


def test_more_ranks_than_a_tasks_gpus_are_refused(here: Path) -> None:
    del here
    launch = "launch: {kind: slurm, gpus: 4, processes: 8}\n"
    wanted = ": launch.processes: 8 ranks need a GPU each, and launch.gpus x launch.nodes = 4."
    assert any(wanted in line for line in problems_of(f"{BASE}{launch}"))


def test_more_ranks_than_this_machines_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "gpu_names", lambda: ["H100", "H100"])
    with pytest.raises(QueueRefusedError, match="4 ranks, and this machine has 2 GPUs: one rank needs one"):
        local.mesh_of(LaunchRequest(4, MeshRequest()))
    assert local.mesh_of(LaunchRequest("auto", MeshRequest())) == Mesh(2, 1)
    assert local.mesh_of(LaunchRequest(4, MeshRequest(), uses_gpus=False)) == Mesh(4, 1)


@pytest.mark.parametrize(
    ("visible", "count"),
    [(None, 3), ("1,0", 2), ("GPU-b", 1), ("", 0), ("-1", 0), ("0,9,1", 1), ("MIG-3f,MIG-40", 2)],
)
def test_a_machines_gpus_are_those_that_cuda_shows_a_process(
    visible: str | None, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf '0, GPU-a, NVIDIA H100\\n1, GPU-b, NVIDIA H100\\n2, GPU-c, NVIDIA L4\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert len(environment.gpu_names()) == count
    assert (environment.gpu_names()[:1] == ["NVIDIA H100"]) == (count > 0 and visible != "MIG-3f,MIG-40")


def test_a_mesh_never_enters_an_items_id(here: Path) -> None:
    del here
    plain = items_of(BASE)
    spread = items_of(f"{BASE}parallel: {{time: 2, ulysses: 2, cfg: 2, ring: 2, elastic: true}}\n")
    assert [item.id for item in plain] == [item.id for item in spread]


def test_a_checkpoint_that_cannot_is_refused_before_it_is_loaded(here: Path) -> None:
    """The pipeline's class is read from the folder."""
    from genrun.runner.job.cell import pipeline_of
    from genrun.runner.job.checkpoint import Checkpoint

    (here / "model_index.json").write_text(json.dumps({"_class_name": "DDPMPipeline"}))
    auto = SimpleNamespace(pipeline=None)
    assert pipeline_of(auto, Checkpoint(str(here), here)) == "DDPMPipeline"
    assert pipeline_of(auto, Checkpoint("org/name", None)) is None
    (here / "model_index.json").write_text("[]")
    assert pipeline_of(auto, Checkpoint(str(here), here)) is None


def test_an_axis_that_a_models_pipeline_cannot_use_is_told_with_its_place(here: Path) -> None:
    del here
    with pytest.raises(JobFileError, match=r"job\.yaml:3:17: parallel\.cfg: it is not known how DDPMPipeline"):
        job_of("ddpm-church", "cfg: 2")
    assert len(plan(job_of("wan2.1", "cfg: 2"))) == 1


def test_xfuser_is_refused_where_there_is_no_gpu() -> None:
    with pytest.raises(RefusedError, match=r"parallel\.backend: xfuser needs GPUs, and there is none here"):
        enable_parallelism(build("flux"), slot(ulysses=2, backend="xfuser"))


@pytest.mark.parametrize(
    ("installed", "family", "sizes", "message"),
    [
        (False, "flux", {"ulysses": 2}, "xfuser is not installed: pip install 'genrun.xfuser.'"),
        (True, "flux", {"cfg": 2}, "parallel.cfg: 2 works with parallel.backend: diffusers only"),
        (
            True,
            "sd3",
            {"ulysses": 2},
            "xfuser is not driven for SD3Transformer2DModel; known are FluxTransformer2DModel",
        ),
    ],
)
def test_what_xfuser_lacks_is_refused_by_name(
    installed: bool, family: str, sizes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine with a GPU, which only the questions about it are told of."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(xfuser, "find_spec", lambda name: object() if installed else None)
    with pytest.raises(RefusedError, match=message):
        xfuser.check(build(family), slot(**sizes, backend="xfuser"))


@pytest.mark.parametrize("mesh", [Mesh(1, 2, ulysses=2), Mesh(2, 2, cfg=2, ring=1, ulysses=2), Mesh(1, 4, ring=2)])
def test_time_is_xfusers_data_dimension(mesh: Mesh) -> None:
    """By xfuser's own arithmetic of ranks, read from its file, since the package cannot be imported without a GPU."""
    try:
        files = metadata.files("xfuser") or []
    except metadata.PackageNotFoundError:
        pytest.skip("xfuser is not installed")
    path = next(file for file in files if file.as_posix() == "xfuser/core/distributed/utils.py").locate()
    spec = spec_from_file_location("xfuser_ranks", str(path))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    found = xfuser.degrees(mesh.to_dict())
    sequence, cfg, data = (
        found[f"{name}_degree"] for name in ("sequence_parallel", "classifier_free_guidance", "data_parallel")
    )
    ranks = module.RankGenerator(1, sequence, 1, cfg, data, 1, "tp-sp-pp-cfg-dp")
    slots = [list(range(first, first + mesh.ranks_per_slot)) for first in range(0, mesh.ranks, mesh.ranks_per_slot)]
    assert sorted(ranks.get_ranks("sp-cfg")) == slots
    columns = [list(range(place, mesh.ranks, mesh.ranks_per_slot)) for place in range(mesh.ranks_per_slot)]
    assert sorted(ranks.get_ranks("dp")) == columns
