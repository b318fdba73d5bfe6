"""ToCa's tokens: scored by the queries and keys of an attention layer, chosen among all, computed where they are.

Several ranks have a part of the tokens each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from diffusers.hooks.hooks import ModelHook
from torch import Tensor, nn

from genrun.adapters.shapes import Attention, PartOfTokens, PerToken, Queries, Scores, TextTokens, Tokens

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


QUERIES = 64
"""Queries that see the attention map: it costs 64 n products a head instead of n^2."""
CHUNK = 4096
"""Tokens whose attention to the text is in memory at a time."""
NEIGHBOURS = 4


def influence(query: Queries, key: Tokens, heads: int) -> Scores:
    """Compute s1: the attention that each token receives, on average 1.

    Args:
        query: (B, n, heads d), before positional rotation.
        key: the same of the keys.
        heads: of the attention.

    Returns:
        (B, n), float32.
    """
    picked = torch.linspace(0, query.shape[1] - 1, min(QUERIES, query.shape[1]), device=query.device).long()
    weights = _attention(query[:, picked], key, heads)
    return weights.mean(dim=(1, 2)) * key.shape[1]


def control(query: Tokens, text_key: TextTokens, heads: int) -> Scores:
    """Compute s2: the entropy of each token's attention to the text, between 0 and 1, (B, n)."""
    length = text_key.shape[1]
    if length < 2:
        return query.new_zeros(query.shape[:2], dtype=torch.float32)
    parts = []
    for chunk in query.split(CHUNK, dim=1):
        weights = _attention(chunk, text_key, heads).mean(dim=1)
        parts.append(torch.special.entr(weights).sum(dim=-1) / torch.tensor(float(length)).log().item())
    return torch.cat(parts, dim=1)


def spread(score: Scores, bonus: float) -> Scores:
    """Raise the best of every run of four neighbours (s4) by `bonus` times its own score; (B, n)."""
    batch, count = score.shape
    padded = torch.nn.functional.pad(score, (0, -count % NEIGHBOURS), value=-torch.inf)
    runs = padded.view(batch, -1, NEIGHBOURS)
    best = runs.argmax(dim=-1, keepdim=True)
    raised = runs.scatter_add(-1, best, runs.gather(-1, best).clamp(min=0) * bonus)
    return raised.view(batch, -1)[:, :count]


def _attention(query: Queries, key: Tokens, heads: int) -> Attention:
    """Return the softmax of the products of heads of unit RMS, (B, heads, q, n), float32."""
    q, k = (x.float().unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key))
    q, k = (x / x.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-6) for x in (q, k))
    return (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(dim=-1)


TEXT_LAST = ("HunyuanVideoSingleTransformerBlock", "HunyuanVideoTokenReplaceSingleTransformerBlock")
"""Blocks that put the text behind the image; all others put it before."""


@dataclass(frozen=True)
class SplitTokens:
    """The tokens of one layer in the order of one rank that has them all.

    A layer that takes two streams one behind the other has [first of rank 0, second of rank 0] there, where one rank has
    [first, second] whole.

    Attributes:
        group: the ranks that share them.
        parts: tokens of the first and of the second stream on each rank.
        text_is_last: whether the text is the second of two streams.
    """

    group: ProcessGroup
    parts: tuple[tuple[int, int], ...]
    text_is_last: bool = False

    @classmethod
    def seen(
        cls, group: ProcessGroup, first: int, second: int, like: Tensor, *, text_is_last: bool = False
    ) -> SplitTokens:
        """Exchange how many tokens each rank has; all ranks call this alike."""
        mine = torch.tensor([first, second], device=like.device)
        everyone = [torch.empty_like(mine) for _ in range(group.size())]
        torch.distributed.all_gather(everyone, mine, group=group)
        return cls(group, tuple((int(a), int(b)) for a, b in torch.stack(everyone).tolist()), text_is_last)

    @property
    def count(self) -> int:
        """All tokens."""
        return sum(map(sum, self.parts))

    def count_of_text(self, mine: int) -> int:
        """Count the tokens of the text on all ranks, where this one has `mine` in the layer."""
        return sum(part[self.text_is_last] for part in self.parts) if mine else 0

    def gather(self, mine: PartOfTokens) -> PerToken:
        """Gather every rank's tokens, (B, n, ...), in the order of one rank."""
        # gloo gathers tensors of one size only.
        most = max(map(sum, self.parts))
        padded = torch.cat([mine, mine.new_zeros(mine.shape[0], most - mine.shape[1], *mine.shape[2:])], dim=1)
        everyone = [torch.empty_like(padded) for _ in self.parts]
        torch.distributed.all_gather(everyone, padded, group=self.group)
        firsts = [x[:, :first] for x, (first, _) in zip(everyone, self.parts, strict=True)]
        seconds = [x[:, first : first + second] for x, (first, second) in zip(everyone, self.parts, strict=True)]
        return torch.cat([*firsts, *seconds], dim=1)

    def mine(self, everyone: PerToken) -> PartOfTokens:
        """Return this rank's part of (B, n, ...)."""
        rank, of_first = self.group.rank(), sum(first for first, _ in self.parts)
        first, second = self.parts[rank]
        start = sum(first for first, _ in self.parts[:rank])
        then = of_first + sum(second for _, second in self.parts[:rank])
        return torch.cat([everyone[:, start : start + first], everyone[:, then : then + second]], dim=1)


class Streams(ModelHook):
    """Sees how many tokens of the image and of the text a block is given, which some of its layers take as one sequence."""

    def __init__(self) -> None:
        super().__init__()
        self._image = self._text = 0
        self._text_is_last = False

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Look at the block's arguments."""
        given = dict(zip(("hidden_states", "encoder_hidden_states"), args, strict=False)) | kwargs
        self._image, self._text = given["hidden_states"].shape[1], given["encoder_hidden_states"].shape[1]
        self._text_is_last = type(module).__name__ in TEXT_LAST
        return args, kwargs

    def tokens(self, group: ProcessGroup, mine: Tensor) -> SplitTokens:
        """Describe the tokens of a layer that is given `mine`, (B, n, ...), here: the image's alone, or both streams'."""
        if mine.shape[1] == self._image:
            return SplitTokens.seen(group, self._image, 0, mine)
        first, second = (self._image, self._text) if self._text_is_last else (self._text, self._image)
        return SplitTokens.seen(group, first, second, mine, text_is_last=self._text_is_last)
