"""The ranks that compute one call of a model together, for decisions and counts that need the parts of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from genrun.adapters.parallel.support import BATCH, TOKENS

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@dataclass
class Sharing:
    """A rank's part in the calls of one model.

    Attributes:
        call: the ranks that each compute a part of the same call: tokens, or one half of a doubled batch. None: this one.
        tokens: those of them that have the same rows and different tokens. None: this rank has all tokens.
        slot: all ranks that make the same evaluations, those that make another call of the guidance included.
        is_mine: whether the call in work is this rank's to make; guidance in two calls leaves every second one out.
    """

    call: ProcessGroup | None = None
    tokens: ProcessGroup | None = None
    slot: ProcessGroup | None = None
    is_mine: bool = True

    @property
    def size(self) -> int:
        """Ranks that compute a call together."""
        return 1 if self.call is None else self.call.size()

    @property
    def splits(self) -> frozenset[str]:
        """The dimensions of a call that this rank has a part of: TOKENS, BATCH."""
        by_tokens = 1 if self.tokens is None else self.tokens.size()
        return frozenset((TOKENS,) * (by_tokens > 1) + (BATCH,) * (self.size > by_tokens))

    def total(self, values: Sequence[float], like: Tensor) -> list[float]:
        """Sum numbers over the ranks of a call, on the device of a tensor."""
        return _sums(values, self.call, like)

    def total_of_slot(self, values: Sequence[float], like: Tensor) -> list[float]:
        """Sum numbers over all ranks of the slot."""
        return _sums(values, self.slot, like)

    def means(self, *tensors: Tensor) -> list[Tensor]:
        """Return the mean of each tensor over all ranks' parts, in its dtype, as one rank that has all would see it."""
        if self.call is None:
            return [tensor.mean() for tensor in tensors]
        sums = [
            part for x in tensors for part in (x.sum(dtype=torch.float32), x.new_tensor(x.numel(), dtype=torch.float32))
        ]
        everyone = torch.stack(sums).double()
        torch.distributed.all_reduce(everyone, group=self.call)
        return [
            (total / count).to(x.dtype)
            for x, (total, count) in zip(tensors, everyone.view(-1, 2).unbind(0), strict=True)
        ]


def _sums(values: Sequence[float], group: ProcessGroup | None, like: Tensor) -> list[float]:
    if group is None:
        return list(values)
    everyone = torch.tensor(values, dtype=torch.float64, device=like.device)
    torch.distributed.all_reduce(everyone, group=group)
    return everyone.tolist()


_SHARINGS: WeakKeyDictionary[nn.Module, Sharing] = WeakKeyDictionary()


def share(model: nn.Module, sharing: Sharing) -> None:
    """Note who computes a model's calls."""
    _SHARINGS[model] = sharing


def sharing_of(model: nn.Module) -> Sharing:
    """Return who computes a model's calls: this rank alone, unless told otherwise."""
    return _SHARINGS.get(model) or Sharing()
