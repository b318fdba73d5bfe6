import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrun.adapters.demo import world

EVERY = [scene for kind in ("video", "image") for split in ("train", "held-out") for scene in world.scenes(kind, split)]


@given(st.sampled_from(EVERY))
def test_a_caption_reads_back_to_its_scene(scene: world.Scene) -> None:
    assert world.parse_caption(scene.caption) == scene


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "a small red circle",
        "a small red circle moving left on pink",
        "a tiny red circle moving left on gray",
        "a small red circle moving sideways on gray",
        "a small red circle moving top left on gray",
        "a small red circle at the left on gray",
        "a small red circle moving left on gray and more",
        "the small red circle moving left on gray",
    ],
)
def test_other_sentences_are_refused_with_an_example(caption: str) -> None:
    with pytest.raises(ValueError, match="moving left on gray"):
        world.parse_caption(caption)


@pytest.mark.parametrize("kind", ["video", "image"])
def test_the_split_is_a_partition_of_all_combinations(kind: world.Kind) -> None:
    train, held_out = set(world.scenes(kind, "train")), set(world.scenes(kind, "held-out"))
    assert not train & held_out
    assert len(train | held_out) == 2 * 6 * 3 * 5 * 4
    assert 0.1 < len(held_out) / len(train | held_out) < 0.25


def test_the_split_never_changes() -> None:
    assert len(world.scenes("video", "held-out")) == 135
    assert len(world.scenes("image", "held-out")) == 114


@pytest.mark.parametrize("kind", ["video", "image"])
def test_every_attribute_value_is_in_both_halves(kind: world.Kind) -> None:
    for name in ("size", "colour", "shape", "where", "background"):
        train, held_out = (
            {getattr(scene, name) for scene in world.scenes(kind, split)} for split in ("train", "held-out")
        )
        assert train == held_out


def test_the_same_generator_state_draws_the_same_pixels() -> None:
    scene = world.parse_caption("a large purple triangle moving down on navy")
    one, same = (world.draw(scene, np.random.default_rng(3)) for _ in range(2))
    other = world.draw(scene, np.random.default_rng(4))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@given(st.sampled_from(EVERY), st.integers(0, 2**32 - 1))
def test_the_outline_stays_inside_the_frame(scene: world.Scene, seed: int) -> None:
    frames = world.draw(scene, np.random.default_rng(seed))
    assert frames.shape == ((9 if scene.kind == "video" else 1), 64, 64, 3)
    edge = np.concatenate([frames[:, 0], frames[:, -1], frames[:, :, 0], frames[:, :, -1]], axis=1)
    ground, ink = np.asarray(world.BACKGROUNDS[scene.background]), np.asarray(world.COLOURS[scene.colour])
    covered = (edge - ground) @ (ink - ground) / ((ink - ground) @ (ink - ground))
    assert covered.max() <= 0.5 + 1e-6, "the outline, where a pixel is half covered, is beyond the frame"


@pytest.mark.parametrize(("shape", "area"), [("circle", np.pi), ("square", 1.76**2), ("triangle", 1.66)])
def test_coverage_sums_to_the_area_of_the_shape(shape: str, area: float) -> None:
    center = np.array([31.3])
    assert world.coverage(shape, 12.0, center, center).sum() == pytest.approx(area * 12**2, rel=0.02)
