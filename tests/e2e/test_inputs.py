"""Rows with pictures, from a .csv through submit to files, scores and report: what the plain pipeline makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from genrun.adapters.media import read_frames, write_video
from genrun.runner.cli import main
from genrun.runner.store.folder import RunFolder
from tests.preloaded import fork_workers
from tests.tiny.conditioned import KINDS, plain_pictures, write_files

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
DEMO_CLIP = ROOT / "adapters" / "demo" / "weights" / "demo-clip"
SOLVERS = ["sequential", {"kind": "paradigms", "workers": 3, "tolerance": 0.0}]


def genrun(folder: Path, *arguments: str, code: int = 0) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        fork_workers(patch)
        ran = CliRunner().invoke(main, [*arguments, "--json"], prog_name="genrun")
    assert ran.exit_code == code, ran.output
    return ran.stderr if code else json.loads(ran.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_files(folder)
    KINDS["image-to-image"].make().save_pretrained(folder / "img2img")
    KINDS["video-to-video"].make().save_pretrained(folder / "v2v")
    (folder / "rows.csv").write_text(
        "prompt,image,strength,seed,name\na red circle,start.png,0.6,3,<b>first</b>\na,end.png,0.6,,\n"
    )
    clip = {"prompt": "a red circle", "video": "clip.mp4", "strength": 0.7, "seed": 3}
    (folder / "rows.jsonl").write_text(json.dumps(clip) + "\n")
    for name, checkpoint, rows in (("img2img", "img2img", "rows.csv"), ("v2v", "v2v", "rows.jsonl")):
        sampling = {"steps": 4, **KINDS["image-to-image" if name == "img2img" else "video-to-video"].sampling}
        job = {
            "model": {"checkpoint": checkpoint, "dtype": "float32"},
            "prompts": rows,
            "sampling": sampling,
            "matrix": {"solver": SOLVERS},
            "output": {"save_latents": True},
            "score": [{"kind": "image_similarity", "checkpoint": str(DEMO_CLIP)}],
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(job))
    return folder


@pytest.fixture(scope="module")
def pictures(folder: Path) -> RunFolder:
    done = genrun(folder, "submit", "img2img.yaml")
    assert (done["done"], done["failed"]) == (4, 0)
    return RunFolder.open(Path(done["run"]))


def test_rows_become_what_the_plain_pipeline_makes_of_them_with_every_solver(folder: Path, pictures: RunFolder) -> None:
    kind = KINDS["image-to-image"]
    wanted = plain_pictures(kind.make(), kind, folder, "a red circle", 4, 3)
    for item in pictures.items()[:2]:
        assert np.array_equal(read_frames(pictures.media_path(item, ".png")), wanted)
    hashes = [record.latents_sha256 for _, record in sorted(pictures.records().items())]
    assert len(set(hashes)) == 2


def test_ranks_make_the_same_bytes(folder: Path, pictures: RunFolder) -> None:
    sets = ("launch.kind=torchrun", "parallel.time=2", "output.dir=ranks")
    done = genrun(folder, "submit", "img2img.yaml", *(word for each in sets for word in ("--set", each)))
    together = RunFolder.open(Path(done["run"]))
    alone = {item_id: record.latents_sha256 for item_id, record in pictures.records().items()}
    assert {item_id: record.latents_sha256 for item_id, record in together.records().items()} == alone


def test_a_picture_is_made_again_without_the_file_that_it_was_made_from(folder: Path, pictures: RunFolder) -> None:
    item = pictures.items()[0]
    (folder / "start.png").rename(folder / "moved.png")
    try:
        again = genrun(folder, "rerun", str(pictures.media_path(item, ".png")))
        assert (again["identical"], again["latents_rms"]) == (True, 0.0)
    finally:
        (folder / "moved.png").rename(folder / "start.png")
    elsewhere = folder / "elsewhere.png"
    elsewhere.write_bytes(pictures.media_path(item, ".png").read_bytes())
    said = genrun(folder, "rerun", str(elsewhere), code=2)
    assert "it was made from image 'start.png', which its run keeps, and it does not lie in its run" in said


def test_results_are_compared_with_their_inputs_and_shown_beside_them(folder: Path, pictures: RunFolder) -> None:
    genrun(folder, "score", str(pictures.path))
    scores = [json.loads(line) for line in pictures.scores_path("image_similarity").read_text().splitlines()]
    values = [score["value"] for score in scores if score.get("item_id")]
    assert len(values) == 4
    assert all(-1 <= value <= 1 for value in values)
    genrun(folder, "report", str(pictures.path), "--standalone")
    page = (pictures.report_dir / "index.html").read_text()
    (name,) = {file["sha256"] for file in pictures.items()[0].inputs["image"]}
    assert f"inputs/{name[:2]}/{name}.png" in page
    assert (pictures.report_dir / "inputs" / name[:2] / f"{name}.png").is_file()
    assert "<b>first" not in page


def test_a_clip_becomes_another(folder: Path) -> None:
    done = genrun(folder, "submit", "v2v.yaml")
    assert (done["done"], done["failed"]) == (2, 0)
    run = RunFolder.open(Path(done["run"]))
    assert len({record.latents_sha256 for record in run.records().values()}) == 1
    kind = KINDS["video-to-video"]
    wanted = plain_pictures(kind.make(), kind, folder, "a red circle", 4, 3)
    media = run.media_path(run.items()[0], ".mp4")
    # H.264 is lossy: what is wanted goes the same way.
    write_video(folder / "wanted.mp4", wanted, 8)
    assert np.array_equal(read_frames(media), read_frames(folder / "wanted.mp4"))
