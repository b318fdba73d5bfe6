"""Errors of requests that cannot be met; the message names what, why, and a remedy."""

from genrun.solvers.contract import SolverError


class RefusedError(TypeError):
    """A feature of a pipeline that cannot be sampled in parallel; the message names it."""


class CacheError(SolverError):
    """A cache or attention kernel that cannot be used as asked; the message names it, the reason and a remedy."""
