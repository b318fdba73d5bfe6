"""What a pipeline keeps from step to step beside its latents: it steps with them, or is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import genrun
from genrun.adapters.checkpoint.diffusers_source import Loops
from genrun.adapters.errors import RefusedError
from genrun.adapters.scheduler import kept
from genrun.adapters.scheduler.between_steps import Casts
from tests.tiny import build, generator, latents_of
from tests.tiny.loops import EACH_WAY, MATRIX, STEPS, Tiny, df, on_ranks
from tests.unit.test_loops import STEPS_OF_MODELS, arguments, check_exact


class Buffer:
    """A running average, as guiders have."""

    def __init__(self) -> None:
        self.average: Any = 0
        self.calls = 0

    def update(self, x: Tensor) -> Tensor:
        self.average = x + 0.5 * self.average
        return self.average


class Momentum(Tiny):
    """A loop whose model output is averaged with those before, in an object of its own."""

    def __call__(self) -> Tensor:
        self.scheduler.set_timesteps(STEPS)
        x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
        self.buffer = Buffer()
        for i, t in enumerate(self.scheduler.timesteps):
            x = self.scheduler.step(self.guided(self.model(x, t), i), t, x, return_dict=False)[0]
        return x

    def guided(self, output: Tensor, i: int) -> Tensor:
        del i
        return self.buffer.update(output)


class InPlace(Momentum):
    """The same, in the memory of one tensor."""

    def guided(self, output: Tensor, i: int) -> Tensor:
        if i == 0:
            self.buffer.average = torch.zeros_like(output)
        return self.buffer.average.mul_(0.5).add_(output).clone()


class InATuple(Momentum):
    """Two of them, in a tuple in a list; after every call the last one is another's."""

    def guided(self, output: Tensor, i: int) -> Tensor:
        if i == 0:
            self.buffer.average = [(output * 0.1, output)]
        first, second = self.buffer.average[0]
        self.buffer.average = [(second + output, 0.5 * first.tanh())]
        return output + self.buffer.average[0][0]


class OnThePipeline(Momentum):
    """An attribute of the pipeline itself, which lasts from call to call."""

    last: Tensor | None = None

    def guided(self, output: Tensor, i: int) -> Tensor:
        del i
        self.last = output if self.last is None else output - 0.3 * self.last
        return self.last


class Counting(Momentum):
    """Calls are counted, and the step before is remembered."""

    last = 3

    def guided(self, output: Tensor, i: int) -> Tensor:
        self.buffer.calls += 2
        output = output * (self.buffer.calls + self.last) / STEPS
        self.last = i
        return output


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((kind, "flow-euler") for kind in (Momentum, InPlace, InATuple, OnThePipeline, Counting)),
        *((kind, name) for kind in (Momentum, Counting) for name in ("dpm-2m", "euler-ancestral")),
    ],
)
def test_what_is_kept_steps_with_the_latents(kind: type[Momentum], name: str) -> None:
    plain = two_calls(kind(MATRIX[name]()))
    for solver, options in EACH_WAY.items():
        fresh = kind(MATRIX[name]())
        with genrun.parallelize(fresh, solver, **options):
            assert torch.equal(two_calls(fresh), plain), solver


def test_a_variable_of_the_loop_that_is_taken_over_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Variable(Tiny):
        def __call__(self) -> Tensor:
            self.scheduler.set_timesteps(STEPS)
            x, mean = torch.ones(1, 3, 4, 4), None
            for t in self.scheduler.timesteps:
                output = self.model(x, t)
                mean = output if mean is None else 0.5 * (mean + output)
                x = self.scheduler.step(mean, t, x, return_dict=False)[0]
            return x

    loops = Loops(steps=True, several=False, repeats=(), carried=("mean",))
    monkeypatch.setattr(kept, "loops_of_type", lambda _: loops)
    pipe = Variable(MATRIX["flow-euler"]())
    plain = pipe()
    with genrun.parallelize(pipe, "sequential"):
        assert torch.equal(pipe(), plain)
    refusal = pytest.raises(
        RefusedError, match=r"takes `mean` over from one step to the next, .* use solver sequential"
    )
    with genrun.parallelize(pipe, "ropa"), refusal:
        pipe()


