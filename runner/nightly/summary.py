"""One line that says how a night went."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from genrun.runner.compare.format import sentence
from genrun.runner.compare.results import Comparison
from genrun.runner.history.night import Night
from genrun.runner.job.schema import COSTS

WORDS = {"passed": "passed", "failed": "FAILED", "incomplete": "incomplete", "interrupted": "interrupted"}
SHOWN = 3


def summary(night: Night, judged: Comparison | None) -> str:
    """Return one line: state, gates, items, what changed since last night, and what was out of the ordinary."""
    parts = [
        f"{night.job} {night.night}: {WORDS.get(night.state, night.state)}",
        _items(night),
        *([_gates(judged)] if judged is not None and judged.gates else []),
        *_changes(night),
        *night.marks,
    ]
    return one_line("; ".join(filter(None, parts)) + ".")


def changes(found: Comparison) -> dict[str, str]:
    """What differs from the baseline of a comparison beyond chance: "cell metric" -> "better" or "worse"."""
    return {
        f"{cell.label} {each.metric}": each.verdict
        for cell in found.cells
        for each in cell.differences
        if each.verdict in ("better", "worse") and each.metric != "elapsed_s" and "." not in each.metric
    }


def one_line(text: str) -> str:
    """Text without line breaks and other control characters."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _items(night: Night) -> str:
    text = f"{night.done} of {night.items} items"
    return f"{text}, {night.failed} failed" if night.failed else text


def _gates(found: Comparison) -> str:
    """The gates that did not pass, the first of them in words."""
    gates = found.gates
    bad = [sentence(cell, gate) for cell, gate in gates if gate.state == "failed"]
    open_ = [sentence(cell, gate) for cell, gate in gates if gate.state == "incomplete"]
    if not bad and not open_:
        return f"all {len(gates)} gates passed"
    if not bad and found.baseline is None:
        name = Path(found.candidate).parent.name
        return f"{len(open_)} of {len(gates)} gates are open without a baseline (genrun pin {name})"
    parts = []
    for name, sentences in (("failed", bad), ("open", open_)):
        if sentences:
            parts.append(f"{len(sentences)} of {len(gates)} gates {name}: {_few(sentences)}")
    return "; ".join(parts)


def _changes(night: Night) -> list[str]:
    if night.previous is None:
        return []
    if night.identical is not None and night.identical == night.done == night.items:
        return ["since last night nothing changed: all files are identical"]
    told = [f"{name} {verdict}" for name, verdict in night.changed.items() if name.split()[-1] not in COSTS]
    costs = [f"{name} {verdict}" for name, verdict in night.changed.items() if name.split()[-1] in COSTS]
    found = [*told, *costs]
    return [f"since last night: {_few(found)}" if found else "since last night no clear change"]


def _few(sentences: Sequence[str]) -> str:
    more = f" and {len(sentences) - SHOWN} more" if len(sentences) > SHOWN else ""
    return ", ".join(sentences[:SHOWN]) + more
