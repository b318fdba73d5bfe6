"""Job files: reading, checking and resolving them, without importing torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genrun.runner.job.resolve import Cell, LoadedJob, load, restore

__all__ = ["Cell", "LoadedJob", "load", "restore"]


def __getattr__(name: str) -> Any:
    # Lazily, so that the errors of this package can be used without pydantic and yaml.
    if name in __all__:
        from genrun.runner.job import resolve

        return getattr(resolve, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
