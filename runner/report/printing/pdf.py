"""The report on paper: the same page with a picture of each clip in the place of its player, printed by Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from genrun.adapters.media import MediaError, read_middle_frame
from genrun.runner.report.build import render
from genrun.runner.report.data import Page, collect
from genrun.runner.report.printing.chromium import print_page
from genrun.runner.store.files import staged, temporary_folder
from genrun.runner.store.folder import RunFolder

MOST_ROWS = 24
"""Prompts and seeds that are printed with their clips."""

ASSETS = "assets"
LARGEST_PX = 480
PIXELATED_PX = 160
QUALITY = 88


def write_pdf(run: RunFolder, program: Path, target: Path) -> None:
    """Print a run's report.

    Args:
        run: whose report has been written.
        program: Chromium.
        target: the PDF, absolute; whole or not at all.

    Raises:
        RunError: Chromium cannot print.
        StoreError: the run cannot be read, or the file cannot be written.
    """
    with staged(target) as temporary, temporary_folder(run.report_dir / "print") as folder:
        if (run.report_dir / ASSETS).is_dir():
            shutil.copytree(run.report_dir / ASSETS, folder / ASSETS)
        page = on_paper(collect(run, link_logs=False), run.report_dir, folder)
        pictures = frozenset(path.name for path in folder.glob(f"{ASSETS}/*"))
        html = folder / "index.html"
        html.write_bytes(render(page, pictures).encode("utf-8", "xmlcharrefreplace"))
        print_page(program, html, temporary)


def on_paper(page: Page, beside: Path, folder: Path) -> Page:
    """Return a page for print, of which the first clips are shown, and write their posters.

    Args:
        page: the page as it is for screens.
        beside: the folder that its addresses start from.
        folder: where the page for print will lie.
    """
    rows = page.clips["rows"]
    shown = {**page.clips, "rows": rows[:MOST_ROWS], "print": {"rows": min(len(rows), MOST_ROWS), "of": len(rows)}}
    posters: dict[str, str] = {}

    def poster(address: str) -> str:
        if address not in posters:
            posters[address] = _write_poster(beside / unquote(address), folder, f"poster-{len(posters)}")
        return posters[address]

    return replace(page, clips=_with_addresses(shown, poster))


def _with_addresses(value: Any, change: Callable[[str], str]) -> Any:
    """Return nested data with every address of a media file (key "m") changed."""
    if isinstance(value, Mapping):
        return {
            key: change(inner) if key == "m" and inner else _with_addresses(inner, change)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_with_addresses(inner, change) for inner in value]
    return value


def _write_poster(media: Path, folder: Path, name: str) -> str:
    """Write the middle of a clip, or a picture, as a file that is small on paper; return its name.

    A file that is missing or damaged has none, and the page says so as it does of any media that it cannot load.
    """
    from PIL import Image

    try:
        image = Image.fromarray(read_middle_frame(media))
    except (MediaError, OSError):
        return "missing.png"
    if max(image.size) <= PIXELATED_PX:
        image.save(folder / f"{name}.png")
        return f"{name}.png"
    image.thumbnail((LARGEST_PX, LARGEST_PX))
    image.save(folder / f"{name}.jpg", quality=QUALITY)
    return f"{name}.jpg"
