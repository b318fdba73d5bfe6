"""Every adapter, and `auto` on the pipelines that have none, through `genrun submit` to media files, on tiny checkpoints.

Each with its kind of guidance, in float32 and bfloat16; every solver at tolerance 0 gives the sequential one's bits.
(The unit tests claim the same of the pipelines alone.) One shipped job is submitted by the program and made by programs; the
others are submitted in Python and made by workers that are forked.
"""

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from genrun import api
from genrun.adapters.media import read_frames
from genrun.runner.store.folder import RunFolder
from genrun.solvers import registry
from tests.preloaded import fork_workers
from tests.tiny import LLAVA, picture
from tests.tiny.checkpoints import save

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
MAIN = "from genrun.runner.cli import main; main(prog_name='genrun')"
DTYPES = ["float32", "bfloat16"]
PARALLEL = [name for name in registry.names() if name != "sequential"]
SOLVERS = ["sequential", *({"kind": name, "workers": 4, "tolerance": 0.0} for name in PARALLEL)]
SMALL = {"steps": 3, "height": 64, "width": 64}
CLIP = {**SMALL, "num_frames": 9}
TRUE_GUIDANCE = {"negative_prompt": "gray", "options": {"true_cfg_scale": 3.0}}

SHIPPED = [
    ("hunyuan.yaml", "hunyuanvideo", {**CLIP, **TRUE_GUIDANCE}),
    ("wan.yaml", "wan21", {**CLIP, "negative_prompt": "gray"}),
    ("cogvideox.yaml", "cogvideox_dpm", {**CLIP, "options": {"use_dynamic_cfg": True}}),
    ("sd35.yaml", "sd3", {**SMALL, "negative_prompt": "gray"}),
    ("flux.yaml", "flux", SMALL),
]
BY_PROGRAMS = "sd35.yaml"
SHORT = {"max_sequence_length": 16}
BLOCKS = {"options": {**SHORT, "spatio_temporal_guidance_blocks": [1]}}
OWN_SIZE = {"options": {**SHORT, "use_resolution_binning": False}}
OTHERS = [
    ("clips", ("ltx", "hunyuanvideo15", "wan22_5b"), None, {**CLIP, "negative_prompt": "gray"}),
    ("experts", ("wan22",), None, {**CLIP, "guidance_scale": 4.0, "options": {"guidance_scale_2": 3.0}}),
    ("auto-experts", ("wan22",), "auto", {**CLIP, "guidance_scale": 4.0, "options": {"guidance_scale_2": 3.0}}),
    ("images", ("flux2", "flux2_klein"), None, {**SMALL, "guidance_scale": 4.0}),
    ("images-negative", ("z_image", "sdxl"), None, {**SMALL, "negative_prompt": "gray"}),
    ("true", ("qwenimage",), None, {**SMALL, "options": {"true_cfg_scale": 3.0}}),
    ("sana", ("sana",), "sana", {**SMALL, **OWN_SIZE, "negative_prompt": "gray"}),
    ("mochi", ("mochi",), "mochi", {**SMALL, "num_frames": 7, "options": SHORT}),
    ("sound", ("ltx2",), None, {**CLIP, **BLOCKS}),
    ("chunks", ("helios",), None, {**CLIP, "num_frames": 65, "options": SHORT}),
    ("sd2", ("sd2",), "sd2", {**SMALL, "negative_prompt": "gray"}),
    ("church", ("ddpm",), "ddpm-church", {"steps": 3}),
]
"""Name, families, adapter (None: chosen by the folder), sampling."""
PICTURES = [
    ("wan", ("wan21_i2v", "wan22_i2v", "wan22_5b_i2v"), {**CLIP, "options": SHORT}),
    ("hunyuan", ("hunyuanvideo_i2v",), {**CLIP, "options": {"max_sequence_length": 64, "prompt_template": LLAVA}}),
    ("hunyuan15", ("hunyuanvideo15_i2v",), {"steps": 3, "num_frames": 9}),
    ("cogvideox", ("cogvideox15_i2v",), CLIP),
    ("ltx2", ("ltx2_i2v",), {**CLIP, **BLOCKS}),
    # Or it scales a picture to a million pixels.
    ("kontext", ("flux_kontext",), {**SMALL, "options": {**SHORT, "_auto_resize": False}}),
]
"""Name, families, sampling."""


