"""No cache: every evaluation computes every block."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NoCache:
    """Compute every block of every evaluation."""
