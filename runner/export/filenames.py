"""File names from a template such as `{index:03}_{prompt}_{seed}_{solver}`, safe whatever the prompts say."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

from genrun.registry import did_you_mean
from genrun.runner.errors import UsageError

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem

DEFAULT = "{index:04}_{name}_{seed}_{cell}"
FIELDS = ("index", "name", "prompt", "seed", "id", "solver", "model", "cell")
"""Fields of a template besides the axes of the matrix."""

PROMPT_LETTERS = 60
PART_BYTES = 200
"""Bytes of one part of a path: file systems take 255, and a suffix follows."""

_FORBIDDEN = {"", ".", ".."}


def name_items(items: Sequence[WorkItem], template: str = DEFAULT) -> dict[str, str]:
    """Give every item a name, relative and without a suffix; `/` in the template makes folders.

    Args:
        items: in the order of the plan, which `{index}` counts from 1.
        template: Python's format, with plain fields only: `FIELDS`, and axes of the matrix by their last part (`workers`
            of `solver.workers`) or in full with `_` for dots.

    Returns:
        Item id -> name.

    Raises:
        UsageError: the template names another field, leaves the folder, or gives two items one name.
    """
    formatter = _PlainFormatter()
    named: dict[str, str] = {}
    taken: dict[str, WorkItem] = {}
    for index, item in enumerate(items, 1):
        name = _safe_path(formatter.render(template, fields_of(item, index)), template)
        # Neither case nor composition counts: two names that differ by them are one file on macOS, or on Windows.
        other = taken.setdefault(normalize("NFC", normalize("NFD", name).casefold()), item)
        if other is not item:
            raise UsageError(
                f"--name {template!r}: items {other.id} and {item.id} would both be {name!r}.",
                remedy="Add what tells them apart, such as {index}, {seed}, {cell} or {id}.",
            )
        named[item.id] = name
    return named


def fields_of(item: WorkItem, index: int) -> dict[str, Any]:
    """Return what a template may name, made fit for a file name."""
    axes = {axis: slug(label) for axis, label in item.axes.items()}
    by_axis = {axis.rpartition(".")[2]: label for axis, label in axes.items()}
    in_full = {axis.replace(".", "_"): label for axis, label in axes.items()}
    kind = slug(str(item.solver.get("kind", "")))
    return {
        "solver": kind,
        "model": slug(str(item.model.get("adapter", ""))),
        **by_axis,
        **in_full,
        "index": index,
        "prompt": slug(item.prompt, PROMPT_LETTERS),
        "name": slug(str(item.row.get("name") or item.prompt), PROMPT_LETTERS),
        "seed": item.seed,
        "id": item.id,
        "cell": "-".join(axes.values()) or kind,
    }


def slug(text: str, length: int = 80) -> str:
    """Return the letters and digits of a text, of any script, and `-` for everything between them."""
    words = "".join(char if char.isalnum() else " " for char in text).split()
    return "-".join(words)[:length].strip("-") or "untitled"


class _PlainFormatter(string.Formatter):
    """Python's format without attributes, indices and conversions, by which a template could reach anything."""

    def render(self, template: str, fields: Mapping[str, Any]) -> str:
        """Fill a template in.

        Raises:
            UsageError: it cannot be meant.
        """
        try:
            return self.vformat(template, (), fields)
        except (ValueError, IndexError, KeyError) as error:
            raise UsageError(f"--name {template!r}: {error}.", remedy=f"For example: --name '{DEFAULT}'.") from error

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Return a field by its plain name. Raises UsageError."""
        if field_name not in kwargs:
            known = ", ".join(kwargs)
            raise UsageError(
                f"--name: no field {field_name!r}.{did_you_mean(field_name, kwargs)}", remedy=f"There are: {known}."
            )
        return kwargs[field_name], field_name

    def convert_field(self, value: Any, conversion: str | None) -> Any:
        """Refuse `!r` and the like."""
        if conversion is not None:
            raise ValueError(f"no conversion (!{conversion}) here")
        return value

    def format_field(self, value: Any, format_spec: str) -> str:
        """Format a field, no wider than a file name can be."""
        digits = "".join(char if char.isdigit() else " " for char in format_spec).split()
        if any(len(number) > 3 or int(number) > PART_BYTES for number in digits):
            raise ValueError(f"{format_spec!r} is wider than a file name")
        return super().format_field(value, format_spec)


def _safe_path(name: str, template: str) -> str:
    parts = name.split("/")
    for part in parts:
        if (
            part in _FORBIDDEN
            or part.startswith(("~", "."))
            or any(ord(char) < 32 or char in '\\:*?"<>|' for char in part)
        ):
            raise UsageError(f"--name {template!r}: {name!r} is no file name.", remedy="It is relative to --to.")
        if len(part.encode(errors="surrogateescape")) > PART_BYTES:
            raise UsageError(
                f"--name {template!r}: {part[:40]!r}... is too long.", remedy=f"At most {PART_BYTES} bytes."
            )
    return name
