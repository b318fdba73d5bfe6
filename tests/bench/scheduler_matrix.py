"""Schedulers of diffusers, each with every option of its config that changes its steps: solvers beside the plain loop.

    python -m tests.bench.scheduler_matrix [--only Euler] [--details]

prints a table by scheduler: configurations with which the plain loop is finite, and how many of them are the plain loop bit
for bit under every solver, how many refused by name, and how many neither. An option that changes nothing of the plain loop,
or with which it raises or is not finite, counts for nothing. Schedulers on a Brownian tree need torchsde.
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import genrun
from genrun.adapters.errors import RefusedError
from genrun.runner.job.checks.scheduler import read_class, scheduler_names
from tests.tiny.loops import ELSEWHERE, FLOW, TinyLoop, df

SOLVERS: Mapping[str, Mapping[str, Any]] = {
    "sequential": {},
    "paradigms": {"workers": 3, "tolerance": 0.0},
    "collocation": {"workers": 3, "exact": True, "tolerance": 0.0},
}
VALUES: Mapping[str, tuple[Any, ...]] = {
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "clip_sample_range": (0.5,),
    "corrector_order": (1, 3),
    "disable_corrector": ([0],),
    "eta": (0.0, 0.5),
    "flow_shift": (3.0,),
    "interpolation_type": ("log_linear",),
    "lambda_min_clipped": (-5.1,),
    "noise_sampler_seed": (7,),
    "original_inference_steps": (40,),
    "prediction_type": ("epsilon", "sample", "v_prediction"),
    "predictor_order": (1, 3),
    "rho": (3.0,),
    "s_noise": (0.5,),
    "scale_factors": ([0.5] * 3 + [1.0] * 4,),
    "shift": (3.0,),
    "shift_terminal": (0.1,),
    "sigma_data": (0.7,),
    "solver_order": (1, 2, 3),
    "steps_offset": (1,),
    "tau_func": (lambda t: 1 if 300 <= t <= 800 else 0,),
    "time_shift_type": ("exponential", "linear"),
    "timestep_scaling": (5.0,),
    "timestep_spacing": ("linspace", "leading", "trailing"),
    "variance_type": ("learned", "learned_range"),
}
"""Values of options whose source names no choices; a switch is turned over; others are numbers of the training."""

STEPS_OF_FLOW = ("solver_order", "algorithm_type", "solver_type", "final_sigmas_type", "lower_order_final")
"""Options that change a solver, which are tried with flow matching too."""


@dataclass(frozen=True)
class Found:
    """What became of a configuration.

    Attributes:
        outcome: exact, refused, not exact; or plain, same for those that count for nothing.
        why: the message, or the solver.
    """

    outcome: str
    why: str = ""


def configurations(name: str) -> Iterator[dict[str, Any]]:
    """Yield the defaults of a scheduler, and every option that may change its steps, one at a time."""
    known = read_class(name)
    assert known is not None
    yield {}
    others = [(key, value) for key in known.defaults for value in _values(key, known.defaults[key], known.choices)]
    for key, value in others:
        if key == "use_flow_sigmas":
            yield FLOW
            steps = [(k, v) for k, v in others if k in STEPS_OF_FLOW]
            steps = [(k, v) for k, v in steps if k != "algorithm_type" or "++" in v]
            yield from ({**FLOW, k: v} for k, v in [*steps, ("use_dynamic_shifting", True)] if k in known.defaults)
        elif key == "algorithm_type" and "++" not in value:
            yield {key: value, "final_sigmas_type": "sigma_min"}
        elif not (key in ("flow_shift", "time_shift_type") or value == "flow_prediction"):
            yield {key: value}
        elif key == "time_shift_type" and "use_flow_sigmas" not in known.defaults:
            yield {key: value, "use_dynamic_shifting": True}


def _values(key: str, default: Any, choices: Mapping[str, tuple[Any, ...]]) -> list[Any]:
    given = (not default,) if type(default) is bool else choices.get(key, VALUES.get(key, ()))
    return [value for value in given if value != default]


def plain_loop(scheduler: Any) -> TinyLoop:
    """Return a loop; a scheduler that shifts by the picture's size is told one."""
    return TinyLoop(scheduler, grid={"mu": 0.9} if scheduler.config.get("use_dynamic_shifting") else {})


def sampled(loop: TinyLoop) -> Tensor:
    """Return the latents of a call whose noise is torch's global one."""
    torch.manual_seed(3)
    return loop(latents=torch.randn(1, 3, 4, 4))


def tried(name: str, config: Mapping[str, Any], default: Tensor | None) -> tuple[Found, Tensor | None]:
    """Compare a configuration under every solver with the plain loop; return the plain latents too."""
    try:
        loop = plain_loop(getattr(df, name)(**config))
        plain = sampled(loop)
    except Exception as error:
        return Found("plain", f"{type(error).__name__}: {error}"), None
    if not bool(plain.isfinite().all()):
        return Found("plain", "not finite"), plain
    if default is not None and torch.equal(default, plain):
        return Found("same"), plain
    for solver, options in SOLVERS.items():
        try:
            with genrun.parallelize(loop, solver, **options):
                made = sampled(loop)
        except RefusedError as error:
            return Found("refused", str(error)), plain
        except Exception as error:
            return Found("not exact", f"{solver}: {type(error).__name__}: {error}"), plain
        if not torch.equal(made, plain):
            return Found("not exact", solver), plain
    return Found("exact"), plain


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="part of a scheduler's name")
    parser.add_argument(
        "--details", action="store_true", help="name what is not exact, and what plain diffusers cannot"
    )
    wanted = parser.parse_args()
    warnings.simplefilter("ignore")
    df.logging.set_verbosity_error()
    found: dict[str, Counter[str]] = defaultdict(Counter)
    told: list[str] = []
    for name in scheduler_names():
        if name in ELSEWHERE or wanted.only not in name:
            continue
        default: Tensor | None = None
        for config in configurations(name):
            one, plain = tried(name, config, default)
            default = plain if not config else default
            found[name][one.outcome] += 1
            if one.outcome not in ("exact", "same"):
                told.append(f"{one.outcome}: {name}({config}): {one.why}")
    print("| scheduler | configurations | exact | refused | not exact |\n|---|---|---|---|---|")
    total = Counter[str]()
    for name, counts in found.items():
        total += counts
        print(_row(name, counts))
    print(_row("all", total))
    for line in told:
        if wanted.details or line.startswith("not exact"):
            print(line)


def _row(name: str, counts: Mapping[str, int]) -> str:
    cells = [counts.get(each, 0) for each in ("exact", "refused", "not exact")]
    return f"| {name} | {sum(cells)} | {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
