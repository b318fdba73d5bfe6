"""Who evaluates which point of a round, and how the outputs come together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


class ExchangeError(RuntimeError):
    """Ranks of one item disagree, or one of them failed."""


class Exchange(Protocol):
    """Splits a round's evaluations over ranks and gathers their outputs."""

    @property
    def rank(self) -> int:
        """This process's place among those that sample the item, 0 first."""
        ...

    @property
    def size(self) -> int:
        """Number of those processes."""
        ...

    def gather(self, outputs: Sequence[Tensor], count: int, like: Tensor, check: int) -> list[Tensor]:
        """All `count` outputs of the round, in order; evaluation p was made by rank p mod size.

        Args:
            outputs: this rank's.
            count: evaluations in the round.
            like: a tensor of an output's shape and dtype.
            check: a number that must be the same on all ranks (a hash of the control decisions).

        Raises:
            ExchangeError: a rank failed, or the ranks disagree.
        """
        ...

    def abort(self) -> None:
        """Tell the others, waiting in `gather`, that this rank has failed."""
        ...


@dataclass(frozen=True)
class LocalExchange:
    """One process evaluates every point."""

    rank: int = 0
    size: int = 1

    def gather(self, outputs: Sequence[Tensor], count: int, like: Tensor, check: int) -> list[Tensor]:
        """The outputs themselves."""
        return list(outputs)

    def abort(self) -> None:
        """Nobody is waiting."""


class GroupExchange:
    """The ranks of a torch.distributed process group, gloo or nccl.

    Args:
        group: the time-parallel group; None is the default group.
    """

    def __init__(self, group: Any = None) -> None:
        import torch.distributed as dist

        self._dist, self._group = dist, group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)

    def gather(self, outputs: Sequence[Tensor], count: int, like: Tensor, check: int) -> list[Tensor]:
        """Two collectives: a header with each rank's state, then the outputs as bytes."""
        self._agree(check, like.device)
        rows = -(-count // self.size)
        mine = torch.zeros((rows, like.numel() * like.element_size()), dtype=torch.uint8, device=like.device)
        for row, output in enumerate(outputs):
            mine[row] = output.contiguous().view(torch.uint8).reshape(-1)
        everyone = torch.empty((self.size, *mine.shape), dtype=torch.uint8, device=like.device)
        self._dist.all_gather_into_tensor(everyone.view(-1), mine.view(-1), group=self._group)
        return [everyone[p % self.size, p // self.size].clone().view(like.dtype).view(like.shape) for p in range(count)]

    def abort(self) -> None:
        """Take part in the next header with the sign of failure."""
        device = torch.device("cuda" if self._dist.get_backend(self._group) == "nccl" else "cpu")
        self._header(torch.tensor([1, 0], dtype=torch.int64, device=device))

    def _agree(self, check: int, device: torch.device) -> None:
        headers = self._header(torch.tensor([0, check], dtype=torch.int64, device=device))
        failed = [rank for rank, (state, _) in enumerate(headers) if state]
        if failed:
            raise ExchangeError(f"rank {failed[0]} of the time-parallel group failed; its log has the error")
        if len({seen for _, seen in headers}) > 1:
            raise ExchangeError(f"the ranks of the time-parallel group disagree: {headers}")

    def _header(self, mine: Tensor) -> list[list[int]]:
        everyone = torch.empty((self.size * 2,), dtype=torch.int64, device=mine.device)
        self._dist.all_gather_into_tensor(everyone, mine, group=self._group)
        return everyone.view(self.size, 2).tolist()


def _from_bytes(data: Tensor, like: Tensor) -> Tensor:
    """A tensor of `like`'s dtype, shape and memory layout, since layout can change the last bit of what is computed."""
    return torch.empty_like(like).copy_(data.view(like.dtype).view(like.shape))
