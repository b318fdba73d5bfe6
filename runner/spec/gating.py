"""What is wrong with the section `gates`, beyond the types of its values: metrics, and limits that could not fail."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from genrun.registry import did_you_mean
from genrun.runner.spec.problems import Problem
from genrun.runner.spec.registries import Registry
from genrun.runner.spec.tree import Value, bare, dotted
from genrun.runner.spec.wording import place, unknown

COSTS = {"rounds": False, "nfe": False, "speedup": True, "elapsed_s": False}
"""Costs of an item that gates may limit like metrics -> whether higher is better."""

DRIFT = "drift"
"""`drift.psnr`: the distance to the baseline's own item."""

LIMITS = ("max", "min", "max_drop", "max_rise")


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
