"""ToCa on a transformer: hooks that compute some tokens of a layer and remember the rest.

Layers that are hooked, by the names that diffusers' transformers give them: `attn`, `attn1`, `attn2` are remembered whole;
`ff` and `ffn` token by token; and in blocks of one stream (Flux, HunyuanVideo) `proj_mlp` and `proj_out`, which are one
feed-forward layer with attention's output beside it. Feed-forward layers of the text alone are always computed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.hooks.hooks import HookRegistry, ModelHook
from torch import Tensor, nn

from genrun.adapters.caches.contract import Place
from genrun.adapters.caches.diffusers_hooks import beneath_split
from genrun.adapters.caches.toca_tokens import SplitTokens, Streams, control, influence, spread
from genrun.adapters.parallel.sharing import sharing_of
from genrun.adapters.pipeline.denoisers import blocks_of
from genrun.adapters.shapes import Chosen, ChosenTokens, Scores
from genrun.adapters.shapes import Tokens as TokenTensor

HOOK = "genrun_toca"
ATTENTION, FEED_FORWARD = ("attn", "attn1", "attn2"), ("ff", "ffn")
ENTER, LEAVE = "proj_mlp", "proj_out"


@dataclass(frozen=True)
class Settings:
    """The options of `Toca` that its hooks go by.

    Attributes:
        interval: every how many evaluations all tokens are computed.
        share: share of the tokens that are computed again, by depth and time, both from 0 to 1.
        control_weight: of the score for attention to the text.
        age_weight: of the score for a token's age.
        bonus: by which the best of four neighbours is raised, in times its score.
        memory_bytes: most that a context may remember.
    """

    interval: int
    share: Callable[[float, float], float]
    control_weight: float
    age_weight: float
    bonus: float
    memory_bytes: float


@dataclass
class BlockState:
    """The states of a block in one context.

    Attributes:
        outputs: of the layers that are hooked, by name.
        score: of each token of its feed-forward layer, (B, n).
        age: evaluations since each was computed, (B, n).
        chosen: tokens to compute in this evaluation: their places, (B, k), or on ranks that share them a mask, (B, n).
        tokens: those of the layer, where ranks share them; score and age are of all of them.
        size_bytes: of the outputs, on all ranks of the call.
    """

    outputs: dict[str, Any] = field(default_factory=dict)
    score: Scores | None = None
    age: Scores | None = None
    chosen: Tensor | None = None
    tokens: SplitTokens | None = None
    size_bytes: int = 0


@dataclass
class ContextState:
    """The states of one context.

    Attributes:
        visits: evaluations so far.
        blocks: by depth; blocks that do not fit into memory are not among them.
        size_bytes: of all outputs.
        full: whether memory is spent.
    """

    visits: int = 0
    blocks: dict[int, BlockState] = field(default_factory=dict)
    size_bytes: int = 0
    full: bool = False


class TocaStates:
    """ToCa's states of one transformer, and the hooks that use them."""

    def __init__(self, options: Settings, model: nn.Module, place: Place) -> None:
        self.options, self.place, self.sharing = options, place, sharing_of(model)
        self._model, self._states = model, dict[str, ContextState]()
        self.current = ContextState()
        self.fresh = True
        blocks = blocks_of(model)
        with beneath_split(model):
            for depth, block in enumerate(blocks):
                _BlockHooks(self, block, depth, depth / max(len(blocks) - 1, 1)).register()

    def select(self, place: Place) -> None:
        """Begin an evaluation in a context."""
        self.current = self._states.setdefault(place.context, ContextState())
        self.fresh = self.current.visits % self.options.interval == 0
        self.current.visits += 1
        if self.fresh:
            self.current.blocks.clear()
            self.current.size_bytes, self.current.full = 0, False

    def keep(self, contexts: Collection[str]) -> None:
        """Forget every other context."""
        self._states = {name: state for name, state in self._states.items() if name in set(contexts)}
        self.current = ContextState()

    def contexts(self) -> set[str]:
        """Return the contexts that have states."""
        return set(self._states)

    def size_bytes(self) -> int:
        """Return the size of all remembered outputs."""
        return sum(state.size_bytes for state in self._states.values())

    def detach(self) -> None:
        """Remove the hooks."""
        self.keep(())
        registry = HookRegistry.check_if_exists_or_initialize(self._model)
        registry.remove_hook(HOOK, recurse=True)

    def remember(self, depth: int, name: str, output: Any) -> None:
        """Remember a layer's output, unless the limit is reached: then neither this block nor those after it."""
        state = self.current
        if not self.fresh or state.full or self.options.interval == 1:
            return
        parts = _parts(output)
        size = int(self.sharing.total([sum(part.numel() * part.element_size() for part in parts)], parts[0])[0])
        if state.size_bytes + size > self.options.memory_bytes:
            state.size_bytes -= state.blocks.pop(depth, BlockState()).size_bytes
            state.full = True
            return
        state.size_bytes += size
        block = state.blocks.setdefault(depth, BlockState())
        block.outputs[name] = output
        block.size_bytes += size

    def block(self, depth: int) -> BlockState | None:
        """Return the states of a block; None where it is to be computed in full."""
        return None if self.fresh else self.current.blocks.get(depth)

    def choose(self, state: BlockState, tokens: TokenTensor, depth_part: float, streams: Streams) -> Chosen:
        """Choose the tokens of a block to compute in this evaluation, and start their age again."""
        if state.tokens is None and self.sharing.tokens is not None:
            state.tokens = streams.tokens(self.sharing.tokens, tokens)
        batch, count = tokens.shape[0], tokens.shape[1] if state.tokens is None else state.tokens.count
        if state.chosen is None:
            options, time = self.options, self.place.index / max(self.place.num_steps - 1, 1)
            if state.age is None:
                state.age = tokens.new_zeros(batch, count, dtype=torch.float32)
            state.age += 1
            score = options.age_weight * state.age / options.interval
            if state.score is not None and state.score.shape == score.shape:
                score = score + state.score
            number = round(options.share(depth_part, time) * count)
            best = spread(score, options.bonus).topk(number, dim=1).indices
            state.age.scatter_(1, best, 0.0)
            # One rank takes them by their places. Of several each has another number of them, and takes its own by a mask.
            state.chosen = best if state.tokens is None else state.tokens.mine(state.age == 0)
        return state.chosen


