"""DBCache of cache-dit (github.com/vipshop/cache-dit): run the first and last blocks, reuse the others' residual."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from genrun.adapters.caches.contract import Place, States
from genrun.adapters.parallel.support import TOKENS
from genrun.adapters.pipeline import denoisers

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from genrun.adapters.parallel.sharing import Sharing

LEFT_BEHIND = ("forward", "_is_patched")
"""Attributes of a transformer that cache-dit does not give back: its own patch, or one of ours bound once too often."""


@dataclass(frozen=True)
class DBCache:
    """Run the first and the last blocks, and those between only where the first ones' residual has changed.

    Memory of a context: five hidden states for each list of blocks.

    Attributes:
        threshold: largest mean absolute change of the first blocks' residual, relative to it; 0 computes always.
        first: blocks at the start that are always run.
        last: blocks at the end that are always run.
        warmup: first evaluations of a context that are computed in full.
    """

    needs_order: ClassVar[str] = ""
    needs_every_step: ClassVar[bool] = False
    needs_whole: ClassVar[Mapping[str, str]] = {
        TOKENS: "cache-dit compares what the first block is given before it is shared out with what it returns"
    }
    models: ClassVar[tuple[str, ...]] = (
        denoisers.FLUX,
        denoisers.HUNYUAN,
        denoisers.WAN,
        denoisers.COGVIDEOX,
        denoisers.QWEN,
        denoisers.LTX,
    )
    package: ClassVar[str] = "cache-dit"

    threshold: float = 0.08
    first: int = 1
    last: int = 0
    warmup: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < float("inf"):
            raise ValueError(f"threshold: must be finite and not negative, got {self.threshold}")
        for name, least in (("first", 1), ("last", 0), ("warmup", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: must be at least {least}, got {getattr(self, name)}")

    def attach(self, model: Module, place: Place) -> States:
        """Have cache-dit run the blocks."""
        return _Contexts(self, model)


class _Contexts:
    """cache-dit keeps one context for each list of blocks; here there is a set of them for each of our contexts."""

    def __init__(self, options: DBCache, model: Any) -> None:
        import logging

        # It tells of every model that it touches.
        logging.getLogger("CACHE_DIT").setLevel(logging.ERROR)
        import cache_dit
        from cache_dit.caching.cache_contexts.cache_context import CachedContext

        from genrun.adapters.parallel.sharing import sharing_of

        self._silence(logging.ERROR)
        self._config = cache_dit.DBCacheConfig(
            Fn_compute_blocks=options.first,
            Bn_compute_blocks=options.last,
            residual_diff_threshold=options.threshold,
            max_warmup_steps=options.warmup,
            enable_separate_cfg=False,
        )
        self._dit, self._context, self._model = cache_dit, CachedContext, model
        self._before = {name: vars(model).get(name) for name in LEFT_BEHIND}
        self._order = list(model._modules)
        # As if its patch of Flux's forward had been made: the outputs are the same without it, and it would drop what shares
        # a call's guidance out or loads its weights.
        model._is_patched = True
        # It would call what lies beneath accelerate's hook itself, past whatever is wrapped around the two.
        offloading = vars(model).pop("_hf_hook", None)
        cache_dit.enable_cache(model, cache_config=self._config)
        if offloading is not None:
            model._hf_hook = offloading
        decide_together(model._context_manager, sharing_of(model))
        self._current: dict[str, Any] = model._context_manager._cached_context_manager
        self._states: dict[str, dict[str, Any]] = {}

    @staticmethod
    def _silence(level: int) -> None:
        """Set the level of the package's loggers, of which every module has its own."""
        import logging

        for name in list(logging.root.manager.loggerDict):
            if name.startswith(("CACHE_DIT", "cache_dit")):
                logging.getLogger(name).setLevel(level)

    def select(self, place: Place) -> None:
        """Put the states of a context where cache-dit looks for its own."""
        if place.context not in self._states:
            names = self._model._context_names
            fresh = {name: self._context(name=name, cache_config=self._config) for name in names}
            self._states[place.context] = fresh
        self._current.update(self._states[place.context])

    def keep(self, contexts: Collection[str]) -> None:
        """Forget every other context."""
        self._states = {name: state for name, state in self._states.items() if name in set(contexts)}
        held = {id(context) for state in self._states.values() for context in state.values()}
        for name, context in self._current.items():
            if id(context) not in held:
                self._current[name] = self._context(name=name, cache_config=self._config)

    def contexts(self) -> set[str]:
        """Return the contexts that have states."""
        return set(self._states)

    def detach(self) -> None:
        """Give the blocks back."""
        self.keep(())
        # It would bind the forward again, which fails on one that a hook wraps; it is put back below.
        vars(self._model).pop("_original_forward", None)
        self._dit.disable_cache(self._model)
        for name, value in self._before.items():
            vars(self._model).pop(name, None)
            if value is not None:
                object.__setattr__(self._model, name, value)
        # It swaps the lists of blocks in and out, which puts them last, and other caches find the first block by its place.
        modules = {name: self._model._modules.pop(name) for name in self._order}
        self._model._modules.update(modules)


def decide_together(manager: Any, sharing: Sharing) -> None:
    """Have a context manager of cache-dit decide with the ranks of a call, and with no others.

    By itself it takes the mean over all ranks of the launch as soon as there are several, whatever each of them evaluates:
    it waits for ever where one has more points than another, and decides by other points and items where none has.
    """
    plain = manager.similarity

    def similarity(before: Tensor, now: Tensor, *, threshold: float, **others: Any) -> bool:
        others["parallelized"] = False
        if sharing.call is None or not 0 < threshold < 1 or before.shape != now.shape:
            return plain(before, now, threshold=threshold, **others)
        change, size = sharing.means((before - now).abs(), before.abs())
        difference = (change / size).item()
        manager.add_residual_diff(difference)
        return difference < threshold

    manager.similarity = similarity
