"""Signatures tell the truth about tensors, and nobody pays for it outside of tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from genrun.solvers import registry

ROOT = Path(__file__).parents[2]
MODULES = {path.stem for path in (ROOT / "solvers").glob("*.py")} - {"__init__"}


def python(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.e2e
def test_every_call_of_every_solver_has_the_shapes_and_dtypes_of_its_signature() -> None:
    lines = [line.split() for line in python("-m", "tests.numerics.checked").splitlines()]
    assert {name.rpartition(".")[2] for kind, *rest in lines if kind == "module" for name in rest} == MODULES
    assert tuple(name for kind, *rest in lines if kind == "solver" for name in rest) == registry.names()
    assert lines.count(["refused"]) == 4


def test_solvers_import_no_tensor_library() -> None:
    names = sorted(MODULES - {"shapes"})
    code = f"import sys, {', '.join(f'genrun.solvers.{name}' for name in names)}; print(*sys.modules)"
    assert not {"torch", "numpy", "jaxtyping", "beartype"} & set(python("-c", code).split())
