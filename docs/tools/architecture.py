"""Draws docs/architecture.svg from the import graph: a box for each package, an arrow from a package to one that it imports.

Packages that import each other stand in one frame. An arrow that follows from others (A imports B, and B imports C) is left
out. Numbers mark the stages of a prompt's way. Run `make docs`; a test tells when the picture is stale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

import grimp

PICTURE = Path(__file__).parents[1] / "architecture.svg"
STAGES = (
    "runner.job",
    "runner.store",
    "runner.submit",
    "runner.launch",
    "runner.worker",
    "runner.score",
    "runner.compare",
    "runner.report",
)
"""A prompt's way, in its order."""
COLOURS = {"runner": "#e8eaf6", "slurm": "#fff3e0", "adapters": "#e0f2f1", "solvers": "#fce4ec"}
"""Of the top-level folders."""
OTHER = "#eceff1"
BOX, TALL, GAP, PAD, RISE, MARGIN = 104, 32, 16, 14, 34, 22
PER_ROW = 5
"""Boxes in a row of a frame."""

Edges = Mapping[str, frozenset[str]]
Group = tuple[str, ...]
"""A package, or all those that import each other."""


@dataclass(frozen=True)
class Place:
    """Position of a group in the picture: its left and upper edge, and its size."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        """The horizontal middle."""
        return self.x + self.width / 2


def package_of(module: str) -> str:
    """Return the package that a module counts as: a folder at the top, or one below runner; "" for what is above them."""
    parts = module.split(".")[1:]
    if parts[:1] == ["runner"]:
        return ".".join(parts[:2]) if len(parts) > 1 else ""
    return parts[0] if parts else ""


def read() -> dict[str, frozenset[str]]:
    """Return which packages each package imports."""
    graph = grimp.build_graph("genrun", cache_dir=None)
    imports: dict[str, set[str]] = {}
    for module in sorted(graph.modules):
        if package := package_of(module):
            found = {package_of(other) for other in graph.find_modules_directly_imported_by(module)}
            imports.setdefault(package, set()).update(found - {package, ""})
    return {package: frozenset(found) for package, found in imports.items()}


def grouped(edges: Edges) -> dict[Group, set[Group]]:
    """Return the groups, and which groups each imports by whatever way."""
    reached = {package: set(targets) for package, targets in edges.items()}
    for middle in edges:
        for package in edges:
            if middle in reached[package]:
                reached[package] |= reached[middle]
    group = {p: tuple(sorted({p} | {q for q in reached[p] if p in reached[q]}, key=_order)) for p in edges}
    return {own: {group[q] for q in reached[own[0]]} - {own} for own in group.values()}


def _order(package: str) -> tuple[int, str]:
    return STAGES.index(package) if package in STAGES else len(STAGES), package


def essential(reached: Mapping[Group, set[Group]]) -> Iterator[tuple[Group, Group]]:
    """Give the imports between groups that do not follow from others."""
    for own, targets in sorted(reached.items()):
        for target in sorted(targets):
            if not any(target in reached[between] for between in targets):
                yield own, target


def levels(reached: Mapping[Group, set[Group]]) -> list[list[Group]]:
    """Return the groups in rows: each as low as what imports it allows, the command line first."""

    def depth(group: Group) -> int:
        return 1 + max((depth(other) for other in reached if group in reached[other]), default=-1)

    found: dict[int, list[Group]] = {}
    for group in sorted(reached, key=lambda group: [_order(package) for package in group]):
        found.setdefault(depth(group), []).append(group)
    return [found[level] for level in sorted(found)]


def draw() -> str:
    """Return the picture as SVG."""
    reached = grouped(read())
    rows = levels(reached)
    width = max(sum(_size(group)[0] + GAP for group in row) for row in rows) - GAP + 2 * MARGIN
    places: dict[Group, Place] = {}
    y: float = MARGIN
    for row in rows:
        sizes = [_size(group) for group in row]
        tallest = max(high for _, high in sizes)
        x = (width - sum(wide + GAP for wide, _ in sizes) + GAP) / 2
        for group, (wide, high) in zip(row, sizes, strict=True):
            places[group] = Place(x, y + (tallest - high) / 2, wide, high)
            x += wide + GAP
        y += tallest + RISE
    arrows = [_arrow(places[own], places[target], own, target) for own, target in essential(reached)]
    drawn = [line for group, place in places.items() for line in _group(group, place)]
    return "\n".join([_head(width, y - RISE + MARGIN), *arrows, *drawn, "</svg>", ""])


def _size(group: Group) -> tuple[int, int]:
    if len(group) == 1:
        return BOX, TALL
    rows = -(-len(group) // PER_ROW)
    return min(len(group), PER_ROW) * (BOX + GAP) - GAP + 2 * PAD, rows * (TALL + GAP) - GAP + 2 * PAD


def _head(width: float, height: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" font-family="system-ui, sans-serif">\n'
        "<title>Packages of genrun and what they import</title>\n"
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#78909c"/></marker></defs>\n'
        f'<rect width="{width:g}" height="{height:g}" rx="8" fill="#fff"/>'
    )


def _arrow(start: Place, end: Place, own: Group, target: Group) -> str:
    y = start.y + start.height
    bend = (end.y - y) / 2
    path = f"M{start.middle:g} {y:g}C{start.middle:g} {y + bend:g} {end.middle:g} {end.y - bend:g} {end.middle:g} {end.y:g}"
    title = f"<title>{escape(', '.join(own))} imports {escape(', '.join(target))}</title>"
    return f'<path d="{path}" fill="none" stroke="#90a4ae" stroke-width="1.2" marker-end="url(#tip)">{title}</path>'


def _group(group: Group, place: Place) -> Iterator[str]:
    if len(group) == 1:
        yield _box(group[0], place.x, place.y)
        return
    yield (
        f'<rect x="{place.x:g}" y="{place.y:g}" width="{place.width:g}" height="{place.height:g}" rx="8" '
        'fill="#f5f6fb" stroke="#b0bec5" stroke-dasharray="4 3"/>'
    )
    for number, package in enumerate(group):
        row, column = divmod(number, PER_ROW)
        yield _box(package, place.x + PAD + column * (BOX + GAP), place.y + PAD + row * (TALL + GAP))


def _box(package: str, x: float, y: float) -> str:
    stage = STAGES.index(package) + 1 if package in STAGES else None
    parts = [
        f'<rect x="{x:g}" y="{y:g}" width="{BOX}" height="{TALL}" rx="5" '
        f'fill="{COLOURS.get(package.partition(".")[0], OTHER)}" stroke="{"#3f51b5" if stage else "#b0bec5"}"/>',
        _text(package.removeprefix("runner."), x + BOX / 2, y + TALL / 2 + 4.5, 13, "#263238", bold=stage is not None),
    ]
    if stage is not None:
        parts += [f'<circle cx="{x:g}" cy="{y:g}" r="9" fill="#3f51b5"/>', _text(str(stage), x, y + 4, 11, "#fff")]
    return "".join(parts)


def _text(words: str, x: float, y: float, size: int, colour: str, *, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    style = f'font-size="{size}"{weight} text-anchor="middle" fill="{colour}"'
    return f'<text x="{x:g}" y="{y:g}" {style}>{escape(words)}</text>'


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
