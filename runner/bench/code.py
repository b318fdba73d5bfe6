"""Which code a solver is: results of an older version must not stand beside those of a newer one."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

DIGITS = 12


def code_of(solver: type) -> str:
    """Hash the module that defines a solver, and every module of its package that it imports, directly or not.

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
    return digest.hexdigest()[:DIGITS]


def _source(name: str) -> bytes | None:
    """The text of a module; None for a name that is no module of Python text."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin).read_bytes()


def _imports(source: bytes, name: str) -> Iterator[str]:
    """Every name that a module may import as a module."""
    package = name.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
