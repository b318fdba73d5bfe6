"""A comparison written down: as tables, as JUnit XML, which CI systems show, and as a figure.

A gate that failed is a `failure`, one that is incomplete an `error`. Cells without gates have one case that is skipped.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from html import escape as escape_html
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from genrun.runner import numbers
from genrun.runner.compare.results import CellComparison, Comparison, Difference
from genrun.runner.errors import UsageError
from genrun.runner.job.schema import COSTS
from genrun.runner.numbers import ABSENT
from genrun.runner.numbers import table as latex_table
from genrun.runner.store.nights import GateResult

DIFFERENCES = ("cell", "metric", "n", "baseline", "candidate", "difference", "d", "prompts +/=/-", "")
GATES = ("gate", "cell", "limit", "measured", "n", "")
WORST = ("prompt", "seed", "baseline", "candidate", "difference")
RIGHT = ("n", "baseline", "candidate", "d", "prompts +/=/-", "seed", "limit")
"""Columns that are aligned to the right."""

SCORES = "genrun score RUN measures them."

MARKS = {"failed": "FAILED", "incomplete": "incomplete", "passed": "passed"}
SYMBOLS = {"passed": "✅", "failed": "❌", "incomplete": "⚠️"}

# What Markdown, or GitHub's reading of it (mentions, links of bare addresses), takes for more than text.
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#!|~&@:]|(?<=www)\.)")
# Control characters, line separators, and marks that turn the direction of text.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def headline(found: Comparison) -> str:
    """Say what came of it, in one sentence."""
    gates = found.gates
    counts = {state: sum(gate.state == state for _, gate in gates) for state in MARKS}
    if not gates:
        if found.state == "passed":
            return "Not judged: no gates are set."
        has_costs = any(each.own.n for cell in found.cells for each in cell.differences)
        nothing = "Nothing was compared: none of these items are done on both sides."
        return f"Only costs were compared: no pictures are scored. {SCORES}" if has_costs else nothing
    parts = [f"{count} {state}" for state, count in counts.items() if count]
    return f"{len(gates)} gates: {', '.join(parts)}."


def sentence(cell: CellComparison, gate: GateResult) -> str:
    """Say how a gate was judged: "ropa K=8: psnr drop of 1.20 dB [0.90, 1.50], allowed 0.500 dB"."""
    if gate.value is None:
        return f"{cell.label}: {gate.metric} {gate.rule} {gate.limit}: {gate.reason}"
    what = {"max": "is", "min": "is", "max_drop": "drop of", "max_rise": "rise of"}[gate.rule]
    bound = {"max": "at most", "min": "at least"}.get(gate.rule, "allowed")
    return f"{cell.label}: {gate.metric} {what} {measured(cell, gate)}, {bound} {limit(cell, gate)}"


def measured(cell: CellComparison, gate: GateResult) -> str:
    """Write the number that a gate saw, with its interval."""
    style = _style(cell.differences, gate.metric)
    return f"{_styled(gate.value, style)} {_interval(gate.low, gate.high, style)}".rstrip()


def limit(cell: CellComparison, gate: GateResult) -> str:
    """Write the limit in the metric's own units, and as written where that is a percentage of something."""
    text = _styled(gate.threshold, _style(cell.differences, gate.metric))
    return f"{text} ({gate.limit})" if isinstance(gate.limit, str) and gate.limit != text else text


def difference_rows(found: Comparison) -> list[list[str]]:
    """Return a row for each cell and metric; parts of metrics only where a gate looks at them."""
    return [difference_row(cell, each) for cell in found.cells for each in cell.differences if is_shown(cell, each)]


def is_shown(cell: CellComparison, found: Difference) -> bool:
    """Return True for the metrics that tables list: whole ones, and parts that a gate looks at."""
    return "." not in found.metric.removeprefix("drift.") or found.metric in {gate.metric for gate in cell.gates}


def difference_row(cell: CellComparison, found: Difference) -> list[str]:
    """Return one metric of a cell, as the columns `DIFFERENCES`."""
    mean = found.difference or found.own
    value = "" if found.difference is None else _styled(mean.value, found.style, signed=True)
    has_prompts = found.difference is not None and not found.difference.is_of_set
    verdict = {"unclear": "", "unmeasured": ""}.get(found.verdict, found.verdict)
    candidate = found.own.value if found.difference is None else found.candidate
    return [
        cell.label,
        found.metric,
        str(mean.n) + (f" of {mean.n + mean.missing}" if mean.missing else ""),
        _styled(found.baseline, found.style),
        _styled(candidate, found.style),
        f"{value} {_interval(mean.low, mean.high, found.style)}".strip(),
        ABSENT if found.effect is None else f"{found.effect:+.2f}",
        f"{found.wins}/{found.ties}/{found.losses}" if has_prompts else "",
        verdict,
    ]


def gate_rows(found: Comparison) -> list[list[str]]:
    """Return a row for each gate, the worst first, as the columns `GATES`."""
    return [
        [
            MARKS[gate.state],
            cell.label,
            f"{gate.metric} {gate.rule} {gate.limit}",
            measured(cell, gate),
            str(gate.n),
            gate.reason,
        ]
        for cell, gate in found.gates
    ]


def worst_metric(found: Comparison, named: str | None = None) -> str | None:
    """Choose the metric whose worst pairs are shown: as named, that of the first failed gate, or the first with any."""
    if named is not None:
        return named
    failed = [gate.metric for _, gate in found.gates if gate.state == "failed"]
    some = [each.metric for cell in found.cells for each in cell.differences if each.worst and each.metric not in COSTS]
    return next((metric for metric in [*failed, *some] if metric in some), None)


