"""Numbers as people read them, in tables, messages and on pages; and tables as LaTeX."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

ABSENT = "–"
"""Stands where there is no number."""


def number(value: float) -> str:
    """Write three significant digits: 0.0123, 1.41, 127."""
    if value == 0:
        return "0"
    if abs(value) < 1e-4:
        return f"{value:.1e}"
    # Three digits of 999.5 and more are those of a thousand, which would be written 1.00e+03.
    if abs(value) >= 999.5:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")


def count(value: float) -> str:
    """Write a mean of counts: whole numbers as they are, others with one decimal."""
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def times(value: float) -> str:
    """Write a factor: 2.86×."""
    return f"{value:.2f}×"


def styled(value: float, style: str) -> str:
    """Write a metric's value in the metric's own style.

    Args:
        value: the number; a share is in 0..1.
        style: "number", "decibel" or "share".
    """
    if style == "share":
        return f"{100 * value:.1f}%".replace(".0%", "%")
    if style == "decibel":
        return f"{value:.1f} dB"
    return number(value)


def interval(low: float | None, high: float | None, style: str) -> str:
    """Write a 95% interval, "[0.0100, 0.0140]"; "" when there is none or its ends are equal."""
    if low is None or high is None or low == high:
        return ""
    return f"[{styled(low, style).removesuffix(' dB')}, {styled(high, style).removesuffix(' dB')}]"


_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "×": r"$\times$",
    "–": "--",
    "±": r"$\pm$",
}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Collection[str],
    caption: str,
    bold: Collection[tuple[int, int]] = (),
) -> str:
    """Return a table as LaTeX, which needs the package booktabs.

    Args:
        columns: headings.
        rows: cells.
        right: the columns to align to the right (numbers).
        caption: text below it.
        bold: (row, column) of the cells that are set in bold.
    """
    places = "".join("r" if column in right else "l" for column in columns)
    body = []
    for number, row in enumerate(rows):
        cells = [rf"\textbf{{{escape(cell)}}}" if (number, at) in bold else escape(cell) for at, cell in enumerate(row)]
        body.append(f"    {' & '.join(cells)} \\\\")
    return "\n".join(
        [
            "% Needs \\usepackage{booktabs}.",
            r"\begin{table}",
            r"  \centering",
            rf"  \begin{{tabular}}{{{places}}}",
            r"    \toprule",
            f"    {' & '.join(escape(column) for column in columns)} \\\\",
            r"    \midrule",
            *body,
            r"    \bottomrule",
            r"  \end{tabular}",
            rf"  \caption{{{escape(caption)}}}",
            r"\end{table}",
            "",
        ]
    )


def escape(text: str) -> str:
    """Return a text that LaTeX sets as it is, on one line."""
    line = _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)
    return "".join(_SPECIAL.get(letter, letter) for letter in line)
