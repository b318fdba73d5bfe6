"""How far the latents of a point have moved: caches that go by a count alone would use what was computed elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from genrun.adapters.caches.contract import States


@dataclass
class Drift:
    """Forgets a context when its latents are no longer near those that it was computed at.

    Attributes:
        most: largest change, as an RMS relative to the latents; None forgets nothing.
        seen: latents that a context was computed in full at.
    """

    most: float | None
    seen: dict[str, Tensor] = field(default_factory=dict)

    def guard(self, states: States, context: str, latents: Tensor) -> None:
        """Look at the latents of an evaluation that is about to be made."""
        if self.most is None:
            return
        known = states.contexts()
        self.seen = {name: x for name, x in self.seen.items() if name in known}
        before = self.seen.get(context)
        if before is not None:
            scale = before.float().square().mean().sqrt()
            change = (latents.float() - before.float()).square().mean().sqrt()
            if bool(change > self.most * scale):
                states.keep(known - {context})
                before = None
        if before is None:
            self.seen[context] = latents.detach().clone()
