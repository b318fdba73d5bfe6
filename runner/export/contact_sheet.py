"""Contact sheets: a row for each prompt and seed, a column for each cell, the middle frame of each clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from genrun.runner.export.filenames import slug

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

    from genrun.runner.job.plan import WorkItem

THUMB = 256
"""Longer side of a picture on the sheet, in pixels."""

ROWS = 20
"""Rows of one sheet: taller ones are opened by few programs."""

GALLERY_COLUMNS = 5
"""Columns where there is one cell only, and prompts follow each other as on film."""

MARGIN, CAPTION, HEADING = 8, 34, 26
INK, QUIET, PAPER = (24, 24, 27), (113, 113, 122), (255, 255, 255)


@dataclass(frozen=True)
class Tile:
    """A picture and what is written below it; None for one that was not made."""

    path: Path | None
    caption: str


def sheets(items: Sequence[WorkItem], media: Mapping[str, Path]) -> list[np.ndarray]:
    """Draw the contact sheets of a run.

    Args:
        items: the plan.
        media: item id -> its picture or clip; items without one leave a gap.

    Returns:
        Pictures: uint8, (H, W, 3), RGB, of at most `ROWS` rows.
    """
    heads, grid = _grid(items, media)
    return [_draw(heads, grid[start : start + ROWS]) for start in range(0, len(grid), ROWS)]


def _grid(items: Sequence[WorkItem], media: Mapping[str, Path]) -> tuple[list[str], list[list[Tile | None]]]:
    """Return the cells' headings, and rows of tiles; None where a cell has no such item."""
    cells = list(dict.fromkeys(tuple(item.axes.values()) for item in items))
    if len(cells) == 1:
        tiles: list[Tile | None] = [Tile(media.get(item.id), _caption(item)) for item in items]
        return [], [tiles[start : start + GALLERY_COLUMNS] for start in range(0, len(tiles), GALLERY_COLUMNS)]
    rows: dict[tuple[str, str | None, int, str], dict[tuple[str, ...], Tile]] = {}
    for item in items:
        row = rows.setdefault((item.prompt, item.negative_prompt, item.seed, item.own), {})
        row[tuple(item.axes.values())] = Tile(media.get(item.id), _caption(item))
    grid = [[row.get(cell) for cell in cells] for row in rows.values()]
    return [", ".join(cell) for cell in cells], grid


def _caption(item: WorkItem) -> str:
    # Line breaks and control characters of a prompt would leave the tile.
    return f"{' '.join(item.prompt.split())} · {item.seed}"


def _draw(heads: Sequence[str], grid: Sequence[Sequence[Tile | None]]) -> np.ndarray:
    import numpy as np
    from PIL import Image, ImageDraw

    pictures = [[None if tile is None else _thumb(tile.path) for tile in row] for row in grid]
    found = [picture for row in pictures for picture in row if picture is not None]
    width = max((picture.width for picture in found), default=THUMB)
    height = max((picture.height for picture in found), default=THUMB)
    columns, top = max(len(row) for row in grid), HEADING if heads else 0
    size = (
        MARGIN + columns * (width + MARGIN),
        MARGIN + top + len(grid) * (height + CAPTION + MARGIN),
    )
    sheet = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(sheet), _font()
    for column, head in enumerate(heads):
        draw.text((MARGIN + column * (width + MARGIN), MARGIN), _fitting(head, font, width), INK, font)
    for row, tiles in enumerate(grid):
        for column, tile in enumerate(tiles):
            if tile is None:
                continue
            x, y = MARGIN + column * (width + MARGIN), MARGIN + top + row * (height + CAPTION + MARGIN)
            picture = pictures[row][column]
            if picture is None:
                draw.rectangle((x, y, x + width - 1, y + height - 1), outline=QUIET)
                draw.text((x + MARGIN, y + MARGIN), "not made", QUIET, font)
            else:
                sheet.paste(picture, (x, y))
            draw.text((x, y + height + 4), _fitting(tile.caption, font, width), QUIET, font)
    return np.asarray(sheet)


def _font() -> FreeTypeFont:
    import matplotlib
    from PIL import ImageFont

    # Pillow's own knows Latin letters only; this one Greek, Cyrillic, Arabic and many signs as well.
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), 12)


def _thumb(path: Path | None) -> Image | None:
    from PIL import Image

    from genrun.adapters.media import read_middle_frame

    if path is None:
        return None
    picture = Image.fromarray(read_middle_frame(path))
    scale = THUMB / max(picture.size)
    sides = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
    # Small pictures are enlarged in whole pixels, as blurring would change what they show.
    return picture.resize(sides, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)


def _fitting(text: str, font: FreeTypeFont, width: int) -> str:
    """Cut a text to a width in pixels."""
    text = "".join(char if char.isprintable() else " " for char in text) or slug(text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
