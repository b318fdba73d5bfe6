"""The axes along which ranks are arranged, the first the outermost."""

from __future__ import annotations

from collections.abc import Mapping

AXES = ("data", "time", "cfg", "ring", "ulysses")


def product(sizes: Mapping[str, object], prefix: str = "") -> str:
    """Name a product, without the factors beyond data and time that are 1: "data x time x ulysses = 2 x 2 x 4"."""
    shown = {axis: size for axis, size in sizes.items() if axis in ("data", "time") or size != 1}
    return f"{' x '.join(prefix + axis for axis in shown)} = {' x '.join(map(str, shown.values()))}"
