"""A comparison as Markdown, for job summaries and comments of CI systems."""

from __future__ import annotations

import re
from collections.abc import Sequence

from genrun.runner.compare import format as formatting
from genrun.runner.compare.results import Comparison, Difference

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#!|~&@:]|(?<=www)\.)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
MARKS = {"passed": "✅", "failed": "❌", "incomplete": "⚠️"}


def markdown(found: Comparison) -> str:
    """Return the document; prompts and paths stay text, whatever they hold."""
    title = {"passed": "passed", "failed": "failed", "incomplete": "incomplete"}[found.state]
    against = "no baseline" if found.baseline is None else f"baseline {_code(found.baseline)}"
    if found.by is not None:
        against = f"cells by {escape(found.by)}"
    parts = [
        f"## {MARKS[found.state]} genrun compare: {title}",
        f"{_code(found.candidate)}, {against}. {escape(formatting.headline(found))}",
        "".join(
            f"- {MARKS[gate.state]} {escape(formatting.sentence(cell, gate))}\n" for cell, gate in found.gates
        ).rstrip(),
        _table(formatting.DIFFERENCES, formatting.difference_rows(found)),
    ]
    metric = formatting.worst_metric(found)
    parts += [
        _worst(cell.label, each)
        for cell in found.cells
        for each in cell.differences
        if each.metric == metric and each.worst
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    line = _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)
    return _SPECIAL.sub(r"\\\1", line).replace("\\<", "&lt;").replace("\\>", "&gt;").replace("\\&", "&amp;")


def _worst(label: str, found: Difference) -> str:
    rows = [
        [*row, pair.baseline.media or "", pair.candidate.media or ""]
        for row, pair in zip(formatting.worst_rows(found), found.worst, strict=True)
    ]
    table = _table((*formatting.WORST, "baseline's clip", "candidate's clip"), rows)
    return f"<details><summary>Worst pairs: {escape(label)}, {escape(found.metric)}</summary>\n\n{table}\n\n</details>"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---:" if column in formatting.RIGHT else "---" for column in columns]
    lines = [[escape(column) for column in columns], rule, *([escape(_short(cell)) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _short(text: str, width: int = 200) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"
