"""Tiny pipelines as folders, for whatever loads them."""

from pathlib import Path

from . import build


def save(family: str, root: Path) -> Path:
    """Save a tiny pipeline in float32 under `root`, unless it is there already; returns its folder."""
    folder = root / family
    if not folder.is_dir():
        build(family).save_pretrained(folder)
    return folder
