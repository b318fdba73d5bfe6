"""A comparison as JUnit XML, which CI systems show: a suite for each cell, a case for each gate.

A gate that failed is a `failure`, one that is incomplete an `error`. Cells without gates have one case that is skipped.
"""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from genrun.runner.compare.results import CellComparison, Comparison
from genrun.runner.compare.tables import sentence
from genrun.runner.store.nights import GateResult

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
