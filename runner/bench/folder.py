"""The folder of a bench: the settings that decide its numbers, the sequential latents, a record of each finished cell.

bench.json               the settings; a command with others is refused
references/PROBLEM-N.safetensors    final latents of the sequential sampler
cells/KEY.json           one finished cell each, written whole or not at all
results.csv results.json pareto.csv index.html
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.runner.bench.results import PointResult
from genrun.runner.bench.sweep import SweepPoint
from genrun.runner.errors import MixError, StoreError, UsageError
from genrun.runner.job.plan import canonical
from genrun.runner.store.files import atomic_write, is_temporary

if TYPE_CHECKING:
    from torch import Tensor

SETTINGS = "bench.json"
VERSION = 1
KEY_DIGITS = 20
CODE_DIGITS = 12
LATENTS = "latents"


@dataclass(frozen=True)
class BenchFolder:
    """A folder of results; the only code that knows its file names."""

    path: Path

    @classmethod
    def open(cls, path: Path, settings: Mapping[str, Any]) -> BenchFolder:
        """Begin a bench in a new folder, or continue the one in an existing folder.

        Args:
            path: the folder.
            settings: everything that decides the numbers, but solvers, workers and tolerances.

        Raises:
            MixError: the bench there was made with other settings.
            UsageError: there are other files.
            StoreError: it cannot be read or written.
        """
        folder, wanted = cls(path), json.loads(canonical({"version": VERSION, **settings}))
        known = folder._read_settings()
        if known is None:
            atomic_write(path / SETTINGS, json.dumps(wanted, indent=2).encode("ascii"))
        elif known != wanted:
            remedy = "Choose another folder with --out, or ask for the same again."
            changes = "\n".join(f"    {line}" for line in _differences(known, wanted))
            raise MixError(f"{path} holds a bench with other settings:\n{changes}", remedy=remedy)
        return folder

    def result(self, cell: SweepPoint, code: str) -> PointResult | None:
        """Return the record of a cell, or None if it is not finished. Raises StoreError for a spoilt one."""
        path = self._cell_path(cell, code)
        try:
            return PointResult.from_dict(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {error.strerror}.") from error
        except (ValueError, TypeError, KeyError) as error:
            raise StoreError(f"{path}: no record of this version.", remedy="Remove it, and run again.") from error

    def write(self, result: PointResult) -> None:
        """Record a finished cell. Raises StoreError."""
        data = json.dumps(result.to_dict(), allow_nan=False).encode("ascii")
        atomic_write(self._cell_path(result.cell, result.code), data)

    def reference(self, problem: str, index: int) -> Tensor | None:
        """Return the sequential latents of a sample, or None if they have not been made."""
        from safetensors.torch import load

        path = self._reference_path(problem, index)
        try:
            return load(path.read_bytes())[LATENTS]
        except FileNotFoundError:
            return None
        except Exception as error:
            remedy = "Remove it, and run again."
            raise StoreError(f"{path}: cannot be read as latents: {error}.", remedy=remedy) from error

    def write_reference(self, problem: str, index: int, latents: Tensor) -> None:
        """Keep the sequential latents of a sample. Raises StoreError."""
        from safetensors.torch import save

        atomic_write(self._reference_path(problem, index), save({LATENTS: latents.contiguous()}))

    def write_file(self, name: str, data: bytes) -> Path:
        """Write a table, a picture or the page; returns its path. Raises StoreError."""
        atomic_write(self.path / name, data)
        return self.path / name

    def _read_settings(self) -> Any:
        path = self.path / SETTINGS
        try:
            if not path.is_file():
                if self.path.is_dir() and not all(is_temporary(path.name) for path in self.path.iterdir()):
                    remedy = "Choose a new folder with --out."
                    raise UsageError(f"{self.path} has other files in it, and no {SETTINGS}.", remedy=remedy)
                return None
            return json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: cannot be read: {error}.", remedy="Choose a new folder with --out.") from error

    def _cell_path(self, cell: SweepPoint, code: str) -> Path:
        decides = {"problem": cell.problem, "kind": cell.kind, "options": cell.options, "code": code}
        decides |= {"cache": cell.cache} if cell.cache else {}
        key = hashlib.sha256(canonical(decides)).hexdigest()[:KEY_DIGITS]
        return self.path / "cells" / f"{key}.json"

    def _reference_path(self, problem: str, index: int) -> Path:
        return self.path / "references" / f"{problem}-{index:04}.safetensors"


def _differences(known: Any, wanted: Any, path: str = "") -> Iterator[str]:
    """Yield what is there and what is wanted, by dotted name, one line each."""
    if isinstance(known, dict) and isinstance(wanted, dict):
        for key in sorted({*known, *wanted}):
            yield from _differences(known.get(key), wanted.get(key), f"{path}.{key}".lstrip("."))
    elif known != wanted:
        yield f"{path or 'settings'}: {json.dumps(known)} there, {json.dumps(wanted)} now"


def code_of(solver: type) -> str:
    """Hash the module that defines a solver, and every module of its package that it imports, directly or not.

    Results of an older version must not stand beside those of a newer one.

    Returns:
        12 hex digits. A comment changes them; a solver that this one does not use does not.
    """
    return code_of_module(solver.__module__)


def code_of_module(name: str) -> str:
    """Hash a module, and every module of its package that it imports, directly or not."""
    package, found, left = name.rpartition(".")[0], dict[str, bytes](), [name]
    while left:
        name = left.pop()
        source = None if name in found else _source(name)
        if source is not None:
            found[name] = source
            left += [each for each in _imports(source, name) if each.startswith(f"{package}.")]
    digest = hashlib.sha256()
    for name, source in sorted(found.items()):
        digest.update(f"{name}\0{len(source)}\0".encode() + source)
    return digest.hexdigest()[:CODE_DIGITS]


def _source(name: str) -> bytes | None:
    """Read a module; None for a name that is no module of Python text."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin).read_bytes()


def _imports(source: bytes, name: str) -> Iterator[str]:
    """Yield every name that a module may import as a module."""
    package = name.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
