"""Planted degradations on the shipped video model: each is caught by the gates, and nothing else is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from genrun.adapters.media import read_frames, write_video
from genrun.runner.cli import main
from genrun.runner.job.plan import WorkItem
from genrun.runner.store.files import sha256_of
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.records import Record, format_record
from tests.preloaded import fork_workers

pytestmark = pytest.mark.e2e

SOUND, LOOSE = "ropa K=4", "ropa K=4 tolerance=0.6"
ROPA = {"kind": "ropa", "workers": 4}
GATES = {
    "latent_rmse": {"max": 0.1},
    "psnr": {"max_drop": "5%"},
    "checker.direction": {"max_drop": 0.1},
    "drift.latent_rmse": {"max": 0.05},
}
JOB: dict[str, Any] = {
    "name": "planted",
    "model": "demo-video",
    "prompts": {"file": "prompts/demo.txt", "limit": 4},
    "seeds": [0, 1],
    "sampling": {"steps": 10},
    "matrix": {"solver": ["sequential", ROPA, {**ROPA, "tolerance": 0.6}]},
    "score": ["latent_rmse", "psnr", "checker"],
    "gates": GATES,
}


@dataclass(frozen=True)
class Lab:
    """A folder with runs, in which the command line is called."""

    folder: Path

    def genrun(self, *args: str, codes: tuple[int, ...] = (0,)) -> Any:
        ran = CliRunner().invoke(main, [*args, "--json"], prog_name="genrun")
        assert ran.exit_code in codes, ran.output
        return json.loads(ran.stdout.splitlines()[-1])

    def submit(self, name: str, job: dict[str, Any]) -> RunFolder:
        (self.folder / f"{name}.yaml").write_text(yaml.safe_dump({**job, "name": name}, sort_keys=False))
        return RunFolder.open(Path(self.genrun("submit", f"{name}.yaml")["run"]))

    def failed(self, *args: str) -> set[tuple[str, str, str]]:
        """(cell, metric, rule) of the gates that fail."""
        found = self.genrun("compare", *args, codes=(0, 1))
        gates = [(cell["label"], gate) for cell in found["cells"] for gate in cell["gates"]]
        assert {gate["state"] for _, gate in gates} <= {"passed", "failed"}
        return {(label, gate["metric"], gate["rule"]) for label, gate in gates if gate["state"] == "failed"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("planted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        fork_workers(patch)
        yield Lab(folder)


@pytest.fixture(scope="module")
def sound(lab: Lab) -> RunFolder:
    run = lab.submit("planted", JOB)
    lab.genrun("score", str(run.path))
    return run


def planted(
    lab: Lab, sound: RunFolder, name: str, change: Callable[[RunFolder, WorkItem, Record], Record]
) -> RunFolder:
    """A copy of the run in which every item of the sound solver is changed, and everything is scored again."""
    run = RunFolder(lab.folder / name)
    shutil.copytree(sound.path, run.path)
    for item in run.items():
        record = run.record(item.id)
        assert record is not None
        if item.axes["solver"] == SOUND:
            run.record_path(item.id).write_bytes(format_record(change(run, item, record)))
    lab.genrun("score", str(run.path))
    return run


def test_a_solver_at_a_loose_tolerance_is_caught_and_a_sound_one_is_not(lab: Lab, sound: RunFolder) -> None:
    failed = lab.failed(str(sound.path), "--by", "solver")
    assert (LOOSE, "latent_rmse", "max") in failed
    assert {label for label, _, _ in failed} == {LOOSE}


def test_an_unchanged_run_raises_no_alarm(lab: Lab, sound: RunFolder) -> None:
    again = planted(lab, sound, "again", lambda run, item, record: record)
    assert {label for label, _, _ in lab.failed(str(sound.path), str(again.path))} == {LOOSE}


def test_a_wrong_guidance_scale_is_caught(lab: Lab, sound: RunFolder) -> None:
    job = {**JOB, "sampling": {"steps": 10, "guidance_scale": 1.0}, "matrix": {"solver": [ROPA]}, "gates": {}}
    wrong = lab.submit("wrong", job)
    others = {(item.prompt, item.seed): wrong.record(item.id) for item in wrong.items()}

    def transplant(run: RunFolder, item: WorkItem, record: Record) -> Record:
        other = others[item.prompt, item.seed]
        assert other is not None and other.media is not None and other.latents is not None
        shutil.copy(wrong.path / other.media, run.media_path(item, ".mp4"))
        shutil.copy(wrong.path / other.latents, run.latents_path(item.id))
        return replace(record, sha256=other.sha256, latents_sha256=other.latents_sha256)

    run = planted(lab, sound, "guidance", transplant)
    failed = lab.failed(str(sound.path), str(run.path))
    assert {(SOUND, "latent_rmse", "max"), (SOUND, "drift.latent_rmse", "max")} <= failed
    assert {label for label, _, _ in failed} == {SOUND, LOOSE}


def test_swapped_frames_are_caught(lab: Lab, sound: RunFolder) -> None:
    def swap(run: RunFolder, item: WorkItem, record: Record) -> Record:
        media = run.media_path(item, ".mp4")
        frames = read_frames(media)[::-1].copy()
        media.unlink()
        write_video(media, frames, fps=8, metadata={"prompt": item.prompt})
        return replace(record, sha256=sha256_of(media))

    run = planted(lab, sound, "swapped", swap)
    failed = lab.failed(str(sound.path), str(run.path))
    assert {(SOUND, "psnr", "max_drop"), (SOUND, "checker.direction", "max_drop")} <= failed
    assert (SOUND, "latent_rmse", "max") not in failed
    assert {label for label, _, _ in failed} == {SOUND, LOOSE}
