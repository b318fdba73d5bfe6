"""Changes that a pipeline's loop makes to its latents between two steps: rounding, a cast, a blend with a picture."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass

import torch
from torch import Tensor

from genrun.adapters.shapes import Latents, Sample

DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
"""Those that latents may have, the narrowest first."""
KEPT = 8
"""Changes that are remembered of a step: a solver steps from the state that it had evaluated last, or a few before."""


@dataclass(frozen=True)
class Casts:
    """Dtypes of latents between two steps, where they are not the one that a step returns.

    Attributes:
        held: to which the loop rounds what it is handed; None where it keeps all digits.
        given: of what it hands to the next step.
    """

    held: torch.dtype | None
    given: torch.dtype

    def as_number(self) -> int:
        """Return a number for a message between ranks, at least 1."""
        held = 0 if self.held is None else DTYPES.index(self.held) + 1
        return held * (len(DTYPES) + 1) + DTYPES.index(self.given) + 1

    @classmethod
    def of_number(cls, number: int) -> Casts:
        """Return the inverse of `as_number`."""
        held, given = divmod(number, len(DTYPES) + 1)
        return cls(DTYPES[held - 1] if held else None, DTYPES[given - 1])


def casts_between(handed: Latents, back: Latents) -> tuple[Casts | None, bool]:
    """Return how the loop cast what it was handed, None where not at all; and whether casts explain all of its change."""
    if back.dtype == handed.dtype and torch.equal(back, handed):
        return None, True
    for dtype in (handed.dtype, *DTYPES[:2]):
        if torch.equal(handed.to(dtype).to(back.dtype), back):
            narrow = back.dtype if back.dtype.itemsize < dtype.itemsize else dtype
            return Casts(None if narrow == handed.dtype else narrow, back.dtype), True
    return (Casts(None, back.dtype) if back.dtype != handed.dtype else None), False


class Blends:
    """A sample's states as a solver has them, and as the loop came back with them.

    A step is taken from what came back. Where a solver steps a state that the loop has never seen, which is a guess, the
    change is guessed as well: values that the loop replaced before are replaced alike.
    """

    def __init__(self) -> None:
        self._seen: dict[int, deque[tuple[Tensor, Tensor]]] = defaultdict(lambda: deque(maxlen=KEPT))

    def note(self, index: int, handed: Tensor, back: Tensor) -> None:
        """Remember what came back for a state before step `index`."""
        self._seen[index].append((handed.float(), back.float()))

    def applied(self, index: int, x: Sample) -> Sample:
        """Return what the loop makes of a state before step `index`."""
        if not self._seen or index == 0:
            return x
        for handed, back in reversed(self._seen.get(index, ())):
            if torch.equal(handed, x):
                return back
        near = min(self._seen, key=lambda step: abs(step - index))
        handed, back = self._seen[near][-1]
        return torch.where(handed != back, back, x)
