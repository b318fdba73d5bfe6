"""Metadata in a media file are taken when they are as genrun wrote them, and refused by name when they are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from genrun.adapters.media import MAX_METADATA, MediaError, read_metadata, write_image, write_video
from genrun.runner.cli import main
from genrun.runner.errors import UsageError
from genrun.runner.job import load
from genrun.runner.job.plan import plan
from genrun.runner.rerun import Original, check_metadata, original_of, repeat

JOB = """model: demo-image
prompts: ["a \\"red\\" ball ${x}"]
seeds: [3]
sampling: {steps: 2, negative_prompt: b, options: {clip_skip: 1}}
solver: {kind: ropa, workers: 2}
cache: {kind: first_block, threshold: 0.1}
"""


@pytest.fixture
def right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what genrun writes into a picture of the job above."""
    monkeypatch.chdir(tmp_path)
    Path("job.yaml").write_text(JOB.replace("${x}", "$${x}"))
    item = plan(load("job.yaml", environ={}))[0]
    return {"genrun": "0.1.0", "item": json.loads(item.to_json()), "made": {"threads": 1}}


def changed(right: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    found = json.loads(json.dumps(right))
    *way, last = place.split(".")
    here = found
    for part in way:
        here = here[part]
    here[last] = value
    return found


def test_a_picture_as_genrun_wrote_it_is_taken(right: dict[str, Any]) -> None:
    metadata = check_metadata(right, Path("a.png"))
    assert json.loads(metadata.item.to_json()) == right["item"]
    assert (metadata.made, metadata.saving) == ({"threads": 1}, ())
    assert check_metadata({"item": right["item"], "saving": ["tiling"]}, Path("a.png")).saving == ("tiling",)


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        ("item.id", "../../home/photo", "its id is '../../home/photo', and wanted are 20 hexadecimal digits"),
        ("item.id", "A" * 20, "and wanted are 20 hexadecimal digits"),
        ("item.id", "0" * 20 + "\n", "and wanted are 20 hexadecimal digits"),
        ("item.id", 3, "wanted"),
        ("item.id", "0" * 20, "its id 00000000000000000000 is not that of what it says"),
        ("item.pair", "/etc", "its pair is '/etc'"),
        ("item.prompt", "another", "is not that of what it says"),
        ("item.prompt", "a\0b", "prompts[0]: has a NUL"),
        ("item.prompt", ["a"], "."),
        ("item.seed", -1, "seeds[0]: wanted at least 0, got -1"),
        ("item.seed", 4, "is not that of what it says"),
        ("item.seed", True, "."),
        ("item.model", "x", "."),
        ("item.model.adapter", "../x", "model.adapter: there is no model '../x'"),
        (
            "item.model.checkpoint",
            "/nowhere/at/all",
            "model.checkpoint: '/nowhere/at/all' is neither a folder nor a hub id",
        ),
        ("item.model.checkpoint", "../..", "model.checkpoint: "),
        ("item.model.fingerprint", "folder:0", "is not that of what it says"),
        ("item.model.dtype", {"vae": "os.system"}, "model.dtype: wanted float32, bfloat16 or float16"),
        ("item.model.device", "cuda:7", "model.device: wanted auto, cpu or cuda"),
        ("item.model.custom_pipeline", "evil", "model.custom_pipeline: unknown option"),
        ("item.sampling", [], "."),
        ("item.sampling.steps", 10**30, "sampling.steps: "),
        ("item.sampling.width", 10**9, "sampling.width: wanted at most 16384"),
        ("item.sampling.scheduler", {"kind": "os"}, "sampling.scheduler.kind: diffusers has no scheduler 'os'"),
        ("item.sampling.options", {"generator": 3}, "sampling.options.generator: is no option"),
        ("item.sampling.options", {"eta": float("nan")}, "."),
        ("item.solver", {"kind": "nope"}, "solver.kind: there is no solver 'nope'"),
        ("item.solver", 3, "."),
        ("item.solver.workers", 10**30, "solver.workers: "),
        ("item.cache", {"kind": "x"}, "cache.kind: there is no cache 'x'"),
        ("item.attention", "x", "attention: wanted native"),
        ("item.axes", {"a": 3}, "."),
        ("item.extra", 1, "not an item"),
        ("item", None, "not an item"),
        ("item", [1], "not an item"),
        ("made", "x", "`made` is no object"),
        ("made.threads", "1; touch up", "threads is '1; touch up', and wanted is a whole number from 1 to"),
        ("made.crf", 10**30, "crf is 1000"),
        ("saving", ["rm"], "`saving` is ['rm']"),
        ("saving", {"tiling": 1}, "`saving` is"),
    ],
)
def test_what_made_nothing_is_refused_by_name(right: dict[str, Any], place: str, value: Any, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_metadata(changed(right, place, value), Path("a.png"))
    assert caught.value.message.startswith("a.png: does not say how it was made: ")
    assert why in caught.value.message


def test_weights_that_have_changed_since_are_told(right: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genrun.runner.job.checkpoint.fingerprint", lambda _folder: "folder:other")
    with pytest.raises(UsageError, match=r"the weights in '.*demo-image' are not those that made it"):
        check_metadata(right, Path("a.png"))


def test_the_command_refuses_it_before_anything_is_written(right: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "mail").mkdir()
    (tmp_path / "home" / "photo.png").write_bytes(b"precious")
    frame = np.zeros((16, 16, 3), np.uint8)
    write_image(tmp_path / "mail" / "gift.png", frame, changed(right, "item.id", "../../home/photo"))
    result = CliRunner().invoke(main, ["--traceback", "rerun", "mail/gift.png", "--out", "mail/again"])
    assert result.exit_code == 2
    assert "mail/gift.png: does not say how it was made: its id is '../../home/photo'" in result.output
    assert (tmp_path / "home" / "photo.png").read_bytes() == b"precious"
    assert not (tmp_path / "mail" / "again").exists()


@pytest.mark.parametrize("name", ["a.png", "a.mp4"])
def test_a_file_that_is_none_or_cut_off_says_nothing(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    frames = np.zeros((4, 16, 16, 3), np.uint8)
    write_image(path, frames[0], {"item": 1}) if name == "a.png" else write_video(path, frames, 8, metadata={"item": 1})
    whole = path.read_bytes()
    assert read_metadata(path)["item"] == 1
    for size in (0, 4, 20, 40, 60):
        path.write_bytes(whole[:size])
        with pytest.raises(UsageError, match="does not say how it was made"):
            original_of(path)
    path.write_bytes(b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n")
    with pytest.raises(MediaError, match="not a picture or clip"):
        read_metadata(path)


def test_metadata_that_nest_without_end_or_grow_when_they_are_unpacked_are_refused(tmp_path: Path) -> None:
    for text in ("[" * 100_000, "3", "{", json.dumps({"x": "y" * MAX_METADATA})):
        info = PngInfo()
        info.add_itxt("genrun", text, zip=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
        with pytest.raises(MediaError):
            read_metadata(tmp_path / "a.png")


def test_an_original_is_never_written_over(right: dict[str, Any], tmp_path: Path) -> None:
    item = check_metadata(right, Path("a.png")).item
    path = tmp_path / f"{item.id}.png"
    path.write_bytes(b"precious")
    with pytest.raises(UsageError, match=r"lies there, and would be written over"):
        repeat(Original(item, path, None, None, {}), tmp_path)
