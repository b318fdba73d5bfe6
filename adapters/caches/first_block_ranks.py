"""diffusers' first block cache on ranks that share an evaluation: all of them compute the other blocks, or none."""

from __future__ import annotations

from diffusers.hooks.first_block_cache import FBCHeadBlockHook
from torch import Tensor

from genrun.adapters.parallel.sharing import Sharing


class SharedHead(FBCHeadBlockHook):
    """The hook of the first block, which decides by the residual of all tokens and both halves of the batch."""

    sharing: Sharing

    def _should_compute_remaining_blocks(self, hidden_states_residual: Tensor) -> bool:
        before = self.state_manager.get_state().head_block_residual
        if before is None:
            return True
        change, size = self.sharing.means((hidden_states_residual - before).abs(), before.abs())
        return (change / size).item() > self.threshold


def decide_together(hook: FBCHeadBlockHook, sharing: Sharing) -> None:
    """Have a hook that diffusers has made decide with the other ranks; one rank alone keeps diffusers' own."""
    if sharing.call is not None:
        hook.__class__ = SharedHead
        hook.sharing = sharing  # pyright: ignore[reportAttributeAccessIssue]