def submit(folder: Path, job: dict[str, Any]) -> RunFolder:
    (folder / "job.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", MAIN, "submit", "job.yaml", "--json"]
    ran = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=600, check=False)
    assert ran.returncode == 0, ran.stderr
    return RunFolder.open(Path(json.loads(ran.stdout)["run"]))


def submit_here(folder: Path, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    (folder / "job.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    monkeypatch.chdir(folder)
    fork_workers(monkeypatch)
    return RunFolder.open(api.submit("job.yaml").path)


def check(folder: RunFolder, models: int, size: tuple[int, ...]) -> None:
    """Every item is a picture of its size, and its pair's other item has the same bits."""
    items, records = folder.items(), folder.records()
    assert len(items) == len(records) == models * len(DTYPES) * len(SOLVERS)
    bits = defaultdict(set)
    for item in items:
        record = records[item.id]
        assert (record.status, record.error) == ("done", None)
        bits[item.pair].add((record.latents_sha256, record.sha256 and pixels(folder, str(record.media), size)))
    assert len(bits) == models * len(DTYPES)
    assert all(len(each) == 1 for each in bits.values())


def pixels(folder: RunFolder, media: str, size: tuple[int, ...]) -> bytes:
    frames = read_frames(folder.path / media)
    assert media.endswith(".mp4" if size[0] > 1 else ".png")
    assert frames.shape == (*size, 3)
    return frames.tobytes()


@pytest.mark.parametrize(("name", "family", "sampling"), SHIPPED)
def test_a_shipped_job_makes_media_on_a_tiny_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, family: str, sampling: dict[str, Any]
) -> None:
    job = {
        "extends": str(ROOT / "jobs" / name),
        "model": {"checkpoint": str(save(family, tmp_path / "weights"))},
        "prompts": {"limit": 1},
        "seeds": [0],
        "sampling": sampling,
        "parallel": {"time": 1},
        "launch": {"kind": "inline"},
        "output": {"save_latents": True},
        "matrix": {"model.dtype": DTYPES, "solver": SOLVERS},
    }
    folder = submit(tmp_path, job) if name == BY_PROGRAMS else submit_here(tmp_path, job, monkeypatch)
    check(folder, 1, (sampling.get("num_frames", 1), 64, 64))


@pytest.mark.parametrize(("name", "families", "adapter", "sampling"), OTHERS, ids=[each[0] for each in OTHERS])
def test_other_pipelines_make_media_by_folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    families: tuple[str, ...],
    adapter: str | None,
    sampling: dict[str, Any],
) -> None:
    named = {} if adapter is None else {"adapter": adapter}
    models = [
        {**named, "checkpoint": str(save(family, tmp_path / "weights")), "dtype": dtype}
        for family in families
        for dtype in DTYPES
    ]
    job = {
        "name": name,
        "model": models[0],
        "prompts": ["a red circle moving left"],
        "sampling": sampling,
        "output": {"save_latents": True},
        "matrix": {"model": models, "solver": SOLVERS},
    }
    side = sampling.get("height", 8)
    folder = submit_here(tmp_path, job, monkeypatch)
    check(folder, len(families), (sampling.get("num_frames", 1), side, side))
    heard = {json.dumps(record.sound) for record in folder.records().values()}
    assert heard == {json.dumps({"rate": 24000, "channels": 2} if name == "sound" else {})}


@pytest.mark.parametrize(
    ("name", "families", "sampling"), PICTURES, ids=[f"from-picture-{each[0]}" for each in PICTURES]
)
def test_pipelines_that_start_from_a_picture_make_media(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, families: tuple[str, ...], sampling: dict[str, Any]
) -> None:
    picture().save(tmp_path / "start.png")
    models = [
        {"checkpoint": str(save(family, tmp_path / "weights")), "dtype": dtype}
        for family in families
        for dtype in DTYPES
    ]
    job = {
        "name": name,
        "model": models[0],
        "prompts": [{"prompt": "a red circle moving left", "image": "start.png"}],
        "sampling": sampling,
        "output": {"save_latents": True},
        "matrix": {"model": models, "solver": SOLVERS},
    }
    folder = submit_here(tmp_path, job, monkeypatch)
    (size,) = {read_frames(folder.path / str(each.media)).shape[1:3] for each in folder.records().values()}
    check(folder, len(families), (sampling.get("num_frames", 1), *size))
    assert name == "hunyuan15" or size == (64, 64)