def test_a_variable_that_a_loop_casts_and_repeats_once_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Masked(Tiny):
        def __call__(self) -> Tensor:
            self.scheduler.set_timesteps(STEPS)
            x = torch.randn(2, 3, 4, 4, generator=generator(1))
            mask = torch.rand(1, 3, 4, 4, generator=generator(2))
            for t in self.scheduler.timesteps:
                if mask.shape[0] < 2:
                    mask = mask.repeat(2, 1, 1, 1).bfloat16()
                output = self.model(x * mask.bfloat16(), t)
                x = self.scheduler.step(output, t, x, return_dict=False)[0]
            return x

    loops = Loops(steps=True, several=False, repeats=(), carried=("mask",))
    monkeypatch.setattr(kept, "loops_of_type", lambda _: loops)
    pipe = Masked(MATRIX["flow-euler"]())
    plain = pipe()
    for solver, options in EACH_WAY.items():
        with genrun.parallelize(pipe, solver, **options):
            assert torch.equal(pipe(), plain), solver


def two_calls(pipe: Any) -> Tensor:
    """Return both results: something may last from one call to the next."""
    torch.manual_seed(0)
    first = pipe()
    torch.manual_seed(1)
    return torch.stack([first, pipe()])


@pytest.mark.parametrize("solver", ["sequential", "ropa"])
def test_ranks_keep_alike(solver: str) -> None:
    plain = Momentum(MATRIX["flow-euler"]())()
    made = on_ranks(2, lambda: Momentum(MATRIX["flow-euler"]()), solver)
    assert all(torch.equal(one, plain) for one in made)


class Doubling(Momentum):
    def guided(self, output: Tensor, i: int) -> Tensor:
        del i
        self.buffer.calls += 1 + self.buffer.calls
        return output / self.buffer.calls


class Late(Momentum):
    def guided(self, output: Tensor, i: int) -> Tensor:
        return self.buffer.update(output) if i >= STEPS // 2 else output


class OfAnotherShape(Momentum):
    def guided(self, output: Tensor, i: int) -> Tensor:
        del i
        return output + self.buffer.update(output.mean(dim=0))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Doubling, r"counts in buffer.calls from step to step .* use solver sequential"),
        (Late, r"keeps buffer.average from step to step, and begins with it in a later step"),
        (OfAnotherShape, r"keeps buffer.average from step to step, \(3, 4, 4\) of torch.float32, which is no state"),
    ],
)
def test_what_cannot_step_with_the_latents_is_refused_by_name(kind: type[Momentum], message: str) -> None:
    pipe = kind(MATRIX["flow-euler"]())
    plain = pipe()
    with genrun.parallelize(pipe, "sequential"):
        assert torch.equal(pipe(), plain)
    with genrun.parallelize(pipe, "ropa"), pytest.raises(RefusedError, match=message):
        pipe()
    assert type(pipe) is kind
    assert type(pipe.buffer) is Buffer


