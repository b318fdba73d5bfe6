"""Media files: H.264 clips and PNG pictures with metadata inside, the same bytes for the same frames; and other formats.

A clip keeps its size exactly when both sides are even. H.264 with 4:2:0 colour, the only kind that every browser
plays, has no odd sizes: an odd side is written one pixel larger with the last row or column repeated, the true size
is noted in the file, and `read_frames` cuts it back.
"""

from __future__ import annotations

import itertools
import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.adapters.files import MIB, opened, parse_json
from genrun.adapters.sound import aac

if TYPE_CHECKING:
    import av
    import numpy as np
    from av.container import InputContainer, OutputContainer
    from av.video.stream import VideoStream
    from PIL import Image

    from genrun.adapters.shapes import RgbFrames
    from genrun.adapters.sound import Sound

KEY = "genrun"
"""Name of the metadata entry; its value is JSON in ASCII."""

SIZE_KEY = "genrun-size"
"""Name of the entry with the true size, "WIDTHxHEIGHT"."""

# Taken for visually lossless; x264's own default is 23.
DEFAULT_CRF = 18

# More is not parsed: files may come from others.
MAX_METADATA = MIB

FINEST_CRF = 1
"""Least CRF that is used: below it x264 writes its lossless profile, High 4:4:4 Predictive, which browsers do not play."""

CHANNELS = (1, 2, 3, 4)
"""Numbers of channels of a picture: grey, grey with transparency, RGB, RGB with transparency."""

WEBM_CRF = 24
"""Quality of VP9, where 15 to 35 is usual: about the size and quality of x264 at 18."""

# Above Pillow's default of 80: exported pictures are compared side by side.
WEBP_QUALITY = 90

FORMATS: Mapping[str, str] = {"gif": ".gif", "webp": ".webp", "webm": ".webm"}
"""Format that `convert` writes -> suffix of its file."""

CLIPS_ONLY = ("gif", "webm")

GIF_TICK_MS = 10
"""A GIF counts the time that a frame is shown in hundredths of a second."""

# x264's output depends on its number of threads; its macroblock tree reads uninitialised memory where a side is no
# multiple of 64 (seen with AVX-512), so that the same frames give different bytes.
_ENCODER = {"preset": "medium", "threads": "2", "x264-params": "mbtree=0"}
_MOVIE = {"movflags": "+faststart+use_metadata_tags"}


class MediaError(ValueError):
    """Frames that cannot be written, or a file that cannot be read."""


def write_video(
    path: Path,
    frames: np.ndarray,
    fps: float,
    crf: int = DEFAULT_CRF,
    metadata: dict[str, Any] | None = None,
    sound: Sound | None = None,
) -> None:
    """Write a clip that every browser plays: mp4, H.264, yuv420p, index in front.

    Args:
        path: the file; overwritten.
        frames: uint8, (T, H, W, 3), RGB; or (T, H, W, 1), grey.
        fps: frames a second.
        crf: H.264 quality, 1 (finest; 0 is taken for it) to 51.
        metadata: anything JSON can hold; see `read_metadata`.
        sound: written as AAC; cut, or filled up with silence, to be as long as the frames are shown.

    Raises:
        MediaError: the frames have another shape or type.
        OSError: the file cannot be written.
    """
    import av
    import numpy as np

    _check(frames, "(T, H, W, 3)", 4, (1, 3))
    frames = frames if frames.shape[3] == 3 else frames.repeat(3, axis=3)
    height, width = frames.shape[1:3]
    even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    with av.open(str(path), "w", format="mp4", options=_MOVIE) as container:
        container.metadata.update({KEY: _dump(metadata), SIZE_KEY: f"{width}x{height}"})
        stream = _h264(container, even.shape[2], even.shape[1], fps, crf)
        heard = aac(container, sound, len(frames) / fps) if sound is not None else iter(())
        for frame in even:
            container.mux(stream.encode(_yuv(frame)))
            # About as much sound as a frame lasts, so that a player finds both side by side.
            container.mux([packet for packets in itertools.islice(heard, 2) for packet in packets])
        container.mux(stream.encode(None))
        container.mux([packet for packets in heard for packet in packets])


