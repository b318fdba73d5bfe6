"""A cache on a pipeline: name the context of each evaluation, drop states that are done, count block evaluations.

Blocks are counted by the work of their linear layers, in units of whole blocks. Which of them an evaluation skips is decided
in each cache's own module, such as `first_block.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from torch import Tensor, nn

from genrun.adapters.caches import registry
from genrun.adapters.caches.contract import Cache, CacheError, Place, States, refusal
from genrun.adapters.parallel.sharing import sharing_of
from genrun.adapters.pipeline.denoisers import blocks_of, transformers_of
from genrun.solvers.contract import Solver
from genrun.solvers.sequential import Sequential


class BlockMeter:
    """Counts what a transformer's blocks compute.

    A block is nearly all linear layers, and caches that skip part of one (attention, some tokens, half of the batch) skip
    their rows. Attention's own products are left out; they go with the projections before them. What a whole call of a
    branch costs is learned from its first, for which no cache can have anything. Of a call that several ranks compute
    together each counts its part, so that their counts add up to those of one rank that makes all calls alone.

    Args:
        model: the transformer.
        branch: which branch of the guidance is at work, or None where nothing is cached and all blocks are computed.

    Attributes:
        done: block evaluations made.
        asked: block evaluations of the same calls without a cache.
    """

    def __init__(self, model: nn.Module, branch: Callable[[], str] | None = None) -> None:
        self._blocks, self._branch, self._sharing = blocks_of(model), branch, sharing_of(model)
        self._whole: dict[str, float] = {}
        self._work = 0
        self.done = self.asked = 0.0
        self._hook = model.register_forward_hook(self._close)
        self._counted: list[tuple[nn.Linear, Any]] = []
        if branch is None:
            return
        layers = {id(m): m for block in self._blocks for m in block.modules() if isinstance(m, nn.Linear)}
        for layer in layers.values():
            self._counted.append((layer, layer.__dict__.get("forward")))
            layer.forward = self._counting(layer)

    def begin(self) -> None:
        """Start to count a sample."""
        self._whole.clear()
        self.discard()

    def discard(self) -> None:
        """Start to count again: what was made so far counts elsewhere."""
        self._work = 0
        self.done = self.asked = 0.0

    def detach(self) -> None:
        """Stop counting."""
        self._hook.remove()
        for layer, before in self._counted:
            if before is None:
                del layer.forward
            else:
                layer.forward = before

    def _counting(self, layer: nn.Linear) -> Callable[..., Tensor]:
        """Wrap a layer's forward to count its rows, beneath a cache's hook, which may hand out rows that it remembers."""
        plain = layer.forward

        @wraps(plain)
        def forward(*args: Any, **kwargs: Any) -> Tensor:
            output = plain(*args, **kwargs)
            self._work += output.numel() * layer.in_features
            return output

        return forward

    def _close(self, _: nn.Module, __: Any, output: Any) -> None:
        """Count a call of the model at its end."""
        work, self._work = self._work, 0
        sharing, whole = self._sharing, 0.0
        if self._branch is not None:
            branch = self._branch()
            # The first call of a branch may be made here and count elsewhere: every rank makes an item's first evaluation.
            if branch not in self._whole and (sharing.is_mine or work):
                self._whole[branch] = sharing.total([work], _tensor(output))[0]
            whole = self._whole.get(branch, 0.0)
        if sharing.is_mine:
            part = 1 / sharing.size
            self.done += len(self._blocks) * (work / whole if whole else part)
            self.asked += len(self._blocks) * part


def _tensor(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


APART = "apart"
"""Context of a model call that is not of the pipeline under the solver: it begins anew each time, and computes all."""

ROUNDS_KEPT = 2
"""Points remembered at a time, in rounds of K points each: this round's and the last one's."""


@dataclass(frozen=True)
class CurrentEvaluation:
    """The current evaluation, as the scheduler knows it.

    Attributes:
        index: its step.
        num_steps: N.
        timestep: the scheduler's time there.
        evaluation: how many came before it in this pipeline call, which tells its model calls apart from another's.
        probe: whether it lies beside a state of the same step, and is asked for the difference to that.
    """

    index: int
    num_steps: int
    timestep: float
    evaluation: int
    probe: bool = False


class CacheManager:
    """Keeps a cache's states for one pipeline.

    At most 2 K points are remembered on all ranks together, the least lately asked for are dropped first: a point's state
    costs what the cache's docstring says, for each branch of the guidance. Every sample starts with nothing.

    Args:
        cache: what to attach; None counts block evaluations and caches nothing.
        pipe: the pipeline.
        solver: the solver, whose K says how many points are evaluated a round.

    Raises:
        CacheError: the cache cannot be used on this pipeline, or with this solver.
    """

    def __init__(self, cache: Cache | None, pipe: Any, solver: Solver) -> None:
        self.cache, self.workers = cache, max(solver.workers, 1)
        self._models: Sequence[nn.Module] = transformers_of(pipe)
        if cache is not None:
            self._check(cache, pipe, solver)
        self._place, self._calls = Place(in_order=self.workers == 1), 0
        self._last = (-1, -1)
        self._branch: str | None = None
        self._owners: OrderedDict[int, int] = OrderedDict()
        self._states: list[States] = []
        self._meters: list[BlockMeter] = []

    @property
    def blocks(self) -> tuple[float, float]:
        """Block evaluations of this rank in the current sample: made, and asked for."""
        return sum(meter.done for meter in self._meters), sum(meter.asked for meter in self._meters)

    def discard(self) -> None:
        """Count again from here on: the evaluation so far counts on another rank."""
        for meter in self._meters:
            meter.discard()

    def of_slot(self, numbers: Sequence[float], like: Tensor) -> list[float]:
        """Sum numbers over the ranks that make the same evaluations, which call this alike, on the device of a tensor."""
        return sharing_of(self._models[0]).total_of_slot(numbers, like) if self._models else list(numbers)

    @property
    def contexts(self) -> set[str]:
        """Contexts of which something is remembered on this rank."""
        return set[str]().union(*(states.contexts() for states in self._states))

    @contextmanager
    def attached(self, now: Callable[[], CurrentEvaluation | None]) -> Iterator[None]:
        """Attach the cache to the pipeline's transformers, inside a with block.

        Args:
            now: the current evaluation; None outside a call of the pipeline, when another calls a model that it shares.
        """
        with ExitStack() as stack:
            for model in self._models:
                meter = BlockMeter(model, None if self.cache is None else lambda: self._place.branch)
                stack.callback(meter.detach)
                self._meters.append(meter)
                if self.cache is not None:
                    self._attach(self.cache, model, now, stack)
            yield

    def begin(self) -> None:
        """Forget the sample before."""
        self._owners.clear()
        self._forget(())
        self._last, self._calls = (-1, -1), 0
        for meter in self._meters:
            meter.begin()

    def owners(self, indices: Sequence[int], size: int, rank: int) -> list[int]:
        """Assign each point of a round to a rank: the one that evaluated it before, else the one with the least to do.

        Every rank comes to the same answer. What this rank remembers of points that are no longer kept is dropped. An index
        that comes again is a probe, which has no state and goes to whoever has the least to do.
        """
        load = [0] * size
        for index in {*indices} & {*self._owners}:
            load[self._owners[index]] += 1
        owners = list[int]()
        for place, index in enumerate(indices):
            probe = index in indices[:place]
            owner = None if probe else self._owners.get(index)
            if owner is None:
                owner = min(range(size), key=load.__getitem__)
                load[owner] += 1
            owners.append(owner)
            if not probe:
                self._owners[index] = owner
                self._owners.move_to_end(index)
        while len(self._owners) > ROUNDS_KEPT * self.workers:
            self._owners.popitem(last=False)
        self._forget([index for index, owner in self._owners.items() if owner == rank])
        return owners

    def end(self) -> None:
        """Free the memory of a sample that is done."""
        self._owners.clear()
        self._forget(())

    def _check(self, cache: Cache, pipe: Any, solver: Solver) -> None:
        kind = registry.kind_of(cache)
        names = [type(model).__name__ for model in self._models] or [""]
        splits = frozenset[str]().union(*(sharing_of(model).splits for model in self._models))
        for name in names:
            sequential = isinstance(solver, Sequential)
            reason = refusal(kind, cache, name, self.workers, sequential=sequential, splits=splits)
            if reason is not None:
                raise CacheError(f"{type(pipe).__name__}: {reason}")

    def _attach(
        self, cache: Cache, model: nn.Module, now: Callable[[], CurrentEvaluation | None], stack: ExitStack
    ) -> None:
        states = cache.attach(model, self._place)
        stack.callback(states.detach)
        self._states.append(states)
        stack.enter_context(self._named_branches(model))

        drift = Drift(getattr(cache, "drift", None))

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            moment = now()
            if moment is None:
                self._place.index, self._place.branch, self._place.context = 0, APART, APART
                states.keep(states.contexts() - {APART})
                states.select(self._place)
                return
            self._arrive(moment)
            if not self._place.in_order:
                latents = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
                drift.check(states, self._place.context, latents)
            states.select(self._place)

        stack.callback(model.register_forward_pre_hook(before, with_kwargs=True).remove)

    def _arrive(self, moment: CurrentEvaluation) -> None:
        """Tell the place of a model call that is about to be made."""
        place, at = self._place, (moment.evaluation, moment.index)
        if at != self._last:
            if place.in_order and self._last[0] < moment.evaluation and moment.index <= self._last[1]:
                # The solver takes steps back (collocation, a gap that was too long): what they left is of no other state.
                self._forget(())
            self._last, self._calls = at, 0
        place.index, place.num_steps, place.timestep = moment.index, moment.num_steps, moment.timestep
        place.branch = self._branch or f"call{self._calls}"
        own = f"{moment.index}.{moment.evaluation}" if moment.probe else moment.index
        place.context = place.branch if place.in_order else f"{place.branch}@{own}"
        self._calls += 1

    def _forget(self, indices: Collection[int]) -> None:
        """Keep the contexts of some points, or all of a branch that goes from step to step."""
        kept = {str(index) for index in indices}
        for states in self._states:
            over_steps = bool(kept) and self._place.in_order
            states.keep([name for name in states.contexts() if over_steps or name.rpartition("@")[2] in kept])

    @contextmanager
    def _named_branches(self, model: nn.Module) -> Iterator[None]:
        """Learn the name that the pipeline gives to a branch of the guidance, where it gives one."""
        if not hasattr(model, "cache_context"):
            yield
            return

        @contextmanager
        def cache_context(name: str, **_: Any) -> Iterator[None]:
            self._branch = name
            try:
                yield
            finally:
                self._branch = None

        object.__setattr__(model, "cache_context", cache_context)
        try:
            yield
        finally:
            object.__delattr__(model, "cache_context")


@dataclass
class Drift:
    """Forgets a context when its latents are no longer near those that it was computed at.

    Attributes:
        most: largest change, as an RMS relative to the latents; None forgets nothing.
        seen: latents that a context was computed in full at.
    """

    most: float | None
    seen: dict[str, Tensor] = field(default_factory=dict)

    def check(self, states: States, context: str, latents: Tensor) -> None:
        """Forget a context whose latents have moved too far, before an evaluation there."""
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