@dataclass
class _BlockHooks:
    """The hooks of one block, which see its queries and keys while attention runs in full."""

    states: TocaStates
    block: nn.Module
    depth: int
    depth_part: float
    seen: dict[str, Tensor] = field(default_factory=dict)
    streams: Streams = field(default_factory=Streams)

    def register(self) -> None:
        """Hook the layers, and on ranks that share the tokens the block, to see how many of each stream it is given."""
        if self.states.sharing.tokens is not None:
            self._hook(self.block, self.streams)
        for name, layer in self.block.named_children():
            if name in ATTENTION:
                self._hook(layer, _Attention(self, name, layer))
            elif name in FEED_FORWARD:
                self._hook(layer, _FeedForward(self, name))
            elif name == ENTER:
                self._hook(layer, _Enter(self))
            elif name == LEAVE and hasattr(self.block, ENTER):
                self._hook(layer, _FeedForward(self, name))

    def _hook(self, layer: nn.Module, hook: ModelHook) -> None:
        HookRegistry.check_if_exists_or_initialize(layer).register_hook(hook, HOOK)

    def watch(self, name: str) -> Any:
        """Return a hook that keeps the output of a projection of attention."""

        def see(_: nn.Module, __: Any, output: Tensor) -> None:
            self.seen[name] = output

        return see

    def score(self, layer: Any, text_tokens: int, *, cross: bool) -> None:
        """Score the tokens from what was seen of an attention layer that has just run."""
        options, state = self.states.options, self.states.current.blocks.get(self.depth)
        query, key = self.seen.get("to_q"), self.seen.get("to_k")
        if state is None or query is None or key is None:
            return
        text = key if cross else self.seen.get("add_k_proj")
        if (group := self.states.sharing.tokens) is not None:
            tokens = self.streams.tokens(group, query)
            query, key = tokens.gather(query), key if cross else tokens.gather(key)
            text_tokens = tokens.count_of_text(text_tokens)
            if text is not None and not cross:
                text = SplitTokens.seen(group, text.shape[1], 0, text).gather(text)
        if text is None and text_tokens:
            text = key[:, :text_tokens]
        score = 0.0 if cross else influence(query, key, layer.heads)
        if text is not None:
            score = score + options.control_weight * control(query, text, layer.heads)
        if isinstance(score, Tensor):
            state.score = score if state.score is None or state.score.shape != score.shape else state.score + score


