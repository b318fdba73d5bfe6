"""Clips and pictures in other formats, written by imageio: gif, webp and webm, and single frames."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

WEBM_CRF = 24
"""Of VP9, where 15 to 35 is usual: about the size and quality of x264 at 18."""

WEBP_QUALITY = 90

FORMATS: Mapping[str, str] = {"gif": ".gif", "webp": ".webp", "webm": ".webm"}
"""Format -> suffix of its file."""

CLIPS_ONLY = ("gif", "webm")


def convert(path: Path, frames: np.ndarray, fps: float) -> None:
    """Write frames in the format that the suffix of `path` names.

    Args:
        path: ends in .gif, .webp, .webm or .png; overwritten.
        frames: uint8, (T, H, W, 3), RGB; T = 1 for a picture.
        fps: frames a second.

    Raises:
        OSError: the file cannot be written.
    """
    import imageio.v3 as iio

    options = _options(path.suffix, fps, len(frames))
    iio.imwrite(path, frames if len(frames) > 1 else frames[0], **options)


def _options(suffix: str, fps: float, count: int) -> dict[str, Any]:
    if suffix == ".webm":
        # Sizes that are no multiple of 16 stay as they are, and the quality is constant: no bit rate (-b:v 0).
        quality = ["-crf", str(WEBM_CRF), "-b:v", "0"]
        return {
            "plugin": "FFMPEG",
            "fps": fps,
            "codec": "libvpx-vp9",
            "macro_block_size": 1,
            "ffmpeg_log_level": "error",
            "output_params": quality,
        }
    options: dict[str, Any] = {"plugin": "pillow"}
    if count > 1:
        options |= {"duration": 1000 / fps, "loop": 0}
    return options | ({"quality": WEBP_QUALITY} if suffix == ".webp" else {})
