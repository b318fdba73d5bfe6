"""Where pictures are drawn: matplotlib as SVG in the colours of light and dark pages, transparent, text as text."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genrun.runner.report.theme import DARK, LIGHT, recoloured

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE_INCHES = (6.4, 4.3)
POINTS_PER_INCH = 72  # what SVG is drawn in, so that a pixel is a point
MARGINS = {"left": 0.13, "right": 0.985, "bottom": 0.115, "top": 0.975}
LETTER_POINTS = 6.4
FONT = "'DejaVu Sans'"
PAGE_FONT = "ui-sans-serif, system-ui, 'Segoe UI', 'Helvetica Neue', Inter, Arial, sans-serif"

_MARK = re.compile(
    rb' *<use xlink:href="(?P<what>#\w+)" x="(?P<x>[-.\d]+)" y="(?P<y>[-.\d]+)" style="(?P<style>[^"]*)"/>\n'
)
_MARKS = re.compile(_MARK.pattern + rb'(?: *<use [^>]* style="(?P=style)"/>\n)+')

Box = tuple[float, float, float, float]


def in_both_themes(pictures: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return pictures drawn in light colours as files of both themes: `NAME-light.svg`, `NAME-dark.svg`."""
    return {
        f"{name}-{theme.name}.svg": recoloured(svg, LIGHT, theme)
        for name, svg in pictures.items()
        for theme in (LIGHT, DARK)
    }


def draw(paint: Callable[..., None], *arguments: Any) -> bytes:
    """Return what `paint(figure, theme, *arguments)` draws, as SVG in light colours."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    theme = LIGHT
    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "genrun",
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "text.color": theme.ink,
        "axes.edgecolor": theme.rule,
        "axes.labelcolor": theme.muted,
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": theme.rule,
        "grid.linewidth": 0.7,
        "xtick.color": theme.rule,
        "ytick.color": theme.rule,
        "xtick.labelcolor": theme.muted,
        "ytick.labelcolor": theme.muted,
        "figure.facecolor": "none",
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=SIZE_INCHES, dpi=POINTS_PER_INCH)
        FigureCanvasSVG(figure)
        figure.subplots_adjust(**MARGINS)
        paint(figure, theme, *arguments)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _compact(buffer.getvalue()).replace(FONT.encode(), PAGE_FONT.encode())


def _compact(svg: bytes) -> bytes:
    """Say once what marks in a row have in common: a picture of thousands of dots is half as large."""
    return _MARKS.sub(lambda found: b'<g style="%s">\n%s</g>\n' % (found["style"], _MARK.sub(_placed, found[0])), svg)


def _placed(mark: re.Match[bytes]) -> bytes:
    return b'<use xlink:href="%s" x="%.2f" y="%.2f"/>\n' % (mark["what"], float(mark["x"]), float(mark["y"]))


def place_labels(axes: Axes, words: Sequence[tuple[str, str, float, float]]) -> None:
    """Write (label, colour, x, y) beside the points, each where it covers no other label or point."""
    points = [axes.transData.transform((x, y)) for _, _, x, y in words]
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    for (label, colour, _, _), (x, y) in zip(words, points, strict=True):
        width = LETTER_POINTS * len(safe(label))
        boxes = [
            ((dx, dy, side), (left, y + dy - 4, left + width, y + dy + 11))
            for dx, dy, side in (
                (10, 6, "left"),
                (-10, 6, "right"),
                (10, -16, "left"),
                (-10, -16, "right"),
                (10, 24, "left"),
            )
            for left in [x + dx if side == "left" else x + dx - width]
        ]
        (dx, dy, side), box = next((each for each in boxes if _is_free(each[1], taken, axes)), boxes[0])
        taken.append(box)
        axes.annotate(
            safe(label),
            (x, y),
            xycoords="figure pixels",
            xytext=(dx, dy),
            textcoords="offset pixels",
            color=colour,
            ha=side,
            fontweight="bold",
            annotation_clip=False,
            parse_math=False,
            zorder=5,
        )


def _is_free(box: Box, taken: Sequence[Box], axes: Axes) -> bool:
    frame = axes.get_window_extent()
    if box[0] < frame.x0 or box[1] < frame.y0 - 4 or box[2] > frame.x1 + 12 or box[3] > frame.y1 + 12:
        return False
    return all(box[2] < other[0] or other[2] < box[0] or box[3] < other[1] or other[3] < box[1] for other in taken)


def safe(label: str) -> str:
    """A label on one short line without control characters, which XML cannot hold."""
    words = "".join(char if char.isprintable() else " " for char in label)
    words = words if len(words) <= 40 else words[:39] + "…"
    return f"\u2009{words}" if words.startswith("_") else words  # matplotlib hides labels that start with "_"