class _Attention(ModelHook):
    """An attention layer, remembered whole."""

    remembers = True

    def __init__(self, owner: _BlockHooks, name: str, layer: nn.Module) -> None:
        super().__init__()
        self.owner, self.name = owner, name
        self._watched = [layer_ for name_ in ("to_q", "to_k", "add_k_proj") if (layer_ := _child(layer, name_))]
        self._names = [name_ for name_ in ("to_q", "to_k", "add_k_proj") if _child(layer, name_)]

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Compute in full and score the tokens, or hand out what is remembered."""
        owner, states = self.owner, self.owner.states
        known = states.block(owner.depth)
        if known is not None and self.name in known.outputs:
            known.chosen = None
            return known.outputs[self.name]
        if not states.fresh or states.options.interval == 1 or states.current.full:
            return _forward(self)(*args, **kwargs)
        watch = [
            layer.register_forward_hook(owner.watch(name))
            for name, layer in zip(self._names, self._watched, strict=True)
        ]
        try:
            output = _forward(self)(*args, **kwargs)
        finally:
            for hook in watch:
                hook.remove()
        states.remember(owner.depth, self.name, output)
        text: Any = kwargs.get("encoder_hidden_states")
        cross = self.name == "attn2" and (text is not None or (len(args) > 1 and args[1] is not None))
        concatenated = text is not None and "add_k_proj" not in self._names and not cross
        length = 0 if text is None or not concatenated else text.shape[1]
        owner.score(module, length, cross=cross)
        owner.seen.clear()
        return output


class _FeedForward(ModelHook):
    """A layer that treats every token alone: `ff`, `ffn`, or `proj_out` of a block of one stream."""

    remembers = True

    def __init__(self, owner: _BlockHooks, name: str) -> None:
        super().__init__()
        self.owner, self.name = owner, name

    def new_forward(self, module: nn.Module, tokens: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Compute all tokens, or those that matter."""
        owner, states = self.owner, self.owner.states
        known = states.block(owner.depth)
        if known is None or self.name not in known.outputs:
            output = _forward(self)(tokens, *args, **kwargs)
            states.remember(owner.depth, self.name, output)
            return output
        chosen = states.choose(known, tokens, owner.depth_part, owner.streams)
        if _some(chosen):
            fresh = _forward(self)(_take(tokens, chosen), *args, **kwargs)
            known.outputs[self.name] = _put(known.outputs[self.name], chosen, fresh)
        return known.outputs[self.name]


class _Enter(ModelHook):
    """`proj_mlp` of a block of one stream: tokens that `proj_out` will not read are left at zero."""

    def __init__(self, owner: _BlockHooks) -> None:
        super().__init__()
        self.owner = owner

    def new_forward(self, module: nn.Module, tokens: Tensor) -> Tensor:
        """Compute all tokens, or those that matter."""
        owner, states = self.owner, self.owner.states
        known = states.block(owner.depth)
        if known is None or LEAVE not in known.outputs:
            return _forward(self)(tokens)
        known.chosen = None
        chosen = states.choose(known, tokens, owner.depth_part, owner.streams)
        width = getattr(module, "out_features", tokens.shape[-1])
        output = tokens.new_zeros(*tokens.shape[:-1], width)
        return _put(output, chosen, _forward(self)(_take(tokens, chosen))) if _some(chosen) else output


def _forward(hook: ModelHook) -> Any:
    """Return the hooked layer's own forward."""
    return hook.fn_ref.original_forward


def _child(module: nn.Module, name: str) -> nn.Module | None:
    return getattr(module, name, None)


def _parts(output: Any) -> list[Tensor]:
    parts = output if isinstance(output, tuple | list) else (output,)
    return [part for part in parts if isinstance(part, Tensor)]


def _some(chosen: Chosen) -> bool:
    return bool(chosen.any()) if chosen.dtype == torch.bool else chosen.shape[1] > 0


def _take(tokens: TokenTensor, chosen: Chosen) -> ChosenTokens:
    """Gather the chosen tokens, (B, k, C); (1, k, C) of all rows where they are chosen by a mask."""
    if chosen.dtype == torch.bool:
        return tokens[chosen].unsqueeze(0)
    return tokens.gather(1, chosen.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def _put(tokens: TokenTensor, chosen: Chosen, fresh: ChosenTokens) -> TokenTensor:
    """Replace the chosen tokens by those computed anew."""
    if chosen.dtype == torch.bool:
        return tokens.masked_scatter(chosen.unsqueeze(-1), fresh)
    return tokens.scatter(1, chosen.unsqueeze(-1).expand(-1, -1, fresh.shape[-1]), fresh)
