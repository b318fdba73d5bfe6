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


def read_job(path: Path) -> dict[str, Any]:
    """Read a stored job.

    Raises:
        StoreError: it cannot be read, or is no job.
    """
    import yaml

    with reading(path):
        try:
            document = yaml.safe_load(read_bytes(path).decode("utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"no YAML: {getattr(error, 'problem', None) or type(error).__name__}") from error
        _check_shape(document)
        return document


def _check_shape(document: Any) -> None:
    """Refuse a document that is no job at all; what its sections say in detail is looked at by whoever restores it."""
    if not isinstance(document, dict):
        raise TypeError(f"holds {type(document).__name__}, not a job")
    if "name" not in document:
        raise KeyError("name")
    for name, kind in SHAPES.items():
        if document.get(name) is not None and not isinstance(document[name], kind):
            raise TypeError(f"{name} is {document[name]!r:.60}")
