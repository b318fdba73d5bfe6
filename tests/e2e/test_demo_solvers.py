"""The solvers on the trained video model, at their default options: error, rounds, and what the pictures say."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import pytest
import torch

from genrun.adapters import registry as adapters
from genrun.adapters.demo.checker import check
from genrun.adapters.demo.world import scenes
from genrun.adapters.pipeline.loading import load
from genrun.adapters.sampling.call import SamplingRequest, decode
from genrun.adapters.sampling.generate import sample
from genrun.solvers import registry

pytestmark = pytest.mark.e2e

WORKERS, SAMPLES = 8, 6
LEAST_SPEEDUP = {"ropa": 3.5, "parasolver-turbo": 3.5, "collocation": 4.5}
"""At errors of at most 0.05."""


@dataclass(frozen=True)
class Outcome:
    """Means over the samples."""

    rmse: float
    speedup: float
    correct: int


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    adapter = adapters.get("demo-video")
    pipe = load(adapter, None, dtype=None, device="cpu")
    captions = [scene.caption for scene in islice(scenes("video", "held-out"), 0, None, 20)][:SAMPLES]
    found: dict[str, list[tuple[float, float, bool]]] = {}
    for seed, caption in enumerate(captions):
        request, reference = SamplingRequest(caption, seed, {}), None
        for name in registry.names():
            solver = registry.get(name)() if name == "sequential" else registry.get(name)(workers=WORKERS)
            sampled = sample(pipe, adapter, request, solver)
            reference = sampled.latents if reference is None else reference
            rmse = float((sampled.latents - reference).square().mean().sqrt() / reference.std())
            right = all(check(decode(pipe, adapter, request, sampled.latents).frames, caption).values())
            found.setdefault(name, []).append((rmse, sampled.num_steps / sampled.solution.rounds, right))
    return {
        name: Outcome(mean([r for r, _, _ in rows]), mean([s for _, s, _ in rows]), sum(ok for *_, ok in rows))
        for name, rows in found.items()
    }


def mean(values: list[float]) -> float:
    return float(torch.tensor(values).mean())


@pytest.mark.parametrize("solver", [name for name in registry.names() if name != "sequential"])
def test_default_tolerance_keeps_the_error_below_five_percent(solver: str, outcomes: dict[str, Outcome]) -> None:
    assert outcomes["sequential"].rmse == 0
    assert 0 < outcomes[solver].rmse <= 0.05


@pytest.mark.parametrize("solver", LEAST_SPEEDUP)
def test_speedup_on_eight_workers(solver: str, outcomes: dict[str, Outcome]) -> None:
    assert outcomes[solver].speedup >= LEAST_SPEEDUP[solver]


@pytest.mark.parametrize("solver", [name for name in registry.names() if name != "sequential"])
def test_pictures_are_as_right_as_sequential_ones(solver: str, outcomes: dict[str, Outcome]) -> None:
    assert abs(outcomes[solver].correct - outcomes["sequential"].correct) <= 1


def test_sampling_is_not_trivial_to_parallelise(outcomes: dict[str, Outcome]) -> None:
    """Even at a looser tolerance than 0.05, ParaDiGMS needs more than 10 rounds of 8 evaluations."""
    assert registry.get("paradigms")().tolerance >= 0.05
    assert 1 < outcomes["paradigms"].speedup < 5
