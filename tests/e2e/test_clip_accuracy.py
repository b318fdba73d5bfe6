"""clip_score measures something: the demo world's CLIP tells held-out captions apart, in files as items are."""

from __future__ import annotations

import pytest

from genrun.adapters.training.clip import DEMO_CLIP
from genrun.adapters.training.evaluate_clip import accuracy


@pytest.mark.e2e
def test_matching_captions_score_above_others_on_at_least_95_percent_of_held_out_pairs() -> None:
    found = accuracy(DEMO_CLIP.weights, pairs=120, seed=7)
    assert found["any"] >= 0.95
    assert min(found[name] for name in ("size", "colour", "background")) >= 0.95
