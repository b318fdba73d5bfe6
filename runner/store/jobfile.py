"""job.yaml: the resolved job of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genrun.runner.store.reading import read_bytes, reading

SHAPES: dict[str, Any] = {
    "name": str,
    "model": dict | str,
    "matrix": dict | list,
    **dict.fromkeys(("output", "launch", "sampling", "parallel", "nightly"), dict),
    **dict.fromkeys(("score", "seeds"), list),
    "gates": dict,
}
"""Sections of a stored job."""

DEEPEST = 100
LARGEST = 2_000_000
"""Levels and values of a stored job; those of job files are fewer."""

TOO_DEEP = f"nested deeper than {DEEPEST} levels"


def read_job(path: Path) -> dict[str, Any]:
    """Read a stored job.

    Raises:
        StoreError: it cannot be read, or is no job.
    """
    import yaml

    with reading(path):
        try:
            document = _parsed(read_bytes(path).decode("utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"no YAML: {getattr(error, 'problem', None) or type(error).__name__}") from error
        _check_shape(document)
        return document


def _parsed(text: str) -> Any:
    """Parse YAML in C, where PyYAML has that: a job of thousands of prompts takes seconds otherwise."""
    import yaml

    fast = getattr(yaml, "CSafeLoader", None)
    if fast is not None:
        try:
            return _loaded(text, fast)
        except yaml.YAMLError:
            # Halves of surrogate pairs, which prompts may hold, are read and written by the loader in Python alone.
            pass
    return _loaded(text, yaml.SafeLoader)


def _loaded(text: str, loader: Any) -> Any:
    import yaml

    depth = aliases = 0
    # First by its events alone, which bounds what the loader gets to see.
    for event in yaml.parse(text, Loader=loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        aliases += isinstance(event, yaml.AliasEvent)
        if depth > DEEPEST:
            raise ValueError(TOO_DEEP)
    document = yaml.load(text, Loader=loader)
    if aliases:
        _check_unfolded(document)
    return document


def _check_unfolded(document: Any) -> None:
    """Refuse what contains itself, or is larger than any job once its aliases are written out."""
    found, count = [(document, 1)], 0
    while found:
        value, depth = found.pop()
        below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        count += len(below)
        if depth > DEEPEST or count > LARGEST:
            raise ValueError(TOO_DEEP if depth > DEEPEST else f"holds more than {LARGEST:,} values")
        found += [(each, depth + 1) for each in below]


def _check_shape(document: Any) -> None:
    """Refuse a document that is no job at all; what its sections say in detail is looked at by whoever restores it."""
    if not isinstance(document, dict):
        raise TypeError(f"holds {type(document).__name__}, not a job")
    if "name" not in document:
        raise KeyError("name")
    for name, kind in SHAPES.items():
        if document.get(name) is not None and not isinstance(document[name], kind):
            raise TypeError(f"{name} is {document[name]!r:.60}")
