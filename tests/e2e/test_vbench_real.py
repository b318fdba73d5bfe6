"""The real vbench, where GENRUN_VBENCH_PYTHON names an environment that has it; elsewhere there are no tests here."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genrun.adapters.media import write_video
from genrun.adapters.scorers.contract import Sample
from genrun.adapters.scorers.temporal_flicker import METRIC as FLICKER
from genrun.adapters.scorers.vbench.dimensions import DIMENSIONS
from genrun.adapters.scorers.vbench.metric import VBenchMetric, VBenchOptions
from genrun.adapters.scorers.vbench.process import Bridge
from genrun.adapters.scorers.vbench.video_folder import read_suite
from genrun.runner.score.scoring import score_run
from tests.sample_run import CAPTIONS, make_run

PYTHON = os.environ.get("GENRUN_VBENCH_PYTHON")
pytestmark = pytest.mark.e2e

HUBCONF = """
import torch
dependencies = []
def dino_vitb16(pretrained=True, **_options):
    model = torch.nn.Linear(3, 8, bias=False)
    url = "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth"
    model.load_state_dict(torch.hub.load_state_dict_from_url(url=url, map_location="cpu"))
    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), model)
"""
"""DINO's repository, as far as vbench asks for it, with a tiny model."""

if PYTHON:
    CHOSEN = Path(PYTHON)

    def test_temporal_flickering_of_the_real_vbench_is_ours(tmp_path: Path) -> None:
        run = make_run(tmp_path / "demo" / "run", prompts=CAPTIONS[:2], latents=False)
        metric = VBenchMetric(VBenchOptions(dimensions=("temporal_flickering",), python=CHOSEN, device="cpu"))
        rows = score_run(run, [metric, FLICKER])
        values = {(row.item_id, row.metric): row.value for row in rows}
        assert all(value is not None for value in values.values()), rows
        for item in run.items():
            theirs, ours = values[item.id, "vbench.temporal_flickering"], values[item.id, "temporal_flicker"]
            # Another decoder rounds colours otherwise.
            assert theirs == pytest.approx(ours, abs=5e-4)
        assert {row.item_id for row in rows if row.item_id.startswith("set:")} == {"set:sequential", "set:ropa K=8"}

    def test_every_other_dimension_names_the_weights_that_it_lacks(tmp_path: Path) -> None:
        run = make_run(tmp_path / "demo" / "run", prompts=CAPTIONS[:1], latents=False)
        names = tuple(name for name, dimension in DIMENSIONS.items() if dimension.needs)
        weights = tmp_path / "weights"
        metric = VBenchMetric(VBenchOptions("t2v", names, "standard", _suite(tmp_path), CHOSEN, weights, "cpu"))
        rows = {row.metric: row for row in score_run(run, [metric]) if row.item_id == "set:sequential"}
        assert len(rows) == 15
        for name in names:
            row = rows[f"vbench.{name}"]
            assert row.value is None
            for needed in DIMENSIONS[name].needs:
                assert f"{weights / needed.path} (from {needed.source})" in str(row.reason)

    def test_a_clip_is_compared_with_its_start_image_by_the_installed_image_to_video_suite(tmp_path: Path) -> None:
        weights, inputs = tmp_path / "weights", tmp_path / "inputs"
        model = write_dino(weights / "dino_model")
        inputs.mkdir()
        samples = []
        for name, colour in (("a", (200, 30, 30)), ("b", (20, 90, 220))):
            frames = np.full((4, 64, 64, 3), colour, np.uint8)
            frames[2:] //= 2
            write_video(tmp_path / f"{name}.mp4", frames, 8)
            Image.fromarray(frames[0]).save(tmp_path / "start.png")
            sha256 = hashlib.sha256((tmp_path / "start.png").read_bytes()).hexdigest()
            image = (tmp_path / "start.png").rename(inputs / f"{sha256}.png")
            samples.append(Sample(name, media=tmp_path / f"{name}.mp4", name=name, inputs={"image": (image,)}))
        options = {"python": CHOSEN, "weights": weights, "device": "cpu", "prompts": "custom"}
        metric = VBenchMetric(VBenchOptions("i2v", ("i2v_subject",), **options))
        (found,) = metric.measure_set(samples, metric.parts, tmp_path / "room")
        assert found.reason is None
        for sample in samples:
            shown = np.concatenate([*sample.input_frames("image"), sample.frames])
            assert found.items[sample.name] == pytest.approx(i2v_subject(model, shown), abs=2e-3)
        assert found.value == pytest.approx(np.mean([float(value) for value in found.items.values()]))

    def write_dino(folder: Path) -> torch.nn.Linear:
        """Write a model under DINO's name: random features of a picture's mean colour, from a file of weights."""
        (folder / "facebookresearch_dino_main").mkdir(parents=True)
        (folder / "facebookresearch_dino_main" / "hubconf.py").write_text(HUBCONF)
        model = torch.nn.Linear(3, 8, bias=False)
        torch.nn.init.normal_(model.weight, generator=torch.Generator().manual_seed(1))
        torch.save(model.state_dict(), folder / "dino_vitbase16_pretrain.pth")
        return model

    def i2v_subject(model: torch.nn.Linear, shown: np.ndarray) -> float:
        """Return what the paper of VBench-I2V defines, of a start image and its frames, one after the other."""
        mean, deviation = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
        colours = (torch.as_tensor(shown).float().mean((1, 2)) / 255 - mean) / deviation
        features = torch.nn.functional.normalize(model(colours).detach(), dim=-1)
        near = (features[1:] @ features[0]).clamp(min=0)
        following = (features[1:-1] * features[2:]).sum(-1).clamp(min=0)
        return float(0.4 * near.max() + 0.3 * following.mean() + 0.3 * following.min())

    def test_the_installed_list_of_prompts_is_the_suite(tmp_path: Path) -> None:
        bridge = Bridge(CHOSEN, tmp_path / "log")
        try:
            bridge.start({"cache": None}, 600)
            suite = read_suite(Path(bridge.hello["full_info"]))
            assert bridge.hello["version"] == "0.1.5"
        finally:
            bridge.close()
        assert len(suite) == 946
        assert {name for entry in suite for name in entry["dimension"]} == set(DIMENSIONS)


def _suite(folder: Path) -> Path:
    """A list of prompts that has the clip's caption in every dimension."""
    path = folder / "suite.json"
    path.write_text(json.dumps([{"prompt_en": CAPTIONS[0], "dimension": list(DIMENSIONS)}]))
    return path
