import dataclasses
import zlib
from pathlib import Path

import numpy as np
import pytest

from genrun.adapters.demo import world
from genrun.adapters.demo.checker import check, read
from genrun.adapters.media import read_frames, write_video


def drawn(scene: world.Scene, noise: float = 0.0, blurs: int = 0) -> np.ndarray:
    rng = np.random.default_rng(zlib.crc32(scene.caption.encode()))
    frames = world.draw(scene, rng)
    for _ in range(blurs):
        padded = np.pad(frames, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        rows = (padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]) / 3
        frames = (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / 3
    noisy = frames + rng.normal(0, noise, frames.shape)
    return (np.clip(noisy, 0, 1) * 255).round().astype(np.uint8)


@pytest.mark.parametrize(("noise", "blurs"), [(0.0, 0), (0.03, 0), (0.0, 1), (0.05, 1)])
@pytest.mark.parametrize("kind", ["video", "image"])
def test_drawn_scenes_are_read_right(kind: world.Kind, noise: float, blurs: int) -> None:
    some = world.scenes(kind, "held-out")[::3] + world.scenes(kind, "train")[::17]
    wrong = [scene.caption for scene in some if not all(check(drawn(scene, noise, blurs), scene.caption).values())]
    assert wrong == []


def test_colour_that_a_codec_blurs_leaves_shapes_as_they_are(tmp_path: Path) -> None:
    grays = [scene for scene in world.scenes("video", "train") if scene.background == "gray" and scene.where == "down"]
    wrong = []
    for number, scene in enumerate(grays):
        write_video(tmp_path / f"{number}.mp4", drawn(scene, noise=0.02, blurs=1), fps=8)
        seen = read(read_frames(tmp_path / f"{number}.mp4"), "video")
        wrong += [scene.caption] if (seen.shape, seen.size) != (scene.shape, scene.size) else []
    assert (len(grays) > 20, wrong) == (True, [])


OTHERS = {
    "size": "small",
    "colour": "yellow",
    "shape": "triangle",
    "where": "up",
    "background": "navy",
}


@pytest.mark.parametrize("attribute", list(OTHERS))
def test_exactly_the_attribute_that_differs_fails(attribute: str) -> None:
    scene = world.parse_caption("a large blue square moving nowhere on brown")
    other = dataclasses.replace(scene, **{attribute: OTHERS[attribute]})
    verdict = check(drawn(scene), other.caption)
    failed = "direction" if attribute == "where" else attribute
    assert verdict == {name: name != failed for name in ("background", "colour", "shape", "size", "direction")}


def test_every_pair_of_shapes_is_told_apart() -> None:
    for shape in world.SHAPES:
        for said in world.SHAPES:
            scene = world.Scene("small", "green", shape, "left", "black")
            verdict = check(drawn(scene, 0.03, 1), dataclasses.replace(scene, shape=said).caption)
            assert verdict["shape"] == (shape == said)


def test_a_clip_played_backwards_moves_the_other_way() -> None:
    frames = drawn(world.parse_caption("a small red circle moving left on gray"))
    assert read(frames[::-1], "video").where == "right"


def test_a_diagonal_motion_is_no_direction() -> None:
    scene = world.parse_caption("a small red circle moving nowhere on gray")
    still = drawn(scene)
    moved = np.stack([np.roll(frame, (2 * i, 2 * i), (0, 1)) for i, frame in enumerate(still)])
    assert read(moved, "video").where is None


@pytest.mark.parametrize("seed", range(3))
def test_noise_shows_no_scene(seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (9, 64, 64, 3), dtype=np.uint8)
    seen = read(noise, "video")
    assert (seen.shape, seen.size) == (None, None)


def test_a_clip_without_a_shape_fails_everything_but_the_background() -> None:
    plain = np.full((9, 64, 64, 3), 128, np.uint8)
    verdict = check(plain, "a small red circle moving nowhere on gray")
    assert verdict == {"background": True, "colour": False, "shape": False, "size": False, "direction": False}


def test_a_shape_that_vanishes_for_a_frame_fails() -> None:
    frames = drawn(world.parse_caption("a small red circle moving left on gray"))
    frames[4] = 128
    assert not check(frames, "a small red circle moving left on gray")["shape"]


@pytest.mark.parametrize(
    "frames",
    [np.zeros((9, 64, 64, 3)), np.zeros((64, 64, 3), np.uint8), np.zeros((9, 64, 32, 3), np.uint8)],
    ids=["floats", "no time axis", "not square"],
)
def test_other_arrays_are_refused(frames: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        read(frames, "video")


def test_a_single_frame_shows_no_motion(capfd: pytest.CaptureFixture[str]) -> None:
    scene = world.scenes("video", "held-out")[0]
    assert not check(drawn(scene)[:1], scene.caption)["direction"]
    assert capfd.readouterr() == ("", "")
