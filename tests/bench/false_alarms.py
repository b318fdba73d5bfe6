"""How often gates fail although nothing has changed, against the level that they state.

    genrun submit job.yaml          # a few prompts x 20 seeds, with `score`
    genrun score
    python -m tests.bench.false_alarms runs/NAME/latest
    python -m tests.bench.false_alarms runs/NAME/latest --job jobs/nightly.yaml    # all gates of a job together

An unchanged model's nights differ by their seeds alone, so nights are drawn from the seeds of one run:

- a drop: each prompt's seeds are dealt to two nights, and `max_drop: 0` (or `max_rise: 0`) is judged on their pairs;
- a limit: a night's seeds are drawn with replacement, and `max` and `min` are judged at the true mean of the run, the
  hardest place for them.

The interval of 95 % is two-sided, so each gate may fail in 2.5 % of the nights.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genrun.runner import statistics
from genrun.runner.compare.gates import Gate, Limit, gates_of, judge
from genrun.runner.compare.matching import ComparedItem, read_cells
from genrun.runner.compare.results import Difference, Mean
from genrun.runner.job import load
from genrun.runner.score.metrics import style_of
from genrun.runner.store.folder import RunFolder

Tables = Sequence[tuple[str, str, NDArray]]
"""(cell, metric, values of shape (prompts, seeds))."""

RULES = ("max_drop", "max_rise", "max", "min")


def tables(run: RunFolder) -> Iterator[tuple[str, str, NDArray]]:
    """(cell, metric, values of shape (prompts, seeds)) for every metric that has all its values."""
    cells = read_cells(run)
    for axes, items in cells.cells.items():
        for metric in [name for name in cells.metrics if "." not in name]:
            grouped: dict[str, list[ComparedItem]] = {}
            for item in items:
                grouped.setdefault(item.planned.prompt, []).append(item)
            values = [[item.number(metric).value for item in group] for group in grouped.values()]
            if all(value is not None for row in values for value in row):
                yield ", ".join(label for _, label in axes), metric, np.asarray(values, dtype=float)


def night(
    values: NDArray, metric: str, rule: str, seeds: int, share: bool, generator: np.random.Generator
) -> Difference:
    """What a comparison would find in a night of `seeds` seeds a prompt."""
    if rule in ("max", "min"):
        drawn = generator.choice(values.shape[1], size=(len(values), seeds))
        found = np.take_along_axis(values, drawn, axis=1).ravel().tolist()
        ends = statistics.mean_interval(found, share=share) or (None, None)
        return Difference(metric, True, "number", Mean(len(found), float(np.mean(found)), *ends))
    dealt = generator.permuted(values, axis=1)
    baseline = float(dealt[:, seeds : 2 * seeds].mean())
    found = (dealt[:, :seeds] - dealt[:, seeds : 2 * seeds]).ravel().tolist()
    ends = statistics.difference_interval(found, share=share) or (None, None)
    own = Mean(0, None, None, None)
    mean = Mean(len(found), float(np.mean(found)), *ends)
    return Difference(metric, True, "number", own, baseline, baseline + float(np.mean(found)), mean)


def each_rule(found: Tables, nights: int, seeds: Sequence[int]) -> None:
    """Print a line for each cell, metric and rule."""
    generator = np.random.default_rng(0)
    print(f"{'cell':12} {'metric':12} {'rule':9}" + "".join(f"  n={each}/prompt" for each in seeds))
    for cell, metric, values in found:
        share = style_of(metric) == "share"
        for rule in RULES:
            gate = Gate(metric, rule, Limit.read(float(values.mean()) if rule in ("max", "min") else 0))
            rates = []
            for each in seeds:
                drawn = (night(values, metric, rule, each, share, generator) for _ in range(nights))
                rates.append(sum(judge(gate, one).state == "failed" for one in drawn) / nights)
            print(f"{cell:12} {metric:12} {rule:9}" + "".join(f"  {100 * rate:8.2f} %" for rate in rates), flush=True)


def whole_job(found: Tables, gates: Sequence[Gate], nights: int, seeds: Sequence[int]) -> None:
    """Print in how many nights any gate of a job fails; drift is 0 while nothing changes, so it is left out."""
    generator = np.random.default_rng(0)
    held = [
        (gate, values, style_of(metric) == "share")
        for _, metric, values in found
        for gate in gates
        if gate.metric == metric
    ]
    for each in seeds:
        alarms = sum(
            any(
                judge(gate, night(values, gate.metric, gate.rule, each, share, generator)).state == "failed"
                for gate, values, share in held
            )
            for _ in range(nights)
        )
        print(
            f"{len(held)} gates, {each} seeds a prompt: any fails in {100 * alarms / nights:.2f} % of {nights} nights"
        )


def main() -> None:
    """Draw nights and count alarms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--job", type=Path, help="judge the gates of this job, all together")
    parser.add_argument("--nights", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 4, 10])
    chosen = parser.parse_args()
    found = list(tables(RunFolder.open(chosen.run)))
    if chosen.job is None:
        each_rule(found, chosen.nights, chosen.seeds)
    else:
        whole_job(found, gates_of(load(chosen.job).document), chosen.nights, chosen.seeds)


if __name__ == "__main__":
    main()
