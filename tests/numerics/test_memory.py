"""Peak memory of a solver's state, in latents, counted on real allocations."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_iter

from genrun.solvers import registry
from tests.numerics.worlds import Recorder, flow, mixture

SIZE = 4096
WINDOWS = {"parataa": 6, "chords": 4, "srds": 4, "collocation": 8}
"""States held for each worker: 2, the states and the outputs, unless the method itself remembers more of each."""


class Ledger(TorchDispatchMode):
    """Counts the latents that live storages hold, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().nbytes() >= SIZE * 4:
                self.note(tensor)
        self.peak = max(self.peak, sum(self.live.values()))
        return result

    def note(self, tensor: Tensor) -> None:
        key = tensor.untyped_storage().data_ptr()
        if key not in self.live:
            self.live[key] = tensor.untyped_storage().nbytes() // (SIZE * 4)
            weakref.finalize(tensor, self.live.pop, key, None)


@pytest.mark.parametrize("solver", [name for name in registry.names() if name != "sequential"])
@pytest.mark.parametrize("workers", [1, 8, 24])
def test_state_peaks_below_its_windows_and_eight_latents(solver: str, workers: int) -> None:
    assert 2 < peak(solver, workers, 60) <= WINDOWS.get(solver, 2) * workers + 8


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_collocation_keeps_states_between_nodes_of_a_third_of_the_steps_and_none_with_one_worker(workers: int) -> None:
    between = 180 // 3 if workers > 1 else 0
    assert peak("collocation", workers, 180) <= WINDOWS["collocation"] * workers + between + 8


def peak(solver: str, workers: int, num_steps: int) -> int:
    """Most latents that were alive at once, over a run."""
    problem = flow(num_steps, size=SIZE)
    recorder = Recorder(problem, mixture(SIZE))
    ledger = Ledger()
    run = registry.get(solver)(workers=workers).solve(problem)
    with ledger:
        points = next(run)
        while True:
            with _disable_current_modes():
                outputs = [recorder.output(point) for point in points]
            for output in outputs:
                ledger.note(output)
            points = output = None
            try:
                points = run.send(outputs)
            except StopIteration:
                break
    return ledger.peak
