"""Inputs on tiny stock pipelines of each kind: every solver makes, exactly, what the pipeline's own call makes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from genrun.adapters import input_files, registry
from genrun.adapters.pipeline.pictures import PictureError
from genrun.adapters.sampling.call import SamplingRequest, decode
from genrun.adapters.sampling.generate import sample
from genrun.solvers import registry as solvers
from tests.tiny import build
from tests.tiny.conditioned import KINDS, Kind, plain_pictures, write_files

PROMPT, STEPS, SEED = "a red circle", 4, 3
SOLVERS = {
    "sequential": {},
    "paradigms": {"workers": 3, "tolerance": 0.0},
    "collocation": {"workers": 3, "tolerance": 0.0},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inputs")
    write_files(path)
    return path


@pytest.fixture(autouse=True)
def _ftfy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Diffusers cleans prompts with ftfy, which is not needed for such as these, and may not be installed."""
    from diffusers.pipelines.wan import pipeline_wan_i2v

    monkeypatch.setattr(pipeline_wan_i2v, "ftfy", SimpleNamespace(fix_text=str), raising=False)
    yield


def request(kind: Kind, folder: Path, **changes: Any) -> SamplingRequest:
    sampling = {**kind.sampling, "steps": STEPS}
    sampling["options"] = {**sampling.get("options", {}), **kind.row}
    inputs = {field: [input_files.decode((folder / name).read_bytes())] for field, name in kind.inputs.items()}
    return SamplingRequest(PROMPT, SEED, sampling, inputs={**inputs, **changes})


@pytest.mark.parametrize("name", KINDS)
def test_every_solver_makes_what_the_pipeline_makes_from_its_inputs(name: str, folder: Path) -> None:
    torch.set_num_threads(1)
    kind, adapter = KINDS[name], registry.get("auto")
    pipe = kind.make()
    pipe.set_progress_bar_config(disable=True)
    wanted = plain_pictures(pipe, kind, folder, PROMPT, STEPS, SEED)
    ask = request(kind, folder)
    latents = []
    for solver, options in SOLVERS.items():
        sampled = sample(pipe, adapter, ask, solvers.get(solver)(**options))
        latents.append(sampled.latents)
        assert np.array_equal(decode(pipe, adapter, ask, sampled.latents).frames, wanted), solver
    assert all(torch.equal(latents[0], each) for each in latents[1:])
    field = next(iter(kind.inputs))
    other = request(kind, folder, **{field: [_darker(ask.inputs[field][0])]})
    # The picture is looked at: another one makes another result.
    assert not torch.equal(sample(pipe, adapter, other, solvers.get("sequential")()).latents, latents[0]) or not (
        np.array_equal(decode(pipe, adapter, other, latents[0]).frames, wanted)
    )


def _darker(frames: Any) -> Any:
    return [frame.point(lambda value: value // 3) for frame in frames]


def test_inputs_that_a_loaded_pipeline_does_not_heed_are_refused(folder: Path) -> None:
    pipe, adapter = build("sd2"), registry.get("auto")
    picture = [input_files.decode((folder / "start.png").read_bytes())]
    for field, message in (
        ("image", "StableDiffusionPipeline takes no image; it takes ip_adapter_image"),
        ("control_image", "it has no ControlNet"),
        ("ip_adapter_image", "this StableDiffusionPipeline has no IP-Adapter"),
    ):
        ask = SamplingRequest(PROMPT, SEED, {"steps": 2}, inputs={field: picture})
        with pytest.raises(PictureError, match=message):
            sample(pipe, adapter, ask, solvers.get("sequential")())
