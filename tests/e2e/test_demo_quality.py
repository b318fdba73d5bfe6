import re
from dataclasses import replace

import pytest

from genrun.adapters.training.evaluate import DemoMetrics, evaluate, load
from genrun.adapters.training.recipe import RECIPES, Recipe

TARGETS = {
    "demo-video": ({"background": 0.90, "colour": 0.90, "shape": 0.90, "direction": 0.90}, 28.0),
    "demo-image": ({"background": 0.95, "colour": 0.95, "shape": 0.95, "place": 0.95}, 30.0),
}


FEWER_STEPS = {"demo-video": 10, "demo-image": 16}
"""Instead of the 50 of the recipes: what holds with so few holds with more, and takes a third of the time or less."""


def measured(name: str, recipe: Recipe) -> DemoMetrics:
    coarse = replace(recipe, sampling=replace(recipe.sampling, num_inference_steps=FEWER_STEPS[name]))
    return evaluate(load(recipe.weights), coarse, pairs=96)


@pytest.fixture(scope="module")
def results() -> dict[str, DemoMetrics]:
    return {name: measured(name, recipe) for name, recipe in RECIPES.items()}


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("name", "attribute"),
    [(name, attribute) for name, (accuracy, _) in TARGETS.items() for attribute in accuracy],
)
def test_shipped_weights_obey_captions_that_they_were_not_trained_on(
    name: str, attribute: str, results: dict[str, DemoMetrics]
) -> None:
    assert results[name].pairs == 96
    assert results[name].accuracy[attribute] >= TARGETS[name][0][attribute]


@pytest.mark.e2e
@pytest.mark.parametrize("name", list(RECIPES))
def test_shipped_vae_reconstructs_held_out_scenes(name: str, results: dict[str, DemoMetrics]) -> None:
    assert results[name].vae_psnr_db > TARGETS[name][1]


@pytest.mark.parametrize("name", list(RECIPES))
def test_shipped_folders_are_small_and_hold_no_foreign_files(name: str) -> None:
    files = [path for path in RECIPES[name].weights.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors", ".md"}
    assert 0 < sum(path.stat().st_size for path in files if path.suffix == ".safetensors") <= 10e6
    texts = [path.read_text() for path in files if path.suffix in {".json", ".md"}]
    assert not [text for text in texts if re.search(r'[\s"(]/\w+/', text)], "an absolute path of some machine"
