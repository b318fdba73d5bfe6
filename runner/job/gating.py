"""What is wrong with the section `gates`, beyond the types of its values: metrics, and limits that could not fail."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from genrun.registry import did_you_mean
from genrun.runner.job.problems import Problem
from genrun.runner.job.registries import Registry
from genrun.runner.job.tree import Value, bare, dotted
from genrun.runner.job.values import PERCENT_PATTERN
from genrun.runner.job.wording import got, place, unknown

COSTS = {"rounds": False, "nfe": False, "speedup": True, "elapsed_s": False}
"""Costs of an item that gates may limit like metrics -> whether higher is better."""

DRIFT = "drift"
"""`drift.psnr`: the distance to the baseline's own item."""

LIMITS = ("max", "min", "max_drop", "max_rise")

COST_BOUNDS = {"rounds": (1, math.inf), "nfe": (1, math.inf), "speedup": (0, math.inf), "elapsed_s": (0, math.inf)}
ANY = (-math.inf, math.inf)


def gate_problems(root: Value, metrics: Registry) -> list[Problem]:
    """Metrics that do not exist or are not scored, gates without a limit, and limits against a metric's direction."""
    gates = root.get("gates")
    return [
        Problem(place(root, path, key=True), dotted(path), message)
        for name, rules in (gates.data.items() if gates is not None and isinstance(gates.data, dict) else ())
        for path, message in _of_gate(name, rules, root, metrics)
    ]


def _of_gate(name: str, rules: Value, root: Value, metrics: Registry) -> Iterator[tuple[tuple[str, ...], str]]:
    path = ("gates", name)
    wrong = _wrong_name(name, _scored(root), metrics)
    if wrong:
        yield path, wrong
        return
    if not isinstance(rules.data, dict):
        return
    given = [rule for rule in LIMITS if (value := rules.get(rule)) is not None and value.data is not None]
    if not given and not set(rules.data) - {*LIMITS, "max_missing"}:
        yield path, f"no limit. Write one of {', '.join(LIMITS)}, such as max: 0.06."
    yield from (((*path, rule), why) for rule, why in _impossible(name, rules, metrics))
    higher = _direction(name, metrics)
    wrong_way = {True: "max_rise", False: "max_drop"}.get(higher) if higher is not None else None
    if wrong_way in given:
        better, other = ("higher", "max_drop") if higher else ("lower", "max_rise")
        yield (
            (*path, str(wrong_way)),
            f"{name} is better when it is {better}: this limits getting better. Write {other}.",
        )


def _wrong_name(name: str, scored: Sequence[str], metrics: Registry) -> str:
    """What is wrong with the name of a gate, or ""."""
    if name in COSTS:
        return ""
    base, _, part = name.partition(".")
    if base == DRIFT:
        known = [each for each in metrics.names() if metrics.get(each).compares]
        return "" if part in known else unknown(part, known, "metric of drift")
    known = [*metrics.names(), *COSTS]
    if base not in metrics.names():
        return unknown(name, [*known, *(f"{DRIFT}.NAME",)], "metric")
    if scored and base not in scored:
        return f"{base} is not scored, so this would stay open for ever. Add it to `score`.{did_you_mean(base, scored)}"
    return ""


def _impossible(name: str, rules: Value, metrics: Registry) -> Iterator[tuple[str, str]]:
    """Limits that no run can keep, and an allowance that every run does."""
    limits = {rule: _number(rules.get(rule)) for rule in ("min", "max", "max_missing")}
    lowest, highest = _bounds(name, metrics)
    least, most, missing = limits["min"], limits["max"], limits["max_missing"]
    if least is not None and least > highest:
        yield "min", f"{name} is never more than {highest:g}, so this could not pass."
    elif least is not None and most is not None and least > most:
        yield "min", f"more than max ({got(rules.get('max'))}), so this could not pass."
    if most is not None and most < lowest:
        yield "max", f"{name} is never less than {lowest:g}, so this could not pass."
    text = bare(rules).get("max_missing")
    if isinstance(text, str) and missing is not None and missing > 1:
        yield "max_missing", "more than all items. Write at most 100%."


def _number(value: Value | None) -> float | None:
    """A limit as a number, a percentage as its hundredth; None where there is none, or none that can be read."""
    data = None if value is None else value.data
    if isinstance(data, str) and re.fullmatch(PERCENT_PATTERN, data):
        return float(data.removesuffix("%")) / 100
    return float(data) if isinstance(data, int | float) and not isinstance(data, bool) else None


def _bounds(name: str, metrics: Registry) -> tuple[float, float]:
    """The least and the most that a number can be, as far as that is known."""
    if name in COST_BOUNDS:
        return COST_BOUNDS[name]
    base, _, part = name.partition(".")
    if part and base != DRIFT:
        return ANY
    return getattr(metrics.get(part or base), "bounds", ANY)


def _direction(name: str, metrics: Registry) -> bool | None:
    """Whether higher is better; None for a part of a metric, which may have another direction than the whole."""
    if name in COSTS:
        return COSTS[name]
    base, _, part = name.partition(".")
    if base == DRIFT:
        return metrics.get(part).higher_is_better
    return None if part else metrics.get(base).higher_is_better


def _scored(root: Value) -> list[str]:
    score = root.get("score")
    found = bare(score) if score is not None else None
    entries = found if isinstance(found, list) else []
    names = (entry.get("kind") if isinstance(entry, dict) else entry for entry in entries)
    return [name for name in names if isinstance(name, str)]
