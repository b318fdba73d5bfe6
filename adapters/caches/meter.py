"""Counts block evaluations: the work of the blocks' linear layers, in units of whole blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from genrun.adapters.caches.families import blocks_of


class BlockMeter:
    """Counts what a transformer's blocks compute.

    A block is nearly all linear layers, and caches that skip part of one (attention, some tokens, half of the batch) skip
    their rows. Attention's own products are left out; they go with the projections before them. What a whole call of a
    branch costs is learned from its first, for which no cache can have anything.

    Args:
        model: the transformer.
        branch: which branch of the guidance is at work, or None where nothing is cached and all blocks are computed.

    Attributes:
        done: block evaluations made.
        asked: block evaluations of the same calls without a cache.
    """

    def __init__(self, model: nn.Module, branch: Callable[[], str] | None = None) -> None:
        self._blocks, self._branch = blocks_of(model), branch
        self._whole: dict[str, int] = {}
        self._work = 0
        self.done = self.asked = 0.0
        self._hooks = [model.register_forward_hook(self._close)]
        if branch is None:
            return
        layers = {id(m): m for block in self._blocks for m in block.modules() if isinstance(m, nn.Linear)}
        self._hooks += [layer.register_forward_hook(self._count) for layer in layers.values()]

    def begin(self) -> None:
        """Start to count a sample."""
        self._whole.clear()
        self._work = 0
        self.done = self.asked = 0.0

    def detach(self) -> None:
        """Stop counting."""
        for hook in self._hooks:
            hook.remove()

    def _count(self, layer: nn.Linear, _: Any, output: Any) -> None:
        self._work += output.numel() * layer.in_features

    def _close(self, *_: Any) -> None:
        """The end of a call of the model."""
        share = 1.0
        if self._branch is not None:
            whole = self._whole.setdefault(self._branch(), self._work)
            share = self._work / whole if whole else 1.0
        self.done += share * len(self._blocks)
        self.asked += len(self._blocks)
        self._work = 0
