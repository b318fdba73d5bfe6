"""The noise of a pipeline call's steps: one stream a sample, whatever the pipeline hands to its scheduler.

A scheduler draws from the generator that its `step` is given, or from torch's global one: for want of a generator, or
because it asks for none. Both are replaced here, so that the noise of a step depends on the call's generator and on the
step alone, never on other items, ranks, or the order in which steps are taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch

from genrun.adapters.shapes import Bytes

Generators = torch.Generator | list[torch.Generator] | None
State = list[Bytes]
"""States of the generators handed to `step`, then those of torch's global ones, on the CPU and on the latents' device."""

# Of seeds that torch.Generator takes.
_MOST = 2**63 - 1


class Noise:
    """The random numbers of a call's steps. The caller's own generators, and torch's global ones, are left as they were.

    Args:
        generator: the call's, as they are when sampling begins; None for torch's global ones.
        device: of the latents.
    """

    def __init__(self, generator: Generators, device: torch.device) -> None:
        given = [] if generator is None else generator if isinstance(generator, list) else [generator]
        self.generators = [_clone(each) for each in given]
        self._cuda = device if device.type == "cuda" else None
        self._global = self._kept() if not given else self._derived(given[0])
        self.mixed = True

    def of_step(self) -> torch.Generator | list[torch.Generator] | None:
        """Return what to hand to the scheduler's step."""
        return self.generators if len(self.generators) > 1 else self.generators[0] if self.generators else None

    def state(self) -> State:
        """Return the state of the streams."""
        return [*(each.get_state() for each in self.generators), *self._global]

    def set_state(self, state: State) -> None:
        """Go back, or on, to where the streams stood."""
        count = len(self.generators)
        for generator, value in zip(self.generators, state, strict=False):
            generator.set_state(value)
        self._global = state[count:]

    @contextmanager
    def drawn(self) -> Iterator[None]:
        """Draw from these streams inside the block, where torch's global ones are asked as well."""
        if not self.mixed:
            yield
            return
        outside = self._kept()
        self._put(self._global)
        try:
            yield
        finally:
            self._global = self._kept()
            self._put(outside)

    def leave_global(self, states: Sequence[State]) -> None:
        """Leave torch's global generators alone from now on, if no step from one of these states to the next draws there."""
        count = len(self.generators)
        self.mixed = any(moved(before[count:], after[count:]) for before, after in pairwise(states))

    def _kept(self) -> State:
        states = [torch.get_rng_state()]
        return states if self._cuda is None else [*states, torch.cuda.get_rng_state(self._cuda)]

    def _put(self, states: State) -> None:
        torch.set_rng_state(states[0])
        if self._cuda is not None:
            torch.cuda.set_rng_state(states[1], self._cuda)

    def _derived(self, generator: torch.Generator) -> State:
        """Derive streams from a generator that do not repeat what it has drawn."""
        seed = int(torch.randint(_MOST, (), generator=_clone(generator), device=generator.device))
        devices = [torch.device("cpu"), *([self._cuda] if self._cuda is not None else [])]
        return [torch.Generator(device).manual_seed(seed).get_state() for device in devices]


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators inside the block, for what a pipeline draws without its generator.

    With other numbers than a generator of that seed gives: noise must not be the start of a trajectory again.
    """
    digest = hashlib.sha256(f"global {seed}".encode()).digest()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        yield


def moved(before: State, after: State) -> bool:
    """Return whether anything was drawn between two states."""
    return not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def _clone(generator: torch.Generator) -> torch.Generator:
    return torch.Generator(generator.device).set_state(generator.get_state())
