"""Pictures and clips that a job hands to a model: looked at before anything is loaded, and decoded, both within bounds.

What a file is, its bytes say, not its name. Pictures come as `diffusers.utils.load_image` gives them: turned as EXIF says,
in RGB; what is transparent is seen on white.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from genrun.adapters.files import MIB, TooLargeError, read_bounded

if TYPE_CHECKING:
    from PIL import Image

    Frames = tuple[Image.Image, ...]

MAX_BYTES = 512 * MIB
"""Largest size of a file in bytes: a minute of video in high definition has a tenth of it."""

MAX_PICTURE = 64 * 2**20
"""Most pixels of a picture: 8192 x 8192."""

MAX_CLIP = 512 * 2**20
"""Most pixels of all frames of a clip together: 250 frames of 1920 x 1080, 1.5 GiB in memory."""

PICTURES = {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP", ".gif": "GIF"}
"""Suffix under which a file is kept -> Pillow's name for what it is. Of several frames, it is a clip."""

CLIPS = {".mp4": "mp4", ".webm": "matroska"}
"""The same for FFmpeg. The format is told it, since others name further files and addresses to be read."""

SUFFIXES = (*PICTURES, *CLIPS)
DEEP = ("I;16", "I;16B", "I;16L", "I", "F")
"""Pillow's modes of more than 8 bits a channel, which a cast to RGB would clip."""

BOMB = "more than {most:,}. Make it smaller"


class InputError(ValueError):
    """A file that is no picture or clip that a model can be given.

    Attributes:
        kind: of the failure, for records.
        remedy: what to do.
    """

    kind = "input"

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True)
class InputFile:
    """A picture or clip as it was found.

    Attributes:
        path: where it lies, absolute.
        sha256: of its bytes, 64 hexadecimal digits.
        suffix: of what it is: one of `SUFFIXES`.
        width: in pixels.
        height: in pixels.
        frames: how many; 1 for a picture.
    """

    path: Path
    sha256: str
    suffix: str
    width: int
    height: int
    frames: int

    @property
    def size(self) -> str:
        """Width and height, as messages show them."""
        return f"{self.width}x{self.height}"


def look_at(path: Path) -> InputFile:
    """Read and decode a picture or clip, and return what it is.

    Raises:
        InputError: there is none, it cannot be decoded, or it is too large.
    """
    data = read(path)
    frames, (width, height) = 0, (0, 0)
    for frame in _decoded(data):
        frames, (width, height) = frames + 1, frame.size
    return InputFile(path.absolute(), hashlib.sha256(data).hexdigest(), suffix_of(data), width, height, frames)


def read(path: Path) -> bytes:
    """Return the bytes of a file.

    Raises:
        InputError: there is none, or it cannot be read, or it is too large.
    """
    try:
        return read_bounded(path, MAX_BYTES)
    except FileNotFoundError:
        raise InputError("there is no such file") from None
    except TooLargeError as error:
        raise InputError(f"{error.size:,} bytes, {BOMB.format(most=MAX_BYTES)}") from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}") from error


def decode(data: bytes) -> Frames:
    """Return the frames of a picture (one) or a clip, in RGB.

    Raises:
        InputError: they cannot be decoded, or are too large.
    """
    return tuple(_decoded(data))


def suffix_of(data: bytes) -> str:
    """Return the suffix of what a file's first bytes say that it is.

    Raises:
        InputError: it is none of `SUFFIXES`.
    """
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return ".png"
    if data[:3] == b"\xff\xd8\xff":
        return ".jpg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ".webp"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return ".gif"
    if data[4:8] == b"ftyp":
        return ".mp4"
    if data[:4] == b"\x1a\x45\xdf\xa3":
        return ".webm"
    if not data:
        raise InputError("the file is empty")
    raise InputError(f"no picture or clip. There are: {', '.join(SUFFIXES)}")


def _decoded(data: bytes) -> Iterator[Image.Image]:
    suffix = suffix_of(data)
    return _pictures(data, PICTURES[suffix]) if suffix in PICTURES else _clip(data, CLIPS[suffix])


def _pictures(data: bytes, kind: str) -> Iterator[Image.Image]:
    import struct
    import warnings
    import zlib

    from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError

    try:
        # By its header alone; nothing is decoded before its size is known.
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(data), formats=(kind,))
        with opened as image:
            # Phones put a preview or a gain map behind the picture, as further frames of a JPEG.
            frames = 1 if kind == "JPEG" else getattr(image, "n_frames", 1)
            _refuse_large(image.size, frames)
            if image.mode in DEEP:
                raise InputError("has more than 8 bits a channel. Save it with 8")
            for frame in islice(ImageSequence.Iterator(image), frames):
                yield _rgb(ImageOps.exif_transpose(frame))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"more pixels than {MAX_PICTURE:,}. Make it smaller") from error
    except UnidentifiedImageError as error:
        raise InputError(f"cut off or damaged: no {kind} can be read from it") from error
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cut off or damaged: {error}") from error


def _rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if "A" in image.getbands() or "transparency" in image.info:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


def _clip(data: bytes, kind: str) -> Iterator[Image.Image]:
    import av
    from av.error import FFmpegError

    found = 0
    try:
        with av.open(io.BytesIO(data), "r", format=kind) as container:
            if not container.streams.video:
                raise InputError("holds no pictures")
            stream: Any = container.streams.video[0]
            listed = stream.frames or 0
            _refuse_large((stream.width, stream.height), max(listed, 1))
            for frame in container.decode(stream):
                found += 1
                _refuse_large((frame.width, frame.height), found)
                yield frame.to_image()
    except FFmpegError as error:
        raise InputError(f"cut off or damaged: {error.strerror}") from error
    if found < max(listed, 1):
        raise InputError(f"cut off: {found} of {listed} frames are there")


def _refuse_large(size: tuple[int, int], frames: int) -> None:
    width, height = size
    if width * height > MAX_PICTURE:
        _too_many(f"{width}x{height} pixels", MAX_PICTURE)
    if width * height * frames > MAX_CLIP:
        _too_many(f"{frames} frames of {width}x{height} pixels", MAX_CLIP)


def _too_many(what: str, most: int) -> NoReturn:
    raise InputError(f"{what}, {BOMB.format(most=most)}")
