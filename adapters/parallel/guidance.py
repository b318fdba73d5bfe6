"""Classifier-free guidance on two ranks: each evaluates one branch, with and without the prompt, and both get both.

Some pipelines make one call of a doubled batch, others two calls, one after the other. Nothing but the place of
the computation changes: where two calls are made the outputs are those of one rank, bit for bit; where a batch is split,
kernels may sum in another order for half of it (about 1e-7 in float32).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from genrun.adapters.errors import RefusedError
from genrun.adapters.parallel.sharing import Sharing, sharing_of
from genrun.adapters.parallel.support import TWICE
from genrun.adapters.pipeline.denoisers import COMPONENTS

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

BRANCHES = 2
DOUBLED_ARGUMENTS = frozenset(
    ("hidden_states", "sample", "encoder_hidden_states", "pooled_projections", "timestep", "encoder_attention_mask")
)
"""Arguments of a model whose first dimension is the doubled batch."""

Forward = Callable[..., Any]


def split_guidance(pipe: Any, group: ProcessGroup) -> None:
    """Split the guidance branches of every evaluation between the two ranks of a group; see `support.refusals`."""
    import torch.distributed as dist

    name, rank = type(pipe).__name__, dist.get_rank(group)
    turns = Turns(pipe, rank, group)
    for component in COMPONENTS:
        model = getattr(pipe, component, None)
        if model is not None:
            wrap = turns.taking(sharing_of(model)) if name in TWICE else halved(rank, group)
            model.forward = wrap(model.forward)


def halved(rank: int, group: ProcessGroup) -> Callable[[Forward], Forward]:
    """Have a model's forward evaluate this rank's half of a doubled batch, and return the outputs of both halves."""

    def wrap(plain: Forward) -> Forward:
        signature = inspect.signature(plain)

        @wraps(plain)
        def forward(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            rows = next(iter(bound.arguments.values())).shape[0]
            if rows % BRANCHES:
                raise _nothing_to_share()
            for name in DOUBLED_ARGUMENTS & bound.arguments.keys():
                value = bound.arguments[name]
                if isinstance(value, Tensor) and value.dim() and value.shape[0] == rows:
                    bound.arguments[name] = value.chunk(BRANCHES)[rank]
            output = plain(*bound.args, **bound.kwargs)
            return (torch.cat(gathered(output[0], group)), *output[1:])

        return forward

    return wrap


class Turns:
    """Two calls a step on two ranks: the first rank makes the first call, the second the second.

    A pipeline's first evaluation, which all ranks make anyway, is made whole: it tells whether there are two calls. After
    that a rank answers the other's call with a tensor that is filled when both have been made, before anybody looks at it.

    Args:
        pipe: the pipeline, whose scheduler tells the evaluations apart.
        rank: which of the calls is this rank's, 0 or 1.
        group: the two ranks.
    """

    def __init__(self, pipe: Any, rank: int, group: ProcessGroup) -> None:
        self._pipe, self._rank, self._group = pipe, rank, group
        self._session: Any = None
        self._evaluation = self._calls = 0
        self._kept: list[Tensor] = []

    def taking(self, sharing: Sharing) -> Callable[[Forward], Forward]:
        """Have a model's forward make only this rank's calls, and mark each call as its own or the other rank's."""

        def wrap(plain: Forward) -> Forward:
            @wraps(plain)
            def forward(*args: Any, **kwargs: Any) -> Any:
                session = getattr(self._pipe.scheduler, "session", None)
                if session is None:
                    return plain(*args, **kwargs)
                self._place(session, self._pipe.scheduler.evaluations)
                sharing.is_mine = (self._calls == 1) == (self._rank == 0)
                if self._evaluation == 0:
                    output = plain(*args, **kwargs)
                    self._kept = [output[0]]
                    return output
                return self._take(plain, args, kwargs, is_mine=sharing.is_mine)

            return forward

        return wrap

    def _place(self, session: Any, evaluation: int) -> None:
        """Find out which call of which evaluation is being made."""
        if session is not self._session:
            self._session, self._evaluation, self._calls = session, 0, 0
        if evaluation != self._evaluation:
            if self._calls != BRANCHES:
                raise _nothing_to_share()
            self._evaluation, self._calls = evaluation, 0
        self._calls += 1

    def _take(self, plain: Forward, args: Any, kwargs: Any, *, is_mine: bool) -> tuple[Tensor, ...]:
        first = self._calls == 1
        like = self._kept[-1]
        output = plain(*args, **kwargs)[0] if is_mine else torch.empty_like(like)
        self._kept = [output] if first else [*self._kept, output]
        if not first:
            for tensor, value in zip(self._kept, gathered(self._kept[self._rank], self._group), strict=True):
                tensor.copy_(value)
        return (output,)


def gathered(tensor: Tensor, group: ProcessGroup) -> list[Tensor]:
    """Gather every rank's tensor, in order; all of one shape and dtype."""
    import torch.distributed as dist

    everyone = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(BRANCHES)]
    dist.all_gather(everyone, tensor.contiguous(), group=group)
    return everyone


def _nothing_to_share() -> RefusedError:
    return RefusedError(
        "parallel.cfg: 2 needs two guidance branches, and this call has one: raise the guidance scale above 1 (give flux, "
        "qwenimage and hunyuanvideo a negative_prompt with options: {true_cfg_scale: 4.0}), or write cfg: 1"
    )
