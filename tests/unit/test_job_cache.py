"""The sections `cache` and `attention` of a job: checked, part of an item's id, an axis of the matrix."""

from __future__ import annotations

from pathlib import Path

import pytest

from genrun.runner.job import load, restore
from genrun.runner.job.errors import JobFileError
from genrun.runner.job.plan import WorkItem, plan

JOB = "model: demo-video\nprompts: [a red circle moves left over a blue background]\n"


def items(tmp_path: Path, more: str) -> list[WorkItem]:
    path = tmp_path / "job.yaml"
    path.write_text(JOB + more)
    return plan(load(path))


def problems(tmp_path: Path, more: str) -> str:
    with pytest.raises(JobFileError) as raised:
        items(tmp_path, more)
    return str(raised.value)


def test_a_cache_is_part_of_the_id_and_not_of_the_pair(tmp_path: Path) -> None:
    (plain,) = items(tmp_path, "solver: ropa\n")
    (none,) = items(tmp_path, "solver: ropa\ncache: none\nattention: native\n")
    (cached,) = items(tmp_path, "solver: ropa\ncache: first_block\n")
    (other,) = items(tmp_path, "solver: ropa\ncache: {kind: first_block, threshold: 0.2}\n")
    assert plain.id == none.id
    assert len({plain.id, cached.id, other.id}) == 3
    assert len({plain.pair, cached.pair, other.pair}) == 1
    assert cached.cache == {"kind": "first_block", "threshold": 0.05}
    assert WorkItem.from_dict(cached.to_dict()) == cached


def test_a_list_of_caches_is_an_axis_and_the_reference_has_none(tmp_path: Path) -> None:
    found = items(tmp_path, "matrix: {solver: [sequential, ropa], cache: [none, first_block, toca]}\n")
    assert [item.axes["cache"] for item in found] == ["none", "first_block", "toca"] * 2
    assert [item.is_reference for item in found] == [True, False, False, False, False, False]
    kinds = items(tmp_path, "matrix: {cache.kind: [first_block, toca]}\n")
    assert [item.cache["kind"] for item in kinds] == ["first_block", "toca"]


def test_items_of_earlier_versions_are_still_read(tmp_path: Path) -> None:
    (item,) = items(tmp_path, "")
    data = item.to_dict()
    del data["cache"], data["attention"]
    assert WorkItem.from_dict(data) == item


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            "cache: frist_block\n",
            "job.yaml:3:8: cache.kind: there is no cache 'frist_block'. Did you mean 'first_block'?",
        ),
        ("cache: {kind: toca, intervall: 2}\n", "cache.intervall: unknown option. Did you mean 'interval'?"),
        ("cache: {kind: toca, interval: 0}\n", "cache.interval: must be at least 1, got 0."),
        ("cache: taylorseer\nsolver: ropa\n", "taylorseer needs evaluations in the order of steps"),
        (
            "cache: {kind: mag, ratios: [1.0, 0.9]}\nsolver: {kind: ropa, workers: 8}\n",
            "Use solver sequential, or workers: 1",
        ),
        ("cache: mag\n", "measure them with `genrun caches mag --calibrate MODEL`"),
        ("attention: flash\n", "pip install flash-attn"),
        ("attention: sparge\n", "pip install git+https://github.com/thu-ml/SpargeAttn.git"),
        ("attention: flahs\n", "attention: wanted native, flash, sage or sparge, got 'flahs'."),
        ("matrix: {cache.treshold: [0.1]}\n", "no such option. Did you mean 'cache.threshold'?"),
    ],
)
def test_what_cannot_be_is_refused_before_a_model_loads(tmp_path: Path, more: str, message: str) -> None:
    assert message in problems(tmp_path, more)


def test_a_model_without_transformer_is_refused_by_its_pipeline(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("model: sd2\nprompts: [x]\ncache: first_block\n")
    with pytest.raises(JobFileError, match="has a UNet: leave cache out"):
        load(path)


@pytest.mark.parametrize(
    ("model", "more", "message"),
    [
        ("sd3.5", "cache: faster\nparallel: {cfg: 2}\n", "faster needs both halves of the batch on one rank"),
        (
            "cogvideox1.5",
            "cache: faster\nparallel: {cfg: 2}\n",
            "Use cfg: 1 and parallel.time: 2, or cache first_block",
        ),
        ("wan2.1", "cache: dbcache\nparallel: {ulysses: 2}\n", "dbcache needs all tokens of an evaluation on one rank"),
        ("wan2.1", "cache: dbcache\nparallel: {ring: 2}\n", "Use parallel.time or data"),
        (
            "wan2.1",
            "cache: pab\nparallel: {ulysses: 2, backend: xfuser}\n",
            "use backend: diffusers, or leave cache out",
        ),
        ("sd3.5", "sampling: {guidance_scale: 1.0}\nparallel: {cfg: 2}\n", "guidance_scale: 1 leaves one branch"),
        ("flux", "parallel: {cfg: 2}\n", "FluxPipeline has a second branch only with a negative prompt"),
        ("flux", "sampling: {options: {true_cfg_scale: 4.0}}\nparallel: {cfg: 2}\n", "for every prompt and options"),
    ],
)
def test_what_does_not_stack_is_refused_by_name(tmp_path: Path, model: str, more: str, message: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(f"model: {model}\nprompts: [a red circle]\nsolver: sequential\n{more}")
    with pytest.raises(JobFileError) as raised:
        load(path)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("sd3.5", "cache: first_block\nparallel: {cfg: 2, ulysses: 2}\n"),
        ("cogvideox1.5", "cache: toca\nparallel: {cfg: 2, ulysses: 2}\n"),
        ("wan2.1", "cache: faster\nparallel: {cfg: 2, ulysses: 2}\n"),
        ("wan2.1", "cache: dbcache\nparallel: {cfg: 2, time: 1}\n"),
        (
            "flux",
            "sampling: {negative_prompt: gray, options: {true_cfg_scale: 4.0}}\ncache: pab\nparallel: {cfg: 2, ring: 2}\n",
        ),
    ],
)
def test_what_stacks_is_taken(tmp_path: Path, model: str, more: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(f"model: {model}\nprompts: [a red circle]\nsolver: sequential\n{more}")
    assert load(path).cells


def test_a_cache_that_does_not_say_what_it_needs_is_refused_where_an_evaluation_is_shared() -> None:
    from genrun.adapters.caches.contract import split_refusal

    message = split_refusal("mine", object(), {"tokens"})  # pyright: ignore[reportArgumentType]
    assert "it does not say how it decides" in (message or "")
    assert split_refusal("mine", object(), ()) is None  # pyright: ignore[reportArgumentType]


def test_the_page_on_meshes_has_the_tables_of_the_rules() -> None:
    from docs.tools.meshes import fitted

    page = Path(__file__).parents[2] / "docs" / "meshes.md"
    text = page.read_text(encoding="utf-8")
    assert text == fitted(text), "stale: run `make docs`"


def test_a_run_is_not_gone_on_with_on_a_mesh_that_its_cache_does_not_go_with(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("model: wan2.1\nprompts: [a red circle]\nmatrix: {cache: [none, dbcache]}\n")
    document = load(path).document
    assert restore(document, sets=["parallel.time=2"]).parallel.time == 2
    with pytest.raises(JobFileError, match="dbcache needs all tokens of an evaluation on one rank"):
        restore(document, sets=["parallel.ulysses=2"])
