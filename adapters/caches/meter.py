"""Count block evaluations: the work of the blocks' linear layers, in units of whole blocks."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import Tensor, nn

from genrun.adapters.parallel.sharing import sharing_of
from genrun.adapters.pipeline.denoisers import blocks_of


class BlockMeter:
    """Counts what a transformer's blocks compute.

    A block is nearly all linear layers, and caches that skip part of one (attention, some tokens, half of the batch) skip
    their rows. Attention's own products are left out; they go with the projections before them. What a whole call of a
    branch costs is learned from its first, for which no cache can have anything. Of a call that several ranks compute
    together each counts its part, so that their counts add up to those of one rank that makes all calls alone.

    Args:
        model: the transformer.
        branch: which branch of the guidance is at work, or None where nothing is cached and all blocks are computed.

    Attributes:
        done: block evaluations made.
        asked: block evaluations of the same calls without a cache.
    """

    def __init__(self, model: nn.Module, branch: Callable[[], str] | None = None) -> None:
        self._blocks, self._branch, self._sharing = blocks_of(model), branch, sharing_of(model)
        self._whole: dict[str, float] = {}
        self._work = 0
        self.done = self.asked = 0.0
        self._hook = model.register_forward_hook(self._close)
        self._counted: list[tuple[nn.Linear, Any]] = []
        if branch is None:
            return
        layers = {id(m): m for block in self._blocks for m in block.modules() if isinstance(m, nn.Linear)}
        for layer in layers.values():
            self._counted.append((layer, layer.__dict__.get("forward")))
            layer.forward = self._counting(layer)

    def begin(self) -> None:
        """Start to count a sample."""
        self._whole.clear()
        self.discard()

    def discard(self) -> None:
        """Start to count again: what was made so far counts elsewhere."""
        self._work = 0
        self.done = self.asked = 0.0

    def detach(self) -> None:
        """Stop counting."""
        self._hook.remove()
        for layer, before in self._counted:
            if before is None:
                del layer.forward
            else:
                layer.forward = before

    def _counting(self, layer: nn.Linear) -> Callable[..., Tensor]:
        """Wrap a layer's forward to count its rows, beneath a cache's hook, which may hand out rows that it remembers."""
        plain = layer.forward

        @wraps(plain)
        def forward(*args: Any, **kwargs: Any) -> Tensor:
            output = plain(*args, **kwargs)
            self._work += output.numel() * layer.in_features
            return output

        return forward

    def _close(self, _: nn.Module, __: Any, output: Any) -> None:
        """Count a call of the model at its end."""
        work, self._work = self._work, 0
        sharing, whole = self._sharing, 0.0
        if self._branch is not None:
            branch = self._branch()
            # The first call of a branch may be made here and count elsewhere: every rank makes an item's first evaluation.
            if branch not in self._whole and (sharing.is_mine or work):
                self._whole[branch] = sharing.total([work], _tensor(output))[0]
            whole = self._whole.get(branch, 0.0)
        if sharing.is_mine:
            part = 1 / sharing.size
            self.done += len(self._blocks) * (work / whole if whole else part)
            self.asked += len(self._blocks) * part


def _tensor(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]
