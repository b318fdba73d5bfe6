"""Tiny pipelines as folders, for whatever loads them."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from . import build


def save(family: str, root: Path) -> Path:
    """Save a tiny pipeline in float32 under `root`, unless it is there already; returns its folder."""
    folder = root / family
    if not folder.is_dir():
        # Copied, not linked: tests damage what they are given. Times are those of the copy.
        shutil.copytree(_made(family), folder, copy_function=shutil.copy)
    return folder


@cache
def _made(family: str) -> Path:
    """A folder of the family that nothing changes, made once in a process."""
    root = Path(tempfile.mkdtemp(prefix=f"tiny-{family}-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    build(family).save_pretrained(root / family)
    return root / family
