"""Several schedulers that step in turn, as sound's after the picture's: one state for a solver, and one step."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Protocol

import torch
from diffusers.utils.outputs import BaseOutput
from torch import Tensor
from torch.overrides import TorchFunctionMode

from genrun.adapters.errors import RefusedError

MOST_BETWEEN = 1000
"""Operations between two schedulers' steps: a few that reshape, never a model's."""


@dataclass(frozen=True)
class Part:
    """Arguments of one of the schedulers: a model output, and the latents that it was made for."""

    output: Tensor
    sample: Tensor


@dataclass
class Stepped(BaseOutput):
    """Return value of `step`, by name and by number: of the real schedulers' classes, a common one."""

    prev_sample: Tensor
    pred_original_sample: Tensor | None = None


def pack(tensors: Sequence[Tensor]) -> Tensor:
    """Return (batch, values) of all tensors, float32."""
    return torch.cat([tensor.flatten(1).float() for tensor in tensors], dim=1)


def unpack(packed: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors of the dtypes, shapes and memory layouts of `like`."""
    parts = packed.split([tensor.shape[1:].numel() for tensor in like], dim=1)
    return [
        _laid_out(part.reshape(-1, *one.shape[1:]).to(one.dtype), one) for part, one in zip(parts, like, strict=True)
    ]


def _laid_out(tensor: Tensor, like: Tensor) -> Tensor:
    # A layout can change the last bit of what is computed.
    if tensor.shape != like.shape or tensor.stride() == like.stride():
        return tensor
    return torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device=tensor.device).copy_(tensor)


class JoinedScheduler:
    """Real schedulers as one, on packed tensors. Everything but the step is the first one's.

    Args:
        real: the schedulers, in the order of their steps.
        first: what each was given in the first step.
    """

    def __init__(self, real: Sequence[Any], first: Sequence[Part]) -> None:
        self.real = list(real)
        self._draws = ["generator" in inspect.signature(one.step).parameters for one in real]
        self.outputs = [part.output for part in first]
        self.samples = [part.sample for part in first]
        self.returned: list[Tensor] = []
        if any(hasattr(one, "last_sample") for one in real):
            raise RefusedError(
                f"{type(real[0]).__name__} keeps the last sample in its memory, which genrun does not follow for two things "
                "at once; use FlowMatchEulerDiscreteScheduler"
            )

    def check(self, parts: Sequence[Part]) -> None:
        """Check that the loop casts nothing. Raises RefusedError."""
        for first, now in zip(self.samples, parts, strict=True):
            if first.dtype != now.sample.dtype:
                raise RefusedError(
                    f"this pipeline's latents were {first.dtype} in the first step and are {now.sample.dtype} in another, "
                    "beside those of a second scheduler; call it without genrun"
                )

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real[0], name)

    @property
    def memory(self) -> dict[Any, Any]:
        """Everything that the schedulers hold."""
        return {(place, key): value for place, one in enumerate(self.real) for key, value in vars(one).items()}

    @memory.setter
    def memory(self, memory: dict[Any, Any]) -> None:
        for place, one in enumerate(self.real):
            state = vars(one)
            state.clear()
            state.update({key: value for (owner, key), value in memory.items() if owner == place})

    def step(
        self, model_output: Tensor, timestep: Any, sample: Tensor, generator: Any = None, *, return_dict: bool = False
    ) -> tuple[Tensor]:
        """Take each scheduler's step in turn."""
        outputs, samples = unpack(model_output, self.outputs), unpack(sample, self.samples)
        stepped = []
        for one, draws, output, x in zip(self.real, self._draws, outputs, samples, strict=True):
            noise = {"generator": generator} if draws else {}
            stepped.append(one.step(output, timestep, x, **noise, return_dict=return_dict)[0])
        # Of the batch as the loop has it, not of a sample with a generator of its own.
        if len(sample) == len(self.samples[0]):
            self.returned = stepped
        return (pack(stepped),)


class Leader(Protocol):
    """The scheduler in `pipe.scheduler`."""

    def copied(self, real: Any) -> CopiedScheduler:
        """Return a copy whose steps belong to this scheduler's."""
        ...

    def step_of(self, real: Any) -> Callable[..., Any]:
        """Return the step of a real scheduler, its own or a copy's."""
        ...


class CopiedScheduler:
    """A copy that a pipeline has made of its scheduler while a solver samples, to step something else with it.

    Args:
        leader: whose steps it shares.
        real: the copy's own.
    """

    def __init__(self, leader: Leader, real: Any) -> None:
        self._leader, self._real = leader, real
        self._stepped: Callable[..., Any] | None = None

    @property
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The real scheduler's class."""
        return type(self._real)

    def __getattr__(self, name: str) -> Any:
        if name in ("_real", "_leader"):
            raise AttributeError(name)
        return getattr(self._real, name)

    def __deepcopy__(self, memo: Any) -> CopiedScheduler:
        return self._leader.copied(copy.deepcopy(self._real, memo))

    @property
    def step(self) -> Callable[..., Any]:
        """Take a model output, and return the latents that the loop evaluates next; see the leader's."""
        self._stepped = self._stepped or self._leader.step_of(self._real)
        return self._stepped


class Promised(TorchFunctionMode):
    """Latents that are known when the loop's last scheduler is stepped, and what the loop makes of them until then.

    The loop computes with stand-ins, and everything is computed again once the latents are there, in the same tensors.
    """

    def __init__(self) -> None:
        super().__init__()
        self._made: list[tuple[Any, Any, Any, Any]] = []
        self._promised: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute, and remember how."""
        made = func(*args, **(kwargs or {}))
        self._made.append((func, args, kwargs or {}, made))
        if len(self._made) > MOST_BETWEEN:
            raise RefusedError(
                "this pipeline evaluates a model between the steps of two schedulers; call it without genrun"
            )
        return made

    def promise(self, like: Tensor) -> Tensor:
        """Return a stand-in."""
        with torch._C.DisableTorchFunction():
            self._promised.append(torch.full_like(like, torch.nan))
        return self._promised[-1]

    def keep(self, values: Sequence[Tensor]) -> None:
        """Put the latents into their stand-ins, and compute everything again."""
        for stand_in, value in zip(self._promised, values, strict=True):
            stand_in.copy_(value)
        for func, args, kwargs, made in self._made:
            again = func(*args, **kwargs)
            if (
                isinstance(made, Tensor)
                and isinstance(again, Tensor)
                and made is not again
                and made.is_floating_point()
            ):
                made.copy_(again)


def tried(real: Any, given: dict[str, Any]) -> Tensor:
    """Return what a step would, and take none: the scheduler is copied, and no noise of the call is drawn."""
    with torch.random.fork_rng(devices=[]):
        inputs = {**given, "return_dict": False, **({"generator": None} if "generator" in given else {})}
        return copy.deepcopy(real).step(**inputs)[0]


def step_like(real: Any, step: Callable[[dict[str, Any], bool], Any]) -> Callable[..., Any]:
    """Return a function with the signature of a scheduler's step: pipelines look there for what they may pass.

    Raises:
        RefusedError: when it is called, where that step takes no model_output or sample.
    """
    signature = inspect.signature(real.step)

    @wraps(real.step)
    def stepped(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        given.update(given.pop("kwargs", {}))
        lacking = next((name for name in ("model_output", "sample") if name not in given), None)
        if lacking is not None:
            raise RefusedError(f"{type(real).__name__}.step takes no {lacking}, and a solver steps those by name")
        return step(given, given.pop("return_dict", True))

    return stepped


def value_differs(step: Callable[..., Any], name: str, value: Any) -> bool:
    """Return whether an argument is another than its default."""
    parameter = inspect.signature(step).parameters.get(name)
    plain = value is None or isinstance(value, bool | int | float | str)
    return parameter is None or not plain or value != parameter.default
