"""Items: named by what changes their pixels, and by nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from genrun.runner.job import checkpoint
from genrun.runner.job.plan import WorkItem
from genrun.runner.strict_json import read_json
from tests.fakes.checkpoints import write_checkpoint
from tests.fakes.jobs import BASE, ids, items_of

JOB = f"{BASE}seeds: [0, 1]\nsolver: {{kind: window, workers: 8}}\n"


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def folder(name: str, **files: bytes) -> Path:
    path = write_checkpoint(Path(name))
    (path / "unet" / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}weights")
    for file, data in files.items():
        (path / file.replace("__", ".")).write_bytes(data)
    return path


def test_items_are_every_prompt_with_every_seed() -> None:
    items = items_of("model: tiny-video\nprompts: [a, b]\nseeds: [0, 1]\n")
    assert [(item.prompt, item.seed) for item in items] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert len(set(ids(items))) == 4
    assert all(len(item.id) == len(item.pair) == 20 and set(item.id) <= set("0123456789abcdef") for item in items)


def test_cells_stand_side_by_side() -> None:
    items = items_of("model: tiny-video\nprompts: [a, b]\nmatrix: {solver: [sequential, window]}\n")
    assert [(item.prompt, item.solver["kind"]) for item in items] == [
        ("a", "sequential"),
        ("a", "window"),
        ("b", "sequential"),
        ("b", "window"),
    ]


@pytest.mark.parametrize(
    "change",
    [
        "name=other",
        "launch=torchrun",
        "launch.threads=3",
        "launch.max_attempts=9",
        "launch={kind: torchrun, processes: 4}",
        "parallel={data: 2, time: 2}",
        "parallel.time=8",
        "output={dir: elsewhere, save_latents: true, format: png, crf: 0}",
        "score=[psnr]",
        "model.device=cpu",
        "solver={kind: window, workers: 8, tolerance: 0.05}",
        "sampling.guidance_scale=5.0",
        "sampling.steps=10",
        "sampling.options={}",
    ],
)
def test_what_does_not_change_pixels_does_not_change_ids(change: str) -> None:
    assert ids(items_of(JOB, change)) == ids(items_of(JOB))


@pytest.mark.parametrize(
    "change",
    [
        "model=tiny-image",
        "model.checkpoint=org/other",
        "model.revision=abc",
        "model.dtype=bfloat16",
        "prompts=[a blue kite]",
        "prompts=['a red kite ']",
        "seeds=[2, 3]",
        "sampling.steps=11",
        "sampling.guidance_scale=5.5",
        "sampling.height=64",
        "sampling.num_frames=17",
        "sampling.negative_prompt=ugly",
        "sampling.scheduler=DDIMScheduler",
        "sampling.scheduler={kind: DDIMScheduler, clip_sample: false}",
        "sampling.options.eta=1",
        "solver=sequential",
        "solver.workers=4",
        "solver.tolerance=0",
        "solver.mode=skip",
        "solver.window=3",
    ],
)
def test_what_changes_pixels_changes_every_id(change: str) -> None:
    assert not set(ids(items_of(JOB, change))) & set(ids(items_of(JOB)))


def test_a_pair_differs_in_its_solver_only() -> None:
    items = items_of(f"{BASE}matrix: {{solver: [sequential, window], sampling.steps: [2, 3]}}\n")
    pairs = {item.pair: [other.solver["kind"] for other in items if other.pair == item.pair] for item in items}
    assert list(pairs.values()) == [["sequential", "window"]] * 2
    assert [item.is_reference for item in items] == [True, True, False, False] or sum(
        i.is_reference for i in items
    ) == 2


def test_ids_stay_the_same_from_release_to_release() -> None:
    # A changed id makes users generate everything again: raise plan.IDENTITY_VERSION and say so in the changelog.
    assert ids(items_of(JOB)) == GOLDEN


GOLDEN = ["af8867410267a9dfc733", "e520547fc06e2bb80766"]


def test_an_item_reads_back_from_one_line_of_ascii() -> None:
    item = items_of("model: tiny-video\nprompts: ['two\\u2028lines \N{PILE OF POO}']\nsolver: window\n")[0]
    line = item.to_json()
    assert line.isascii()
    assert len(line.splitlines()) == 1
    assert WorkItem.from_dict(read_json(line)) == item


@pytest.mark.parametrize("line", ["", "[]", "{}", json.dumps({"id": "x"})])
def test_a_line_that_is_no_item_is_refused(line: str) -> None:
    with pytest.raises(ValueError):
        WorkItem.from_dict(read_json(line))


def test_the_resolved_parts_of_an_item() -> None:
    item = items_of("model: tiny-video\nprompts: [a]\nsampling: {negative_prompt: ugly, width: 64}\nsolver: window\n")[
        0
    ]
    assert item.negative_prompt == "ugly"
    assert item.sampling == {
        "steps": 10,
        "guidance_scale": 5.0,
        "width": 64,
        "num_frames": 9,
        "options": {"eta": 0.0},
    }
    assert item.solver == {"kind": "window", "workers": 1, "tolerance": 0.05, "mode": "exact", "window": None}
    assert item.model == {
        "adapter": "tiny-video",
        "checkpoint": "org/tiny-video",
        "fingerprint": "hub:org/tiny-video@main",
        "revision": None,
        "dtype": "float32",
        "device": "auto",
    }
    assert item.axes == {}


def test_a_folder_is_known_by_its_content_not_by_its_name() -> None:
    one, two = folder("one"), folder("two", README__md=b"notes")
    (two / ".cache").mkdir()
    (two / ".cache" / "x.json").write_text("{}")
    assert checkpoint.fingerprint(one) == checkpoint.fingerprint(two)
    jobs = [f"model: {name}\nprompts: [a]\n" for name in ("one", "two")]
    assert ids(items_of(jobs[0])) == ids(items_of(jobs[1]))


@pytest.mark.parametrize(
    ("file", "data"),
    [
        ("model_index.json", b"{ }"),
        ("merges.txt", b""),
        ("spiece.model", b"x"),
        ("unet/model.safetensors", b"\x02\0\0\0\0\0\0\0{}weighty"),
        ("unet/other.safetensors", b""),
    ],
)
def test_a_changed_file_of_a_checkpoint_changes_its_fingerprint(file: str, data: bytes) -> None:
    path = folder("weights")
    before = checkpoint.fingerprint(path)
    (path / file).write_bytes(data)
    assert checkpoint.fingerprint(path) != before


def test_a_component_that_is_a_link_to_a_folder_elsewhere_counts() -> None:
    path = folder("weights")
    before = checkpoint.fingerprint(path)
    (path / "unet").rename("shared")
    (path / "unet").symlink_to("../shared")
    assert checkpoint.fingerprint(path) == before
    Path("shared/config.json").write_text("{}")
    assert checkpoint.fingerprint(path) != before


def test_a_large_file_is_sampled_from_its_header_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "WHOLE_UP_TO_BYTES", 100)
    monkeypatch.setattr(checkpoint, "CHUNK_BYTES", 16)
    path = folder("weights")
    large = path / "unet" / "model.safetensors"
    data = bytearray(b"\x80\0\0\0\0\0\0\0" + b"h" * 128 + b"w" * 10_000)
    large.write_bytes(data)
    before = checkpoint.fingerprint(path)
    for position in (0, 100, 135, len(data) - 1):
        changed = bytearray(data)
        changed[position] ^= 1
        large.write_bytes(changed)
        assert checkpoint.fingerprint(path) != before
    large.write_bytes(data)
    assert checkpoint.fingerprint(path) == before


def test_a_hub_checkpoint_is_known_by_its_id_and_revision() -> None:
    found = checkpoint.locate("org/name", Path())
    assert (found.fingerprint(None), found.fingerprint("abc")) == ("hub:org/name@main", "hub:org/name@abc")


def test_too_many_items_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from genrun.runner.job import plan
    from tests.fakes.jobs import problems_of

    monkeypatch.setattr(plan, "MAX_ITEMS", 1)
    assert problems_of(JOB) == ["job.yaml: 2 items, more than 1. Use `prompts.limit`, or split the job."]
