"""Whether a worker has made anything yet: one at which all fails is more likely to blame than its items."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genrun.runner.worker.failures import is_cancelled

if TYPE_CHECKING:
    from genrun.runner.store.records import Record


class BrokenError(Exception):
    """A worker at which every item failed."""


class Luck:
    """Counts what came of a worker's first items.

    Args:
        give_up: failures, without one success, after which luck has run out; 0 for never.
    """

    def __init__(self, give_up: int) -> None:
        self._give_up = give_up
        self._failures = 0
        self._has_made = False
        self._reason = ""

    @property
    def is_out(self) -> bool:
        """Whether nothing but failures came of the first items."""
        return 0 < self._give_up <= self._failures and not self._has_made

    def note(self, record: Record | None) -> None:
        """Count an item that this rank led; one that was cancelled says nothing."""
        if record is None or is_cancelled(record):
            return
        self._has_made = self._has_made or record.error is None
        self._failures += record.error is not None
        self._reason = (record.error or {}).get("kind", "")

    def check(self) -> None:
        """Do nothing, unless luck has run out.

        Raises:
            BrokenError: it has.
        """
        if self.is_out:
            raise BrokenError(f"the first {self._failures} items all failed here, the last one with {self._reason}")
