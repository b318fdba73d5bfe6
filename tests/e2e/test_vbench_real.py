"""The real vbench, where GENRUN_VBENCH_PYTHON names an environment that has it; elsewhere there are no tests here."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from genrun.adapters.scorers.temporal_flicker import METRIC as FLICKER
from genrun.adapters.scorers.vbench.dimensions import DIMENSIONS
from genrun.adapters.scorers.vbench.metric import VBenchMetric, VBenchOptions
from genrun.adapters.scorers.vbench.process import Bridge
from genrun.adapters.scorers.vbench.video_folder import read_suite
from genrun.runner.score.scoring import score_run
from tests.sample_run import CAPTIONS, make_run

PYTHON = os.environ.get("GENRUN_VBENCH_PYTHON")
pytestmark = pytest.mark.e2e

if PYTHON:
    CHOSEN = Path(PYTHON)

    def test_temporal_flickering_of_the_real_vbench_is_ours(tmp_path: Path) -> None:
        run = make_run(tmp_path / "demo" / "run", prompts=CAPTIONS[:2], latents=False)
        metric = VBenchMetric(VBenchOptions(("temporal_flickering",), python=CHOSEN, device="cpu"))
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
        metric = VBenchMetric(VBenchOptions(names, "standard", _suite(tmp_path), CHOSEN, weights, "cpu"))
        rows = {row.metric: row for row in score_run(run, [metric]) if row.item_id == "set:sequential"}
        assert len(rows) == 15
        for name in names:
            row = rows[f"vbench.{name}"]
            assert row.value is None
            for needed in DIMENSIONS[name].needs:
                assert f"{weights / needed.path} (from {needed.source})" in str(row.reason)

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
