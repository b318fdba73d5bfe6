"""A comparison as a figure: the difference of each metric with its interval, a row for each cell."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from genrun.runner.compare.tables import is_shown
from genrun.runner.errors import UsageError

if TYPE_CHECKING:
    from genrun.runner.compare.results import Comparison, Difference

ROW_IN, PANEL_IN, HEAD_IN = 0.32, 2.6, 0.9
"""Height of a row, width of a panel, and height of what is above and below, in inches."""

MOST_PANELS = 8
"""Metrics that are drawn, in the order of the job."""


def draw(found: Comparison) -> Any:
    """Return a matplotlib figure with a panel for each metric that has a difference.

    Raises:
        UsageError: nothing was compared.
    """
    # Not pyplot: it would choose a window for the figure, and keep it.
    from matplotlib.figure import Figure

    panels: dict[str, list[tuple[str, Difference]]] = {}
    for cell in found.cells:
        for each in cell.differences:
            if is_shown(cell, each) and (each.difference or each.own).value is not None:
                panels.setdefault(each.metric, []).append((cell.label, each))
    chosen = list(panels.items())[:MOST_PANELS]
    if not chosen:
        raise UsageError("nothing was compared, so that there is nothing to draw.", remedy="genrun score measures it.")
    most = max(len(rows) for _, rows in chosen)
    figure = Figure(figsize=(1.6 + PANEL_IN * len(chosen), HEAD_IN + ROW_IN * most), layout="constrained")
    axes = figure.subplots(1, len(chosen), squeeze=False)[0]
    first = [label for label, _ in chosen[0][1]]
    for place, (metric, rows) in zip(axes, chosen, strict=True):
        has_labels = place is axes[0] or [label for label, _ in rows] != first
        _panel(place, metric, rows, has_labels=has_labels)
    return figure


def pdf(found: Comparison) -> bytes:
    """Return the figure as PDF, the same bytes for the same comparison."""
    return as_pdf(draw(found))


def as_pdf(figure: Any) -> bytes:
    """Return a figure as PDF with text that can be searched, and without the time."""
    from matplotlib import rc_context

    page = io.BytesIO()
    with rc_context({"pdf.fonttype": 42}):
        figure.savefig(page, format="pdf", metadata={"CreationDate": None})
    return page.getvalue()


def _panel(place: Any, metric: str, rows: list[tuple[str, Difference]], *, has_labels: bool) -> None:
    """Draw one metric: a dot and its interval for each cell, and a line at no difference."""
    is_difference = all(each.difference is not None for _, each in rows)
    for height, (_, each) in enumerate(rows):
        mean = each.difference or each.own
        colour = {"better": "#1b7f4b", "worse": "#b3261e"}.get(each.verdict, "#444444")
        if mean.low is not None and mean.high is not None:
            place.plot([mean.low, mean.high], [height, height], color=colour, linewidth=1.5)
        place.plot([mean.value], [height], "o", color=colour, markersize=4)
    if is_difference:
        place.axvline(0.0, color="#999999", linewidth=0.8, linestyle="--")
    # A dollar sign would begin a formula.
    labels = [label.replace("$", r"\$") for label, _ in rows]
    place.set_yticks(range(len(rows)), labels if has_labels else [""] * len(rows), fontsize=8)
    place.set_ylim(len(rows) - 0.5, -0.5)
    place.tick_params(axis="x", labelsize=7)
    place.set_title(f"{metric}{' (difference)' if is_difference else ''}".replace("$", r"\$"), fontsize=8)
