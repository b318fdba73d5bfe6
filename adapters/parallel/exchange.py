"""The exchange of a round: which rank evaluates which point, and how the outputs are gathered."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from genrun.adapters.shapes import Bytes, Messages

# Parts of blocks computed, and parts that would have been without a cache; a new cast of latents, and blends of them.
NOTES = 4
HEADER_NUMBERS = 2 + NOTES
HEADER_BYTES = 8 * HEADER_NUMBERS
Notes = tuple[int, int, int, int]
NOTHING: Notes = (0, 0, 0, 0)
# The state in a header: the first number of it.
WELL, FAILED = 0, 1


class ExchangeError(RuntimeError):
    """Ranks of one item disagree, or one of them failed."""


@runtime_checkable
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

    def begin(self, like: Tensor, capacity: int) -> None:
        """Start to sample together; return once every rank has called this.

        Args:
            like: a tensor of an output's dtype, shape and memory layout.
            capacity: the most evaluations a round may have.

        Raises:
            ExchangeError: a rank failed, or the ranks disagree.
        """
        ...

    def plan(self, owners: Sequence[int]) -> None:
        """Learn which rank makes each evaluation of the round that begins. The default is p mod size."""
        ...

    def gather(
        self, outputs: Sequence[Tensor], count: int, check: int, notes: Notes = NOTHING
    ) -> tuple[list[Tensor], Notes]:
        """Gather all `count` outputs of the round, in order, and sum all ranks' notes.

        Args:
            outputs: this rank's.
            count: evaluations in the round.
            check: a number that must be the same on all ranks (a hash of the control decisions).
            notes: numbers of this rank.

        Raises:
            ExchangeError: a rank failed, or the ranks disagree.
        """
        ...

    def end(self) -> None:
        """Stop; `gather` is not called again until the next `begin`."""
        ...

    def abort(self) -> None:
        """Tell the others, waiting in `begin` or `gather`, that this rank has failed."""
        ...


@dataclass(frozen=True)
class LocalExchange:
    """An exchange of one process, which evaluates every point."""

    rank: int = 0
    size: int = 1

    def begin(self, like: Tensor, capacity: int) -> None:
        """Return at once: there is no other rank to wait for."""

    def plan(self, owners: Sequence[int]) -> None:
        """Ignore the plan: all evaluations are this process's."""

    def gather(
        self, outputs: Sequence[Tensor], count: int, check: int, notes: Notes = NOTHING
    ) -> tuple[list[Tensor], Notes]:
        """Return the outputs and the notes themselves."""
        return list(outputs), notes

    def end(self) -> None:
        """Do nothing: nothing was begun."""

    def abort(self) -> None:
        """Do nothing: nobody is waiting."""


@dataclass(frozen=True)
class Layout:
    """The memory layout of an output, which can change the last bit of what is computed from it.

    Attributes:
        shape: of the tensor.
        strides: of a tensor like it, without gaps.
        dtype: of the tensor.
        size_bytes: of its elements.
        device: where the model wants it.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype
    size_bytes: int
    device: torch.device

    @classmethod
    def of(cls, like: Tensor) -> Layout:
        """Return the layout of a tensor."""
        strides = torch.empty_like(like).stride()
        return cls(tuple(like.shape), strides, like.dtype, like.numel() * like.element_size(), like.device)

    def read(self, data: Bytes) -> Tensor:
        """Return a tensor of this layout from its elements as bytes, wherever they are, in a contiguous tensor's order."""
        tensor = torch.empty_strided(self.shape, self.strides, dtype=self.dtype, device=self.device)
        return tensor.copy_(data.view(self.dtype).view(self.shape))


