"""The contract of caches: options of a job file that attach themselves to a diffusion transformer.

A cache's states are kept apart by **context**, the name of the evaluation that may read them. Under a solver that evaluates
one point a round, steps come in order, and a context is a branch of the guidance ("cond"): what one step computed is used at
the next. Under a parallel solver it is a branch at a step ("cond@17"): what one round computed is used in the next, at the
same step, where inputs change less and less as the solver converges. Evaluations of one step are all made by one rank, so
that a result does not depend on the number of ranks.

Ranks that share one evaluation have a part of it each: some tokens, or one half of a doubled batch. What they leave out must
be the same, and what one rank alone would leave out: a cache goes by what all have (the step, the count of visits, the
latents), adds up its norms and scores over them (`genrun.adapters.parallel.sharing`), or says in `needs_whole` that it
cannot.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from genrun.adapters import errors
from genrun.adapters.parallel.support import BATCH, TOKENS

if TYPE_CHECKING:
    from torch.nn import Module


CacheError = errors.CacheError


@dataclass
class Place:
    """The current evaluation, as caches are told of it before every call of the model.

    Attributes:
        index: step i in 0..N-1.
        num_steps: N.
        timestep: the scheduler's time there.
        branch: of the guidance, such as "cond".
        context: name of the states that may be read.
        in_order: whether every evaluation is of a later step than the one before.
    """

    index: int = 0
    num_steps: int = 1
    timestep: float = 0.0
    branch: str = ""
    context: str = ""
    in_order: bool = True


@runtime_checkable
class States(Protocol):
    """The states of a cache on one model."""

    def select(self, place: Place) -> None:
        """Let the next call of the model read and write the states of `place.context`."""
        ...

    def keep(self, contexts: Collection[str]) -> None:
        """Forget the states of all other contexts."""
        ...

    def contexts(self) -> set[str]:
        """Return the contexts that have states."""
        ...

    def detach(self) -> None:
        """Forget all states, and restore the model."""
        ...


@runtime_checkable
class Cache(Protocol):
    """A frozen dataclass whose fields are its options in a job file.

    Attributes:
        needs_order: why it works only if evaluations come in the order of steps, or "".
        needs_every_step: whether, in addition, no step may be left out.
        needs_whole: part of an evaluation that one rank needs whole, "tokens" or "batch" -> why.
        models: class names of the transformers that it is known to work with.
        package: package that must be installed for it, besides genrun, or "".
    """

    needs_order: ClassVar[str]
    needs_every_step: ClassVar[bool]
    needs_whole: ClassVar[Mapping[str, str]]
    models: ClassVar[tuple[str, ...]]
    package: ClassVar[str]

    def attach(self, model: Module, place: Place) -> States:
        """Attach to a transformer; `place` is kept up to date. Raises CacheError."""
        ...


@dataclass(frozen=True)
class NoCache:
    """Compute every block of every evaluation."""


UNKNOWN_SPLITS = dict.fromkeys((TOKENS, BATCH), "it does not say how it decides when ranks share an evaluation")
"""`needs_whole` of a cache that does not declare it."""

SPLIT_BY = {
    TOKENS: ("all tokens of an evaluation", "parallel.ulysses and ring share them out", "parallel.time or data"),
    BATCH: (
        "both halves of the batch",
        "parallel.cfg: 2 puts each on a rank of its own",
        "cfg: 1 and parallel.time: 2",
    ),
}
"""Split part of a call -> its description, the job keys that split it, and the alternative to suggest."""


def split_refusal(kind: str, cache: Cache, splits: Collection[str]) -> str | None:
    """Say why a cache cannot be used on a mesh that splits an evaluation so, with a remedy; None where it can."""
    needs = getattr(cache, "needs_whole", UNKNOWN_SPLITS)
    for split in sorted({*splits} & {*needs}):
        what, how, instead = SPLIT_BY[split]
        return f"{kind} needs {what} on one rank, and {how}: {needs[split]}. Use {instead}, or cache first_block or pab"
    return None


def refusal(
    kind: str, cache: Cache, model: str | None, workers: int, *, sequential: bool, splits: Collection[str] = ()
) -> str | None:
    """Say why a cache cannot be used, with a remedy; None where it can. Loads nothing.

    Args:
        kind: the cache's name.
        cache: the cache.
        model: class name of the transformer; None where it is not known yet, "" where there is none.
        workers: K of the solver.
        sequential: whether the solver is the sequential one.
        splits: what of an evaluation is split among ranks.
    """
    if cache.package and not find_spec(cache.package.replace("-", "_")):
        return f"{kind} needs {cache.package}, which is not installed: pip install {cache.package}"
    if cache.needs_order and (workers > 1 or (cache.needs_every_step and not sequential)):
        orders = "solver sequential" if cache.needs_every_step else "solver sequential, or workers: 1"
        return (
            f"{kind} needs evaluations in the order of steps: {cache.needs_order}. "
            f"Use {orders}; or cache first_block, pab, toca or dbcache"
        )
    if model == "":
        return f"{kind} caches blocks of a diffusion transformer, and this pipeline has a UNet: leave cache out"
    if model is not None and model not in cache.models:
        return (
            f"{kind} does not work on {model}, but on {', '.join(cache.models)}: choose another cache, or leave it out"
        )
    unmet = getattr(cache, "unmet", None)
    return (unmet(model) if unmet is not None else None) or split_refusal(kind, cache, splits)
