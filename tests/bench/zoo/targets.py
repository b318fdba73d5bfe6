"""Rounds and evaluations at equal mean error, beside the other solvers: the targets of `collocation`, met or not.

Each solver is sampled at tolerances that bracket the mean error asked for, and its cost is interpolated between the two
nearest, linearly in the logarithm of the error. With one worker the others are the model's own scheduler, UniPC and DPM++ 2M
with fewer steps. The methods of the papers are this project's own, in the unit of tolerance that each defaults to: as the
mean error is what is compared, the unit does not matter. Every point is kept in a file, and is not made again.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from genrun.runner.api.calibrating import PILOTS
from genrun.solvers import registry
from genrun.solvers.contract import Solution
from genrun.solvers.sequential import Sequential

from . import published
from .coverage import REPORTED, hash_of
from .sampling import Pair, Sampler, rmse

STEPS, GUIDANCE = 50, 5.0
ERRORS = (0.02, 0.05)
WORKERS = (1, 8, 2, 4, 16)
OURS = ("collocation", "collocation, calibrated")
"""With its own number of probes, and with the one that `genrun calibrate` would find, by other samples."""
PEERS = ("ropa", "parasolver-turbo", "parasolver", "paradigms", "chords")
FEWER = {"own scheduler": (), "UniPC": "UniPCMultistepScheduler", "DPM++ 2M": "DPMSolverMultistepScheduler"}
TARGETS = {
    0.02: {2: 1.8, 4: 1.5, 8: 1.5, 16: 1.5},
    0.05: {2: 2.4, 4: 1.7, 8: 1.3, 16: 1.5},
}
"""Wanted: the cost of the best other over that of `collocation`, by error and K."""
TARGETS_ALONE = {0.02: {"cache-dit": 1.5, "UniPC": 1.8}, 0.05: {"cache-dit": 1.5, "UniPC": 2.0}}
"""Wanted at K = 1: the cost of each of these over that of `collocation`."""
MOST_TRIES = 5


@dataclass(frozen=True)
class Measured:
    """What one setting costs, and how far off it is, both means over the samples."""

    cost: float
    error: float


Measure = Callable[[float], Measured]


def cost_at(error: float, measure: Measure, first: float) -> tuple[float | None, bool]:
    """Find tolerances about a mean error; return the cost there, and whether it was bracketed.

    Where the error stays below even at large tolerances, the cost of the largest is returned as a bound; None where it
    stays above.
    """
    found: list[Measured] = []
    tolerance = first
    for _ in range(MOST_TRIES):
        found.append(measure(tolerance))
        below, above = _about(error, found)
        if below is not None and above is not None:
            break
        share = error / max(found[-1].error, 1e-6)
        tolerance *= min(max(1.25 * share, 1.4), 4.0) if above is None else max(min(0.8 * share, 0.7), 0.25)
    return between(error, found)


def between(error: float, found: Sequence[Measured]) -> tuple[float | None, bool]:
    """Interpolate the cost at a mean error; return it, and whether the error was bracketed."""
    below, above = _about(error, found)
    if below is None:
        return None, False
    if above is None:
        return min(each.cost for each in found), False
    place = math.log(error / below.error) / math.log(above.error / below.error)
    return below.cost + place * (above.cost - below.cost), True


def _about(error: float, found: Sequence[Measured]) -> tuple[Measured | None, Measured | None]:
    below = max((each for each in found if each.error <= error), key=lambda each: each.error, default=None)
    above = min((each for each in found if each.error > error), key=lambda each: each.error, default=None)
    return below, above


class Subject:
    """A model with its samples and their sequential references, and a folder of what was measured on it."""

    def __init__(self, name: str, root: Path, out: Path, samples: int, of: str = "targets") -> None:
        self.name, self.root, self.out = name, root, out / name / f"{'n' if of == 'targets' else of}{samples}"
        self.sampler = Sampler(name, root, STEPS, GUIDANCE)
        self.pairs: list[Pair] = self.sampler.draw(samples, seed=hash_of(of, name))
        self._references: list[Solution] = []

    def solver(self, kind: str, workers: int) -> Measure:
        """Return how to measure a solver at a tolerance: rounds, or evaluations with one worker."""

        def measure(tolerance: float) -> Measured:
            solver = registry.get(kind)(workers=workers, tolerance=tolerance)
            key = f"{kind}-K{workers}-{tolerance:.4g}"
            return self._kept(key, lambda: self.sampler.sample(self.pairs, solver))

        return measure

    def calibrated(self, workers: int, error: float) -> Measure:
        """Return how to measure `collocation` with the probes that were best on other samples, as calibrated jobs do."""
        own: Any = registry.get("collocation")(workers=workers)
        pilots = Subject(self.name, self.root, self.out.parent.parent, PILOTS, of="pilots")

        def cost(solver: Any) -> float:
            return cost_at(error, pilots.probing(solver), 1.7 * error)[0] or float(STEPS)

        return self.probing(min((own, *own.alternatives()), key=cost))

    def probing(self, solver: Any) -> Measure:
        """Return how to measure a setting of `collocation` at a tolerance."""

        def measure(tolerance: float) -> Measured:
            probes = "" if solver.probes is None else f"-probes{solver.probes}"
            made = partial(self.sampler.sample, self.pairs, replace(solver, tolerance=tolerance))
            return self._kept(f"collocation-K{solver.workers}-{tolerance:.4g}{probes}", made)

        return measure

    def published(self, setting: published.Setting, clones: Path) -> Measure:
        """Return how to measure a method's own code at a tolerance."""

        def measure(tolerance: float) -> Measured:
            made = partial(published.sample, setting, self.sampler, self.pairs, tolerance, clones)
            return self._kept(f"{setting}-{tolerance:.4g}", made)

        return measure

    def fewer(self, scheduler: str, steps: int) -> Measured:
        """Measure another scheduler, or the model's own, with fewer steps."""

        def sample() -> list[Solution]:
            own, self.sampler.steps = self.sampler.scheduler, steps
            try:
                if scheduler:
                    self.sampler.scheduler = other_scheduler(own, scheduler)
                return self.sampler.sample(self.pairs, Sequential())
            finally:
                self.sampler.scheduler, self.sampler.steps = own, STEPS

        return self._kept(f"fewer-{scheduler or 'own'}-{steps}", sample)

    def _kept(self, key: str, sample: Callable[[], Sequence[Solution | published.Made]]) -> Measured:
        path = self.out / f"{key}.json"
        if not path.exists():
            if not self._references:
                self._references = self.sampler.sample(self.pairs, Sequential())
            found = sample()
            errors = [rmse(one.x, other.x) for one, other in zip(found, self._references, strict=True)]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"rounds": [each.rounds for each in found], "errors": errors}))
        kept = json.loads(path.read_text())
        return Measured(statistics.fmean(kept["rounds"]), statistics.fmean(kept["errors"]))