def worst_rows(found: Difference) -> list[list[str]]:
    """Return a row for each of the worst pairs, as the columns `WORST`."""
    return [
        [
            pair.prompt,
            str(pair.seed),
            *(_styled(value, found.style) for value in (pair.baseline.value, pair.candidate.value, pair.difference)),
        ]
        for pair in found.worst
    ]


def markdown(found: Comparison) -> str:
    """Write the comparison as Markdown; prompts and paths stay text, whatever they hold."""
    against = "no baseline" if found.baseline is None else f"baseline {_code(found.baseline)}"
    if found.by is not None:
        against = f"cells by {escape(found.by)}"
    metric = worst_metric(found)
    is_judged = bool(found.gates) or found.state != "passed"
    parts = [
        f"## {SYMBOLS[found.state]} genrun compare: {found.state}" if is_judged else "## genrun compare: not judged",
        f"{_code(found.candidate)}, {against}. {escape(headline(found))}",
        "\n".join(f"- {SYMBOLS[gate.state]} {escape(sentence(cell, gate))}" for cell, gate in found.gates),
        _table(DIFFERENCES, difference_rows(found)),
        *(
            _worst_pairs(cell.label, each)
            for cell in found.cells
            for each in cell.differences
            if each.metric == metric and each.worst
        ),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def latex(found: Comparison) -> str:
    """Write the differences as a LaTeX table."""
    share = f"{100 * found.confidence:g}%"
    against = dict.fromkeys(cell.baseline_label for cell in found.cells if cell.baseline_label)
    caption = f"Paired differences from {'; '.join(against) or 'nothing'}" if found.cells else "Nothing compared"
    return latex_table(
        DIFFERENCES[:-1],
        [row[:-1] for row in difference_rows(found)],
        right=RIGHT,
        caption=f"{caption}, with {share} intervals over prompts and seeds.",
    )


def html(found: Comparison) -> str:
    """Write the differences, and how the gates were judged, as HTML; labels stay text, whatever they hold."""
    rows = [f"<tr>{''.join(f'<td>{escape_html(cell)}</td>' for cell in row)}</tr>" for row in difference_rows(found)]
    head = "".join(f"<th>{escape_html(column)}</th>" for column in DIFFERENCES)
    judged = "".join(f"<li>{MARKS[gate.state]}: {escape_html(sentence(cell, gate))}</li>" for cell, gate in found.gates)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f"<p>{escape_html(headline(found))}</p>{f'<ul>{judged}</ul>' if judged else ''}{table}"


def escape(text: str) -> str:
    """Return a text that Markdown shows as it is, on one line."""
    line = _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)
    return _SPECIAL.sub(r"\\\1", line).replace("\\<", "&lt;").replace("\\>", "&gt;").replace("\\&", "&amp;")


def _worst_pairs(label: str, found: Difference) -> str:
    rows = [
        [*row, pair.baseline.media or "", pair.candidate.media or ""]
        for row, pair in zip(worst_rows(found), found.worst, strict=True)
    ]
    table = _table((*WORST, "baseline's clip", "candidate's clip"), rows)
    return f"<details><summary>Worst pairs: {escape(label)}, {escape(found.metric)}</summary>\n\n{table}\n\n</details>"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---:" if column in RIGHT else "---" for column in columns]
    lines = [[escape(column) for column in columns], rule, *([escape(_short(cell)) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _short(text: str, width: int = 200) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _styled(value: float | None, style: str, *, signed: bool = False) -> str:
    if value is None:
        return ABSENT
    return ("+" if signed and value > 0 else "") + numbers.styled(value, style)


def _interval(low: float | None, high: float | None, style: str) -> str:
    if low is None or high is None:
        return ""
    # Also where both ends are equal: "[0, 0]" says that every pair agrees.
    return f"[{', '.join(_styled(end, style).removesuffix(' dB') for end in (low, high))}]"


def _style(differences: Iterable[Difference], metric: str) -> str:
    return next((each.style for each in differences if each.metric == metric), "number")


_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(found: Comparison, name: str = "genrun compare") -> bytes:
    """Write a comparison as an XML document."""
    root = Element("testsuites", {"name": name, **_counts(found.cells)})
    for cell in found.cells:
        suite = SubElement(root, "testsuite", {"name": _text(cell.label), **_counts([cell])})
        properties = SubElement(suite, "properties")
        for key, value in (("baseline", found.baseline or ""), ("candidate", found.candidate)):
            SubElement(properties, "property", {"name": key, "value": _text(value)})
        for gate in cell.gates:
            _case(suite, cell, gate)
        if not cell.gates:
            case = SubElement(suite, "testcase", {"classname": _text(cell.label), "name": "no gates"})
            SubElement(case, "skipped", {"message": "no gates are set for this cell"})
    indent(root)
    return tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _case(suite: Element, cell: CellComparison, gate: GateResult) -> None:
    name = f"{gate.metric} {gate.rule} {gate.limit}"
    case = SubElement(suite, "testcase", {"classname": _text(cell.label), "name": _text(name)})
    said = _text(sentence(cell, gate))
    kind = {"failed": "failure", "incomplete": "error"}.get(gate.state)
    if kind is None:
        SubElement(case, "system-out").text = said
    else:
        SubElement(case, kind, {"message": said, "type": gate.state}).text = _text(gate.reason)


def _counts(cells: tuple[CellComparison, ...] | list[CellComparison]) -> dict[str, str]:
    states = [gate.state for cell in cells for gate in cell.gates]
    without = sum(not cell.gates for cell in cells)
    return {
        "tests": str(len(states) + without),
        "failures": str(states.count("failed")),
        "errors": str(states.count("incomplete")),
        "skipped": str(without),
    }


def _text(text: str) -> str:
    """Replace the characters that XML cannot hold."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


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