def write_image(path: Path, frame: np.ndarray, metadata: dict[str, Any] | None = None) -> None:
    """Write a PNG.

    Args:
        path: the file; overwritten.
        frame: uint8, (H, W, C): grey, grey with transparency, RGB, or RGB with transparency.
        metadata: anything JSON can hold; see `read_metadata`.

    Raises:
        MediaError: the frame has another shape or type.
        OSError: the file cannot be written.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    _check(frame, "(H, W, 1 to 4)", 3, CHANNELS)
    info = PngInfo()
    info.add_itxt(KEY, _dump(metadata))
    # Pillow takes the mode from the shape: (H, W) is grey.
    Image.fromarray(frame[..., 0] if frame.shape[2] == 1 else frame).save(path, format="PNG", pnginfo=info)


def convert(path: Path, frames: np.ndarray, fps: float, sound: Path | None = None) -> None:
    """Write frames in the format that the suffix of `path` names, with imageio and without metadata.

    Args:
        path: ends in .gif, .webp, .webm or .png; overwritten.
        frames: uint8, (T, H, W, 3), RGB; T = 1 for a picture.
        fps: frames a second.
        sound: a clip whose sound a .webm has too; other formats have none.

    Raises:
        OSError: the file cannot be written.
    """
    import imageio.v3 as iio

    options: dict[str, Any] = {"plugin": "pillow"}
    if path.suffix == ".webm":
        options = {
            "plugin": "FFMPEG",
            "fps": fps,
            "codec": "libvpx-vp9",
            # Sizes that are no multiple of 16 stay as they are.
            "macro_block_size": 1,
            "ffmpeg_log_level": "error",
            # Constant quality: no bit rate.
            "output_params": ["-crf", str(WEBM_CRF), "-b:v", "0"],
        }
        if sound is not None:
            options |= {"audio_path": str(sound), "audio_codec": "libopus"}
    elif len(frames) > 1:
        options |= {"duration": _durations(len(frames), fps, GIF_TICK_MS if path.suffix == ".gif" else 1), "loop": 0}
    if path.suffix == ".webp":
        options |= {"quality": WEBP_QUALITY}
    iio.imwrite(path, frames if len(frames) > 1 else frames[0], **options)


def _durations(count: int, fps: float, tick: int) -> list[int]:
    """Return how long each frame is shown, in ms: multiples of `tick` that add up to the clip's time, none below two."""
    ends = [round(number * 1000 / fps / tick) for number in range(count + 1)]
    # Browsers show a frame of less than 20 ms of a GIF for 100 ms.
    return [max(end - start, 2) * tick for start, end in itertools.pairwise(ends)]


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata in a file of `write_video` or `write_image`; {} when it has none.

    Raises:
        MediaError: not a picture or clip, or its metadata are not ours.
        OSError: the file cannot be read.
    """
    text = (_png_text(path) if _is_png(path) else _video_tags(path).get(KEY)) or "{}"
    if len(text) > MAX_METADATA:
        raise MediaError(f"{path}: its {KEY!r} metadata are longer than {MAX_METADATA:,} characters")
    try:
        metadata = parse_json(text)
    except ValueError as error:
        raise MediaError(f"{path}: its {KEY!r} metadata are not JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise MediaError(f"{path}: its {KEY!r} metadata are not an object")
    return metadata


def read_frames(path: Path) -> RgbFrames:
    """Return the frames of a picture or clip: uint8, (T, H, W, 3), RGB; T = 1 for a picture.

    Grey is read as RGB, and what is transparent as it looks on white.

    Raises:
        MediaError: not a picture or clip, or one that is cut off: fewer frames than its index lists.
        OSError: the file cannot be read.
    """
    import numpy as np

    if not path.stat().st_size:
        raise MediaError(f"{path}: the file is empty")
    if _is_png(path):
        return _picture(path)
    with _opened(path) as container:
        if not container.streams.video:
            raise MediaError(f"{path}: holds no pictures")
        width, height = _true_size(container)
        listed = container.streams.video[0].frames
        frames = list(_decoded(container, path))
    if not frames or len(frames) < listed:
        raise MediaError(f"{path}: cut off: {len(frames)} of {listed} frames are there")
    return np.stack(frames)[:, :height, :width]


def read_middle_frame(path: Path) -> np.ndarray:
    """Return a picture, or the frame in the middle of a clip, for which no more than half of it is decoded.

    Returns:
        uint8, (H, W, 3), RGB.

    Raises:
        MediaError: not a picture or clip, or one that is cut off before its middle.
        OSError: the file cannot be read.
    """
    if _is_png(path):
        return _picture(path)[0]
    with _opened(path) as container:
        if not container.streams.video:
            raise MediaError(f"{path}: holds no pictures")
        width, height = _true_size(container)
        middle = container.streams.video[0].frames // 2
        frame = next(itertools.islice(_decoded(container, path), middle, None), None)
    if frame is None:
        raise MediaError(f"{path}: cut off before its middle")
    return frame[:height, :width]


def read_fps(path: Path) -> float:
    """Return the frames a second of a clip.

    Raises:
        MediaError: not a clip.
        OSError: the file cannot be read.
    """
    with _opened(path) as container:
        rate = container.streams.video[0].average_rate if container.streams.video else None
    if not rate:
        raise MediaError(f"{path}: holds no pictures")
    return float(rate)


def has_sound(path: Path) -> bool:
    """Return whether a clip has sound.

    Raises:
        MediaError: not a picture or clip.
        OSError: the file cannot be read.
    """
    if _is_png(path):
        return False
    with _opened(path) as container:
        return bool(container.streams.audio)


def _picture(path: Path) -> RgbFrames:
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path) as image:
            is_opaque = "A" not in image.getbands() and "transparency" not in image.info
            shown = image if is_opaque else _on_white(image)
            return np.array(shown.convert("RGB"))[None]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise MediaError(f"{path}: cut off or damaged: {error}") from error


def _on_white(image: Image.Image) -> Image.Image:
    from PIL import Image

    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))


def _decoded(container: InputContainer, path: Path) -> Iterator[np.ndarray]:
    from av.error import FFmpegError

    try:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")
    except FFmpegError as error:
        raise MediaError(f"{path}: cut off or damaged: {error.strerror}") from error


def _h264(container: OutputContainer, width: int, height: int, fps: float, crf: int) -> VideoStream:
    from av.video.reformatter import ColorRange, Colorspace

    options = {**_ENCODER, "crf": str(max(crf, FINEST_CRF))}
    rate = Fraction(fps).limit_denominator(1001)
    if rate <= 0:
        raise MediaError(f"{fps} frames a second: wanted at least 0.001")
    stream = container.add_stream("libx264", rate=rate, options=options)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.codec_context.colorspace = Colorspace.ITU709
    stream.codec_context.color_range = ColorRange.MPEG
    return stream


def _yuv(frame: np.ndarray) -> av.VideoFrame:
    import av
    from av.video.reformatter import ColorRange, Colorspace

    rgb = av.VideoFrame.from_ndarray(frame, format="rgb24")
    return rgb.reformat(
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
    )


def _check(frames: np.ndarray, wanted: str, dimensions: int, channels: tuple[int, ...]) -> None:
    is_right = frames.ndim == dimensions and frames.shape[-1] in channels and frames.size
    if not is_right or str(frames.dtype) != "uint8":
        raise MediaError(f"frames must be uint8 {wanted}, not {frames.dtype} {frames.shape}")


def _dump(metadata: dict[str, Any] | None) -> str:
    return json.dumps(metadata or {}, ensure_ascii=True, sort_keys=True)


def _is_png(path: Path) -> bool:
    with opened(path) as file:
        return file.read(8) == b"\x89PNG\r\n\x1a\n"


def _png_text(path: Path) -> str | None:
    from PIL import Image
    from PIL.PngImagePlugin import PngImageFile

    try:
        with Image.open(path, formats=("PNG",)) as image:
            return image.text.get(KEY) if isinstance(image, PngImageFile) else None
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error, Image.DecompressionBombError) as error:
        raise MediaError(f"{path}: cut off or damaged: {error}") from error


def _video_tags(path: Path) -> dict[str, str]:
    with _opened(path) as container:
        return dict(container.metadata)


def _opened(path: Path) -> InputContainer:
    import av
    from av.error import EOFError as EndOfFileError
    from av.error import InvalidDataError

    try:
        # The format is told, since others name further files and addresses to be read; and an absolute path, since
        # FFmpeg takes `concat:a|b` for no file's name.
        return av.open(str(path.absolute()), "r", format="mp4")
    except (InvalidDataError, EndOfFileError) as error:
        raise MediaError(f"{path}: not a picture or clip: {error.strerror}") from error


def _true_size(container: InputContainer) -> tuple[int, int]:
    stream = container.streams.video[0]
    noted = dict(container.metadata).get(SIZE_KEY, "").split("x")
    if len(noted) == 2 and all(side.isdecimal() for side in noted):
        return int(noted[0]), int(noted[1])
    return stream.width, stream.height