def other_scheduler(own: Any, name: str) -> Any:
    """Return a multistep scheduler on the noise levels of the model's own."""
    df: Any = import_module("diffusers")
    more: dict[str, Any] = {}
    if "FlowMatch" in type(own).__name__:
        more = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": own.config.shift}
    return getattr(df, name).from_config(own.config, **more)


def fewest_steps(subject: Subject, scheduler: str, error: float) -> float | None:
    """Return the least number of steps whose mean error is at most `error`, interpolated; None where 50 do not reach it."""
    low, high = 4, STEPS - 1
    if subject.fewer(scheduler, high).error > error:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if subject.fewer(scheduler, middle).error > error else (low, middle)
    return float(high)


def measure(
    models: Sequence[str],
    workers: Sequence[int],
    peers: Sequence[str],
    root: Path,
    out: Path,
    samples: int,
    until: float,
    clones: Path | None = None,
) -> None:
    """Measure what has no file yet, K by K and model by model, until the clock says `until` (seconds since the epoch).

    With a folder of clones, the authors' own code of what the model supports, too.
    """
    theirs = published.KINDS if clones is not None else ()
    subjects: dict[str, Subject] = {}
    for k in workers:
        for name in models:
            for kind in (*OURS[: 2 if k > 2 else 1], *(peers if k > 1 else FEWER), *theirs):
                if time.time() >= until:
                    return
                if name not in subjects:
                    subjects[name] = Subject(name, root, out, samples)
                subject = subjects[name]
                if kind in published.KINDS:
                    tried = published.settings(kind, subject.sampler, k)
                    line = published_costs(subject, tried, clones or Path()) if tried else None
                else:
                    line = {error: _cost(subject, kind, k, error) for error in ERRORS}
                if line is None:
                    continue
                path = out / name / f"n{samples}" / f"line-K{k}-{kind.replace(' ', '').replace(',', '-')}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps({"model": name, "workers": k, "kind": kind, "cost": line}))
                print(f"{name:10} K {k:2} {kind:18}", *(_shown(*cost) for cost in line.values()), flush=True)


