"""Drawings of a solution for notebooks: SVG text, which needs no library and is sharp at any size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 420, 240, 48, 40, 28


@dataclass(frozen=True)
class Drawing:
    """A picture that a notebook shows as it is.

    Attributes:
        svg: the picture.
    """

    svg: str = field(repr=False)

    def _repr_svg_(self) -> str:
        return self.svg


def draw_fronts(fronts: Sequence[int]) -> Drawing:
    """Draw final states over rounds, beside the line of the sequential sampler.

    Args:
        fronts: the front after each round; the last one is N.
    """
    steps, rounds = fronts[-1], len(fronts)
    across, up = (WIDTH - LEFT - 12) / max(steps, rounds), (HEIGHT - BOTTOM - TOP) / steps

    def place(round_: int, front: int) -> str:
        return f"{LEFT + round_ * across:.1f},{HEIGHT - BOTTOM - front * up:.1f}"

    line = " ".join(place(index + 1, front) for index, front in enumerate(fronts))
    ground = HEIGHT - BOTTOM
    end = LEFT + rounds * across
    label = f"{rounds} rounds instead of {steps}" if rounds < steps else f"{rounds} rounds"
    return Drawing(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-label="Final states over rounds: {label}" style="font: 12px sans-serif">'
        f'<g fill="none" stroke="currentColor" stroke-opacity="0.5">'
        f'<path d="M{LEFT},{TOP} V{ground} H{WIDTH - 12}"/>'
        f'<polyline stroke-dasharray="4 4" points="{place(0, 0)} {place(steps, steps)}"/></g>'
        f'<polyline fill="none" stroke="#2a78b8" stroke-width="2" points="{place(0, 0)} {line}"/>'
        f'<g fill="currentColor"><text x="{LEFT - 6}" y="{TOP + 8}" text-anchor="end">{steps}</text>'
        f'<text x="{LEFT - 6}" y="{ground}" text-anchor="end">0</text>'
        f'<text x="{end:.1f}" y="{ground + 16}" text-anchor="middle">{rounds}</text>'
        f'<text x="{WIDTH - 12}" y="{ground + 32}" text-anchor="end">rounds (dashed: sequential)</text>'
        f'<text x="{LEFT - 6}" y="16">final states</text></g></svg>'
    )
