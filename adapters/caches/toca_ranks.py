"""ToCa's tokens on ranks that have a part of them each: scored and chosen among all, computed where they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from diffusers.hooks.hooks import ModelHook
from torch import Tensor, nn

from genrun.adapters.shapes import PartOfTokens, PerToken

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

TEXT_LAST = ("HunyuanVideoSingleTransformerBlock", "HunyuanVideoTokenReplaceSingleTransformerBlock")
"""Blocks that put the text behind the image; all others put it before."""


@dataclass(frozen=True)
class Tokens:
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
    def seen(cls, group: ProcessGroup, first: int, second: int, like: Tensor, *, text_is_last: bool = False) -> Tokens:
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

    def tokens(self, group: ProcessGroup, mine: Tensor) -> Tokens:
        """Describe the tokens of a layer that is given `mine`, (B, n, ...), here: the image's alone, or both streams'."""
        if mine.shape[1] == self._image:
            return Tokens.seen(group, self._image, 0, mine)
        first, second = (self._image, self._text) if self._text_is_last else (self._text, self._image)
        return Tokens.seen(group, first, second, mine, text_is_last=self._text_is_last)