class GroupExchange:
    """The ranks of a torch.distributed process group, gloo or nccl.

    Messages lie where the group's backend takes them: on the GPU with nccl, on the CPU with gloo, for outputs of a GPU too.

    Each call is one collective of equal messages: a header, and after `begin` room for a rank's share of a round's outputs.
    A rank that fails takes part with a message of the same size, so that the others learn of it instead of waiting, and
    the group stays in step.

    Args:
        group: the time-parallel group; None is the default group.
    """

    def __init__(self, group: Any = None) -> None:
        import torch.distributed as dist

        self._group, self.rank, self.size = group, dist.get_rank(group), dist.get_world_size(group)
        self._on_gpu = dist.get_backend(group) == "nccl"
        self._device = torch.device("cuda" if self._on_gpu else "cpu")
        # torch 2.13 deprecates the second name in favour of the first, which older versions lack.
        self._all_gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
        self._layout: Layout | None = None
        self._rows = 0
        self._owners: list[int] | None = None

    def begin(self, like: Tensor, capacity: int) -> None:
        """Exchange headers alone, whose check holds what decides the size of messages from now on."""
        self.end()
        if self._on_gpu:
            self._device = like.device
        shape = (str(like.dtype), tuple(like.shape), capacity)
        self._send(zlib.crc32(repr(shape).encode()))
        self._layout, self._rows = Layout.of(like), -(-capacity // self.size)

    def plan(self, owners: Sequence[int]) -> None:
        """Make room for the share of the rank that has most to do, which may be more than a fair one."""
        self._owners = list(owners)
        self._rows = max((self._owners.count(rank) for rank in set(self._owners)), default=0)

    def gather(
        self, outputs: Sequence[Tensor], count: int, check: int, notes: Notes = NOTHING
    ) -> tuple[list[Tensor], Notes]:
        """Gather each rank's header and outputs, as bytes, in one collective."""
        layout, owners = self._layout, self._owners or [p % self.size for p in range(count)]
        assert layout is not None
        rows, sums = self._send(check, outputs, notes)
        taken = [0] * self.size
        found = []
        for owner in owners[:count]:
            found.append(layout.read(rows[owner, taken[owner]]))
            taken[owner] += 1
        return found, sums

    def end(self) -> None:
        """Go back to messages of a header alone."""
        self._layout, self._rows, self._owners = None, 0, None

    def abort(self) -> None:
        """Take part in the next collective with the sign of failure."""
        self._collect(self._message(FAILED, 0))
        self.end()

    def _send(self, check: int, outputs: Sequence[Tensor] = (), notes: Notes = NOTHING) -> tuple[Tensor, Notes]:
        """Exchange messages; returns everyone's outputs, (size, rows, bytes), and the notes' sums."""
        everyone = self._collect(self._message(WELL, check, outputs, notes))
        headers = everyone[:, :HEADER_BYTES].reshape(-1).view(torch.int64).view(self.size, HEADER_NUMBERS).tolist()
        failed = [rank for rank, (state, *_) in enumerate(headers) if state != WELL]
        if failed or len({seen for _, seen, *_ in headers}) > 1:
            self.end()
        if failed:
            raise ExchangeError(f"rank {failed[0]} of the time-parallel group failed; its log has the error")
        if len({seen for _, seen, *_ in headers}) > 1:
            raise ExchangeError(f"the ranks of the time-parallel group disagree: {[h[:2] for h in headers]}")
        rows = everyone[:, HEADER_BYTES:].view(self.size, self._rows, -1) if self._rows else everyone
        sums = [sum(note) for note in zip(*(notes for _, _, *notes in headers), strict=True)]
        return rows, (sums[0], sums[1], sums[2], sums[3])

    def _message(self, state: int, check: int, outputs: Sequence[Tensor] = (), notes: Notes = NOTHING) -> Bytes:
        row_bytes = 0 if self._layout is None else self._layout.size_bytes
        message = torch.zeros(HEADER_BYTES + self._rows * row_bytes, dtype=torch.uint8, device=self._device)
        message[:HEADER_BYTES] = torch.tensor([state, check, *notes], dtype=torch.int64).view(torch.uint8)
        for row, output in zip(message[HEADER_BYTES:].view(self._rows, -1) if outputs else (), outputs, strict=False):
            row.copy_(output.contiguous().view(torch.uint8).reshape(-1))
        return message

    def _collect(self, mine: Bytes) -> Messages:
        everyone = torch.empty((self.size, len(mine)), dtype=torch.uint8, device=mine.device)
        self._all_gather(everyone.view(-1), mine, group=self._group)
        return everyone