def _cost(subject: Subject, kind: str, workers: int, error: float) -> tuple[float | None, bool]:
    if kind in FEWER:
        found = fewest_steps(subject, str(FEWER[kind] or ""), error)
        return found, found is not None
    if kind == OURS[1]:
        return cost_at(error, subject.calibrated(workers, error), 1.7 * error)
    # Of collocation the mean error is about half of the tolerance.
    return cost_at(error, subject.solver(kind, workers), 1.7 * error)


def published_costs(
    subject: Subject, settings: Sequence[published.Setting], clones: Path
) -> dict[float, tuple[float | None, bool]]:
    """Return the least cost at each mean error over the settings."""
    costs: dict[float, list[tuple[float | None, bool]]] = {error: [] for error in ERRORS}
    everything: list[Measured] = []
    for setting in settings:
        measure, found = subject.published(setting, clones), list[Measured]()

        def noted(tolerance: float, measure: Measure = measure, found: list[Measured] = found) -> Measured:
            found.append(measure(tolerance))
            return found[-1]

        for tolerance in setting.grid:
            if noted(tolerance).error <= min(ERRORS):
                break
        for error in ERRORS:
            if not setting.grid:
                cost_at(error, noted, setting.first * error)
            had = [(each.cost, True) for each in found if each.error <= error]
            costs[error] += had if setting.counted else [between(error, found)]
        everything += [] if setting.counted else found
    front = [
        each for each in everything if not any(one.cost <= each.cost and one.error < each.error for one in everything)
    ]
    return {error: _least([*each, between(error, front)]) for error, each in costs.items()}


def _least(costs: Sequence[tuple[float | None, bool]]) -> tuple[float | None, bool]:
    known = [(cost, bracketed) for cost, bracketed in costs if cost is not None]
    return min(known, default=(None, False))


def _shown(cost: float | None, bracketed: bool) -> str:
    return "-" if cost is None else f"{'' if bracketed else 'at most '}{cost:.1f}"


def summarize(out: Path, samples: int) -> None:
    """Print a table of costs for each K, and last the ratios beside what is wanted of their mean over the models."""
    lines = [json.loads(path.read_text()) for path in sorted(out.glob(f"*/n{samples}/line-*.json"))]
    models = [name for name in REPORTED if any(line["model"] == name for line in lines)]
    ratios: dict[tuple[float, str, str], list[float]] = {}
    for k in sorted({line["workers"] for line in lines}):
        print(f"\n| K = {k} | " + " | ".join(f"{name} {error:g}" for name in models for error in ERRORS) + " |")
        print("|---|" + "---|" * (len(models) * len(ERRORS)))
        own = {(line["model"], line["kind"]): line["cost"] for line in lines if line["workers"] == k}
        for kind in dict.fromkeys(kind for _, kind in own):
            costs = [own.get((name, kind), {}).get(str(error), (None, False)) for name in models for error in ERRORS]
            print(f"| {kind} | " + " | ".join(_shown(*cost) for cost in costs) + " |")
        for name in models:
            for error in ERRORS:
                costs = {kind: line.get(str(error), (None, False)) for (of, kind), line in own.items() if of == name}
                plain, calibrated = (
                    costs.pop(kind, (None, False))[0] for kind in OURS
                )  # a bound understates the ratio
                for kind, mine in zip(OURS, (plain, calibrated or plain), strict=True):
                    if mine is None:
                        continue
                    if k == 1:
                        for other in TARGETS_ALONE[error]:
                            if other in costs:  # what 49 steps do not reach takes 50 at least
                                ratios.setdefault((error, other, kind), []).append((costs[other][0] or STEPS) / mine)
                    elif others := [cost for cost, _ in costs.values() if cost is not None]:
                        ratios.setdefault((error, f"K = {k}", kind), []).append(min(others) / mine)
    wanted = {
        error: {**TARGETS_ALONE[error], **{f"K = {k}": ratio for k, ratio in TARGETS[error].items()}}
        for error in ERRORS
    }
    columns = list(wanted[ERRORS[0]])
    titles = [column if column.startswith("K") else f"K = 1: {column}" for column in columns]
    print("\n| other over collocation, mean of the models | " + " | ".join(titles) + " |")
    print("|---|" + "---|" * len(columns))
    for kind in OURS:
        for error in ERRORS:
            cells = [_verdict(ratios.get((error, column, kind), []), ratio) for column, ratio in wanted[error].items()]
            print(f"| {kind} at {error:g} | " + " | ".join(cells) + " |")


def _verdict(ratios: Sequence[float], wanted: float) -> str:
    if not ratios:
        return "not measured"
    mean = statistics.fmean(ratios)
    each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    return f"{mean:.2f} ({each}); wanted {wanted:g}: {'met' if mean >= wanted else 'not met'}"
