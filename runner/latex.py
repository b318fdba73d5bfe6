"""Tables as LaTeX, for papers: booktabs, and every text as it is."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

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
