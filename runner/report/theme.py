"""The colours of light and dark pages; report.css has the same."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Theme:
    """Colours of a page: text, secondary text, rules, background, and one per solver (the first is sequential's)."""

    name: str
    ink: str
    muted: str
    rule: str
    paper: str
    colours: tuple[str, ...]

    @property
    def palette(self) -> tuple[str, ...]:
        """Every colour, in the same order in every theme."""
        return (self.ink, self.muted, self.rule, self.paper, *self.colours)

    def colour(self, index: int) -> str:
        """The colour of solver `index`; colours repeat when there are more solvers."""
        return self.colours[index % len(self.colours)]


LIGHT = Theme(
    "light",
    ink="#1c1c1a",
    muted="#6b6a65",
    rule="#e3e1db",
    paper="#fdfcfa",
    colours=("#77756e", "#2f6f9f", "#c4573a", "#4f7d4c", "#86579c", "#a87b12", "#1d8a80", "#bf5486"),
)

DARK = Theme(
    "dark",
    ink="#ecebe7",
    muted="#9b9a94",
    rule="#32322f",
    paper="#161614",
    colours=("#a3a199", "#74b0dd", "#ee8c6f", "#8fc08b", "#c39bd8", "#ddb650", "#5ec7bb", "#ec8fbb"),
)


def recoloured(svg: bytes, drawn: Theme, wanted: Theme) -> bytes:
    """Return a picture that was drawn in one theme's colours in another's: drawing is slow, and only colours differ."""
    swap = {old.encode(): new.encode() for old, new in zip(drawn.palette, wanted.palette, strict=True)}
    return re.sub(b"|".join(swap), lambda found: swap[found[0]], svg)
