"""SD3's last block returns no text: diffusers' block caches subtract what it returns, and need something there."""

from __future__ import annotations

from typing import Any

from diffusers.hooks.hooks import HookRegistry, ModelHook
from torch.nn import Module

from genrun.adapters.caches.families import blocks_of

TEXT_END_HOOK = "genrun_text_end"


class TextEnd(ModelHook):
    """Hands the text that a block was given on, where the block returns none. Nothing reads it behind the last block."""

    def new_forward(self, module: Module, *args: Any, **kwargs: Any) -> Any:
        """Run the block."""
        block: Any = self.fn_ref.original_forward
        text, hidden = block(*args, **kwargs)
        return (kwargs["encoder_hidden_states"] if text is None else text), hidden


def pass_text_on(model: Module) -> None:
    """Hook the blocks that end the text; others are left alone."""
    for block in blocks_of(model):
        if getattr(block, "context_pre_only", False):
            HookRegistry.check_if_exists_or_initialize(block).register_hook(TextEnd(), TEXT_END_HOOK)
