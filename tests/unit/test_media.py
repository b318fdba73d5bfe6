"""Clips and pictures keep their size, their metadata and their bytes."""

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from genrun.adapters.media import KEY, MediaError, read_frames, read_metadata, write_image, write_video
from tests.fakes.items import HOSTILE

HOSTILE_METADATA = {"prompt": HOSTILE, "emoji": "🐱\u2028\x00\ud7ff", "nested": {"quotes": ["'", '"', "`;=#\\\n"]}}


def make_frames(count: int, height: int, width: int) -> np.ndarray:
    """A smooth gradient that moves, with a saturated square."""
    across = np.linspace(0, 255, width)[None, :] + np.zeros((height, 1))
    down = np.linspace(0, 255, height)[:, None] + np.zeros((1, width))
    frames = [np.stack([across, down, np.full_like(across, 20 * number % 255)], axis=-1) for number in range(count)]
    clip = np.stack(frames).astype(np.uint8)
    clip[:, 4:20, 4:20] = (255, 0, 0)
    return clip


def psnr(ours: np.ndarray, theirs: np.ndarray) -> float:
    error = np.mean((ours.astype(float) - theirs.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / error))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (50, 66), (66, 50), (34, 34), (480, 722)])
def test_even_sizes_are_kept_exactly(tmp_path: Path, height: int, width: int) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, make_frames(5, height, width), fps=8)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.height, stream.width, stream.frames) == (height, width, 5)
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == 8
    assert read_frames(path).shape == (5, height, width, 3)


@pytest.mark.parametrize(("height", "width"), [(65, 64), (64, 65), (33, 35)])
def test_odd_sizes_come_back_as_they_were(tmp_path: Path, height: int, width: int) -> None:
    path = tmp_path / "clip.mp4"
    frames = make_frames(3, height, width)
    write_video(path, frames, fps=8)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.height, stream.width) == (height + height % 2, width + width % 2)
    assert read_frames(path).shape == frames.shape
    assert psnr(read_frames(path), frames) > 30


def test_colours_survive(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    frames = make_frames(4, 128, 128)
    write_video(path, frames, fps=8)
    back = read_frames(path)
    assert psnr(back, frames) > 35
    assert np.abs(back[0, 12, 12].astype(int) - (255, 0, 0)).max() <= 4


def test_lower_crf_is_closer(tmp_path: Path) -> None:
    gray = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 1), dtype=np.uint8)
    frames = np.repeat(gray, 3, axis=-1)
    quality = []
    for crf in (40, 18, 4):
        write_video(tmp_path / "clip.mp4", frames, fps=8, crf=crf)
        quality.append(psnr(read_frames(tmp_path / "clip.mp4"), frames))
    assert quality == sorted(quality)
    assert quality[0] < quality[-1] - 3


@pytest.mark.parametrize("size", [(64, 96), (50, 66), (64, 64)])
def test_the_same_frames_give_the_same_bytes(tmp_path: Path, size: tuple[int, int]) -> None:
    frames = make_frames(9, *size)
    noise = np.random.default_rng(0).integers(0, 60, frames.shape, dtype=np.uint8)
    clips, pictures = set(), set()
    for _ in range(10):
        write_video(tmp_path / "clip.mp4", frames // 2 + noise, fps=8, metadata=HOSTILE_METADATA)
        clips.add((tmp_path / "clip.mp4").read_bytes())
        write_image(tmp_path / "picture.png", frames[0], HOSTILE_METADATA)
        pictures.add((tmp_path / "picture.png").read_bytes())
    assert (len(clips), len(pictures)) == (1, 1)


def test_hostile_metadata_come_back_from_a_clip(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, make_frames(2, 32, 32), fps=8, metadata=HOSTILE_METADATA)
    assert read_metadata(path) == HOSTILE_METADATA


def test_hostile_metadata_come_back_from_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    write_image(path, make_frames(1, 32, 32)[0], HOSTILE_METADATA)
    assert read_metadata(path) == HOSTILE_METADATA


def test_the_index_of_a_clip_is_in_front(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, make_frames(9, 64, 64), fps=8)
    content = path.read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")


def test_a_picture_comes_back_bit_by_bit_at_any_size(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    frame = np.random.default_rng(1).integers(0, 255, (33, 47, 3), dtype=np.uint8)
    write_image(path, frame)
    assert np.array_equal(read_frames(path), frame[None])


def test_fractional_rates_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, make_frames(3, 32, 32), fps=30000 / 1001)
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == Fraction(30000, 1001)


def test_a_picture_of_somebody_else_has_no_metadata(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.new("RGB", (4, 4)).save(path)
    assert read_metadata(path) == {}


@pytest.mark.parametrize("text", ["not json", "[1, 2]"])
def test_metadata_that_are_not_ours_are_refused(tmp_path: Path, text: str) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt(KEY, text)
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, format="PNG", pnginfo=info)
    path = tmp_path / "picture.png"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(MediaError, match="metadata are not"):
        read_metadata(path)


def test_a_file_that_is_no_clip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"hello " * 100)
    with pytest.raises(MediaError, match="not a picture or clip"):
        read_metadata(path)


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((3, 8, 8, 3), dtype=np.float32),
        np.zeros((8, 8, 3), dtype=np.uint8),
        np.zeros((3, 8, 8, 4), dtype=np.uint8),
        np.zeros((0, 8, 8, 3), dtype=np.uint8),
    ],
)
def test_other_shapes_and_types_are_refused(tmp_path: Path, frames: np.ndarray) -> None:
    with pytest.raises(MediaError, match=r"frames must be uint8 \(T, H, W, 3\), not"):
        write_video(tmp_path / "clip.mp4", frames, fps=8)
    assert not (tmp_path / "clip.mp4").exists()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_picture_of_any_kind_of_channels_is_written_and_read_as_rgb(tmp_path: Path, channels: int) -> None:
    frame = np.random.default_rng(channels).integers(0, 256, (17, 5, channels), dtype=np.uint8)
    path = tmp_path / "picture.png"
    write_image(path, frame, {"item": 1})
    (read,) = read_frames(path)
    assert read.shape == (17, 5, 3)
    assert read_metadata(path) == {"item": 1}
    if channels == 3:
        assert (read == frame).all()
    elif channels == 1:
        assert (read == frame).all()  # the same in all three


def test_what_is_transparent_is_read_as_it_looks_on_white(tmp_path: Path) -> None:
    frame = np.zeros((2, 2, 4), np.uint8)
    frame[0, 0, 3] = 255
    write_image(tmp_path / "picture.png", frame)
    (read,) = read_frames(tmp_path / "picture.png")
    assert read[0, 0].tolist() == [0, 0, 0]
    assert read[1, 1].tolist() == [255, 255, 255]


def test_a_grey_clip_is_written(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", np.full((3, 32, 32, 1), 128, np.uint8), fps=8)
    assert read_frames(tmp_path / "clip.mp4").shape == (3, 32, 32, 3)


@pytest.mark.parametrize("crf", [0, 1, 2, 18, 51])
@pytest.mark.parametrize(("frames", "height", "width", "fps"), [(1, 1, 1, 8), (3, 33, 64, 0.1), (2, 64, 64, 1000)])
def test_every_clip_has_a_profile_that_browsers_play(
    tmp_path: Path, crf: int, frames: int, height: int, width: int, fps: float
) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, make_frames(frames, height, width), fps=fps, crf=crf)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.profile in ("High", "Main", "Constrained Baseline", "Baseline")
        assert (stream.frames, float(stream.average_rate or 0)) == (frames, fps)
    assert read_frames(path).shape == (frames, height, width, 3)
