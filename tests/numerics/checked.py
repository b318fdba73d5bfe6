"""Run every solver under jaxtyping's import hook: beartype checks the shapes and dtypes of each call in genrun.solvers.

A process of its own, because the hook works on modules that are not imported yet. Prints what it ran.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import typing
from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import torch
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import TypeCheckError, install_import_hook

CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
"""With PEP 484's rule that an int will do for a float."""
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "chords": [{"mode": "first_core"}],
    "collocation": [{"exact": True}, {"spacing": 2}, {"max_rounds": 3}],
    "parasolver": [{"tail": "copy", "warmup": 0}],
    "parasolver-turbo": [{"mode": "skip"}, {"coupling": "identity"}],
    "parataa": [{"order": 1}, {"order": 2, "history": 2}],
    "srds": [{"blocks": 3}],
}
"""Options besides the defaults, for code that these do not reach."""


def instrument() -> list[str]:
    """Import all modules of genrun.solvers under the hook, with the imports that they make for type checking only."""
    assert not any(name.startswith("genrun.solvers") for name in sys.modules)
    # Before the switch: what the package imports for type checking only is none of the solvers'.
    importlib.import_module("genrun")
    with mock.patch.object(typing, "TYPE_CHECKING", True), install_import_hook("genrun.solvers", CHECKER):
        package = importlib.import_module("genrun.solvers")
        names = [f"genrun.solvers.{module.name}" for module in pkgutil.iter_modules(package.__path__)]
        for name in names:
            importlib.import_module(name)
    return names


def run() -> None:
    """Solve the closed-form problems, from states of one dimension and of four."""
    from genrun.solvers import FlowProblem, Point, registry, solve
    from genrun.solvers.analytic import WORLDS, evaluator

    pictures = FlowProblem([1 - i / 8 for i in range(9)], torch.randn(1, 2, 4, 4))

    def squash(points: Sequence[Point]) -> list[torch.Tensor]:
        return [pictures.from_x0(p.index, p.x, torch.tanh(0.3 - 4 * p.x)) for p in points]

    for name in registry.names():
        ways = [{"workers": k, "tolerance": t} for k, t in ((1, 0.05), (8, 0), (8, 0.05))]
        for options in [*([{}] if name == "sequential" else ways), *OPTIONS.get(name, [])]:
            for world in (WORLDS["mixture"], WORLDS["linear"]):  # flow matching, and DDIM
                problem = world.problem(8, seed=1)
                solve(problem, evaluator(problem, world.denoiser()), name, **options)
            solution = solve(pictures, squash, name, **options)
            assert solution.x.shape == (1, 2, 4, 4)
        print("solver", name)


def refuse() -> None:
    """Call with a wrong shape, a wrong dtype and shapes that do not agree: the hook must be at work."""
    from genrun.solvers import FlowProblem, Point
    from genrun.solvers.trajectory import rms

    x = torch.zeros(1, 4)
    problem = FlowProblem([1.0, 0.5, 0.0], x)
    for wrong in (
        lambda: rms(x.double()),
        lambda: Point(0, x.half()),
        lambda: FlowProblem([1.0, 0.0], x.long()),
        lambda: problem.from_x0(0, x, torch.zeros(1, 3)),
    ):
        try:
            wrong()
        except (TypeCheckError, BeartypeCallHintViolation):
            print("refused")


if __name__ == "__main__":
    # The hook keeps what it compiled beside the sources under a name of its own, where code without checks has been found.
    with TemporaryDirectory() as sys.pycache_prefix:
        for module in instrument():
            print("module", module)
        refuse()
        run()