@pytest.mark.parametrize("held", [None, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("given", [torch.bfloat16, torch.float16, torch.float64])
def test_casts_survive_as_a_number(held: torch.dtype | None, given: torch.dtype) -> None:
    casts = Casts(held, given)
    assert Casts.of_number(casts.as_number()) == casts


class Extrapolating(Tiny):
    """A loop of one's own that keeps the last output in a variable."""

    def __call__(self) -> Tensor:
        sched = self.scheduler
        sched.set_timesteps(STEPS)
        x, last = torch.ones(1, 3, 4, 4), None
        for t in sched.timesteps:
            output = self.model(x, t)
            moved = output if last is None else 1.5 * output - 0.5 * last
            last = output
            x = sched.step(moved, t, x).prev_sample
        return x


TYPED = """
class Typed(Extrapolating):
    def __call__(self):
        self.scheduler.set_timesteps(8)
        x = torch.ones(1, 3, 4, 4)
        for t in self.scheduler.timesteps:
            x = self.scheduler.step(self.model(x, t), t, x).prev_sample
        return x
"""


@pytest.mark.parametrize(
    ("typed", "message"), [(False, "takes `last` over from one step"), (True, "not there to read")]
)
def test_a_class_of_ones_own_is_read_as_those_of_diffusers_are(message: str, *, typed: bool) -> None:
    there: dict[str, Any] = {**globals()}
    if typed:
        exec(TYPED, there)
    pipe = there["Typed" if typed else "Extrapolating"](MATRIX["flow-euler"]())
    plain = pipe()
    with genrun.parallelize(pipe, "sequential"):
        assert torch.equal(pipe(), plain)
    with pytest.raises(RefusedError, match=message), genrun.parallelize(pipe, "ropa"):
        pipe()


def patched(pipe: Any) -> None:
    """Count evaluations in the model, and answer every third with the output before, as TeaCache is put in."""
    plain = type(pipe.transformer)

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.count += 1
        if self.count % 3:
            self.kept = plain.forward(self, *args, **kwargs)
        return self.kept

    pipe.transformer.__class__ = type(plain.__name__, (plain,), {"forward": forward})
    pipe.transformer.count = 0


def cached(pipe: Any) -> None:
    pipe.transformer.enable_cache(df.FirstBlockCacheConfig(threshold=0.3))


@pytest.mark.parametrize(
    ("put_in", "message"), [(patched, "keeps transformer.count"), (cached, "transformer has a cache")]
)
def test_a_cache_that_is_not_genruns_is_for_sequential_alone(put_in: Callable[[Any], None], message: str) -> None:
    plain = build("flux")
    put_in(plain)
    expected = latents_of(plain(**arguments("flux")))
    for solver in ("sequential", "ropa"):
        pipe = build("flux")
        put_in(pipe)
        refusal = nullcontext() if solver == "sequential" else pytest.raises(RefusedError, match=message)
        with refusal, genrun.parallelize(pipe, solver):
            assert torch.equal(latents_of(pipe(**arguments("flux"))), expected)


class Block:
    """A loop outside its pipeline, as those of modular pipelines are."""

    def loop(self, pipe: Any) -> Tensor:
        x = torch.ones(1, 3, 4, 4)
        for i, t in enumerate(pipe.scheduler.timesteps):
            x = pipe.scheduler.step(pipe.model(x, t) * (2 if i < 3 else 1), t, x).prev_sample
        return x


class OfBlocks(Tiny):
    block = Block()

    def __call__(self) -> Tensor:
        self.scheduler.set_timesteps(STEPS)
        return self.block.loop(self)


def test_a_loop_outside_its_pipeline_is_for_sequential_alone() -> None:
    pipe = OfBlocks(MATRIX["flow-euler"]())
    plain = pipe()
    with genrun.parallelize(pipe, "sequential"):
        assert torch.equal(pipe(), plain)
    refusal = pytest.raises(RefusedError, match=r"loop of this OfBlocks is in Block\.loop, .* or solver sequential")
    with refusal, genrun.parallelize(pipe, "paradigms", workers=3):
        pipe()


def test_a_callback_sees_each_step_of_sequential_and_is_refused_elsewhere() -> None:
    pipe, seen = build("sd3"), []

    def halve(_: Any, step: int, t: Any, kept: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append((step, float(t)))
        return {"latents": kept["latents"] * 0.5}

    call = partial(arguments, "sd3", callback_on_step_end=halve)
    check_exact(pipe, call, {"sequential": {}})
    assert len(seen) == 2 * STEPS_OF_MODELS and seen[:STEPS_OF_MODELS] == seen[STEPS_OF_MODELS:]
    refusal = pytest.raises(RefusedError, match=r"callback_on_step_end .* use solver sequential")
    with genrun.parallelize(pipe, "ropa"), refusal:
        pipe(**call())


@pytest.mark.parametrize("last", [0, 3])
def test_a_pipeline_that_a_callback_interrupts_ends_with_the_state_that_it_has(last: int) -> None:
    pipe, seen = build("sd3"), []

    def interrupt(pipe: Any, step: int, _: Any, kept: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append(step)
        pipe._interrupt = step == last
        return kept

    check_exact(pipe, partial(arguments, "sd3", callback_on_step_end=interrupt), {"sequential": {}})
    assert seen == [*range(last + 1)] * 2


def test_a_pipeline_that_is_interrupted_at_a_guess_is_refused() -> None:
    """From another thread, or a hook: a callback is refused before."""
    pipe = build("sd3")

    def interrupt(*_: Any) -> None:
        pipe._interrupt = True

    with genrun.parallelize(pipe, "ropa"), pytest.raises(RefusedError, match="interrupted before step"):
        handle = pipe.transformer.register_forward_hook(interrupt)
        try:
            pipe(**arguments("sd3"))
        finally:
            handle.remove()
