"""A real, tiny diffusers pipeline from job to verified run: the same bytes however many ranks make them.

The first runs, on one rank and on two that share the items, are made by programs as a user starts them; the others by the
same commands here, whose workers are forked.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from genrun.runner.cli import main
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.records import format_record
from tests.preloaded import fork_workers
from tests.tiny.checkpoints import save

pytestmark = pytest.mark.e2e

MAIN = "from genrun.runner.cli import main; main(prog_name='genrun')"
ROOT = Path(__file__).parents[2]


def program(folder: Path, *args: str) -> str:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", MAIN, *args]
    ran = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def here(folder: Path, *args: str) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        fork_workers(patch)
        ran = CliRunner().invoke(main, args, prog_name="genrun")
    assert ran.exit_code == 0, ran.output
    return ran.stdout


def submit(folder: Path, runs: str, *sets: str, genrun: Callable[..., str] = program) -> RunFolder:
    options = [word for text in (f"output.dir={runs}", *sets) for word in ("--set", text)]
    counts = json.loads(genrun(folder, "submit", "job.yaml", "--json", *options))
    assert (counts["items"], counts["done"], counts["failed"]) == (4, 4, 0)
    return RunFolder.open(Path(counts["run"]))


def hashes(folder: RunFolder) -> dict[str, tuple[Any, Any]]:
    return {item_id: (record.sha256, record.latents_sha256) for item_id, record in folder.records().items()}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    save("sd3", folder)
    job = {
        "name": "tiny",
        "model": {"checkpoint": "sd3", "dtype": "float32"},
        "prompts": ["a cat", 'a "dog"\n<script> 🐦'],
        "sampling": {"steps": 4, "height": 32, "width": 32, "guidance_scale": 4.0},
        "matrix": {"solver": ["sequential", {"kind": "ropa", "workers": 4}]},
        "output": {"save_latents": True},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job, allow_unicode=True), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def alone(bench: Path) -> RunFolder:
    return submit(bench, "alone")


@pytest.mark.parametrize(("axis", "genrun"), [("data", program), ("time", here)], ids=["data", "time"])
def test_two_ranks_make_the_same_bytes_as_one(
    bench: Path, alone: RunFolder, axis: str, genrun: Callable[..., str]
) -> None:
    together = submit(bench, axis, "launch.kind=torchrun", f"parallel.{axis}=2", genrun=genrun)
    assert hashes(together) == hashes(alone)
    ranks = {path.name for path in together.logs.glob("*/rank-*.log")}
    assert ranks == {"rank-0.log", "rank-1.log"}


def test_groups_that_run_out_of_items_join_the_last_one_and_make_the_same_bytes(bench: Path, alone: RunFolder) -> None:
    """Four items on three ranks: three apart, those of one point a round first; the last on all ranks together."""
    sets = ("launch.kind=torchrun", "launch.processes=3", "parallel.elastic=true")
    elastic = submit(bench, "elastic", *sets, genrun=here)
    assert hashes(elastic) == hashes(alone)
    workers = {item.id: item.solver.get("workers", 1) for item in elastic.items()}
    made = sorted((workers[item_id], record.mesh["time"]) for item_id, record in elastic.records().items())
    assert made == [(1, 1), (1, 1), (4, 1), (4, 3)]


def test_a_picture_is_made_again_from_its_own_metadata(bench: Path, alone: RunFolder) -> None:
    item = alone.items()[1]
    verdict = json.loads(here(bench, "rerun", str(alone.media_path(item, ".png")), "--json"))
    assert verdict["identical"]
    assert (verdict["item"], verdict["frames_max"], verdict["latents_rms"]) == (item.id, 0, 0.0)


def test_latents_whose_decoding_failed_are_decoded_later_to_the_same_bytes(bench: Path, alone: RunFolder) -> None:
    before = hashes(alone)
    item = alone.items()[0]
    record = alone.record(item.id)
    assert record is not None
    failed = replace(record, status="failed", media=None, sha256=None, error={"kind": "decode"})
    alone.record_path(item.id).write_bytes(format_record(failed))
    alone.media_path(item, ".png").unlink()
    here(bench, "decode", str(alone.path))
    assert hashes(alone) == before
    here(bench, "verify", str(alone.path))
