"""Hooks of diffusers: their states held apart by our contexts, and what they lack for several ranks and for SD3.

diffusers keys some states by the name of a cache context (`StateManager`), and keeps others in the hook itself, shared by
all calls of the model: cond and uncond would then read each other's. Those are swapped before every call.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from diffusers.hooks.context_parallel import ContextParallelGatherHook, ContextParallelSplitHook
from diffusers.hooks.first_block_cache import FBCBlockHook, FBCHeadBlockHook
from diffusers.hooks.hooks import CacheContext, HookRegistry, ModelHook, StateManager
from torch import Tensor
from torch.nn import Module

from genrun.adapters.caches.contract import Place
from genrun.adapters.parallel.sharing import Sharing
from genrun.adapters.pipeline.denoisers import blocks_of

TEXT_END_HOOK = "genrun_text_end"

Prepare = Callable[[Any, Place], None]


class HookedStates:
    """The states of some hooks of a model.

    Args:
        model: the root that hooks were registered under.
        names: of the hooks.
        prepare: told a state and the place before every call, to say where on the trajectory it is.
        detached: called when the hooks are removed.
    """

    def __init__(
        self,
        model: Module,
        names: Sequence[str],
        prepare: Prepare | None = None,
        detached: Callable[[], None] | None = None,
    ) -> None:
        self._model, self._names, self._prepare, self._detached = model, names, prepare, detached
        hooks: list[Any] = list(hooks_of(model, names))
        managers = (value for hook in hooks for value in vars(hook).values() if isinstance(value, StateManager))
        self._managers: list[StateManager] = list(dict.fromkeys(managers))
        self._bare = [hook for hook in hooks if hasattr(hook, "state")]
        self._swapped: list[dict[str, Any]] = [{} for _ in self._bare]
        HookRegistry.check_if_exists_or_initialize(model).invalidate_child_registries_cache()

    def select(self, place: Place) -> None:
        """Let hooks read and write the states of a context."""
        for manager in self._managers:
            manager.set_context(CacheContext(place.context))
            if self._prepare is not None:
                self._prepare(manager.get_state(), place)
        for hook, states in zip(self._bare, self._swapped, strict=True):
            hook.state = states.setdefault(place.context, type(hook.state)())
            if self._prepare is not None:
                self._prepare(hook.state, place)

    def keep(self, contexts: Collection[str]) -> None:
        """Forget every other context."""
        for states in (*(manager._state_cache for manager in self._managers), *self._swapped):
            for context in states.keys() - set(contexts):
                del states[context]
        for hook in self._bare:
            hook.state = type(hook.state)()

    def contexts(self) -> set[str]:
        """Return the contexts that have states."""
        return {context for manager in self._managers for context in manager._state_cache}.union(*self._swapped)

    def detach(self) -> None:
        """Remove the hooks."""
        self.keep(())
        registry = HookRegistry.check_if_exists_or_initialize(self._model)
        for name in self._names:
            registry.remove_hook(name, recurse=True)
        registry.invalidate_child_registries_cache()
        if self._detached is not None:
            self._detached()


@contextmanager
def beneath_split(model: Module) -> Iterator[None]:
    """Have hooks that are registered meanwhile see the part of the tokens that this rank computes.

    What splits and gathers tokens on several ranks are hooks of diffusers too, on some of the modules that caches hook.
    A hook is taken out and put back as the outermost, for diffusers cannot put one beneath another. Those of the model
    itself stay: what shares its calls out is wrapped around them, and would be lost.
    """
    moved = [
        (registry, name, registry.hooks[name])
        for module in model.modules()
        if module is not model and isinstance(registry := getattr(module, "_diffusers_hook", None), HookRegistry)
        for name in registry._hook_order
        if isinstance(registry.hooks[name], ContextParallelSplitHook | ContextParallelGatherHook)
    ]
    for registry, name, _ in reversed(moved):
        registry.remove_hook(name, recurse=False)
    try:
        yield
    finally:
        for registry, name, hook in moved:
            registry.register_hook(hook, name)


def hooks_of(model: Module, names: Collection[str]) -> Iterator[Any]:
    """Iterate over the hooks of those names in a model and its modules."""
    for module in model.modules():
        registry = getattr(module, "_diffusers_hook", None)
        if registry is not None:
            yield from (hook for name, hook in registry.hooks.items() if name in names)


class Head(FBCHeadBlockHook):
    """The hook of the first block, where a call may leave out the last one (SD3's skip-layer guidance)."""

    def _should_compute_remaining_blocks(self, hidden_states_residual: Tensor) -> bool:
        unknown = self.state_manager.get_state().tail_block_residuals is None
        return unknown or super()._should_compute_remaining_blocks(hidden_states_residual)  # pyright: ignore[reportAttributeAccessIssue]


class SharedHead(Head):
    """The same, which decides by the residual of all tokens and both halves of the batch."""

    sharing: Sharing

    def _should_compute_remaining_blocks(self, hidden_states_residual: Tensor) -> bool:
        state = self.state_manager.get_state()
        before = state.head_block_residual
        if before is None or state.tail_block_residuals is None:
            return True
        change, size = self.sharing.means((hidden_states_residual - before).abs(), before.abs())
        return (change / size).item() > self.threshold


class Follower(FBCBlockHook):
    """The hook of another block, where a call may leave out the first one: its residual is then of no use."""

    @property
    def is_tail(self) -> bool:
        """Whether the block ends what the first one began."""
        return vars(self)["is_tail"] and self.state_manager.get_state().head_block_output is not None


def fit_to_calls(heads: Iterable[Any], followers: Iterable[Any], sharing: Sharing) -> None:
    """Have hooks of diffusers' first block cache see what a call leaves out, and decide with other ranks.

    Args:
        heads: hooks of first blocks.
        followers: hooks of the others.
        sharing: of the calls among ranks.
    """
    for hook in heads:
        hook.__class__ = Head
        if sharing.call is not None:
            hook.__class__, hook.sharing = SharedHead, sharing
    for hook in followers:
        hook.__class__ = Follower


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
