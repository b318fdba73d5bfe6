"""The verdict, at the head of the page: what came of the run, in a sentence and a few large numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from genrun.runner import numbers
from genrun.runner.report.sections.speed import Seconds
from genrun.runner.score.summary import Group, calls_in_a_row


@dataclass(frozen=True)
class Fact:
    """A large number and what it is."""

    value: str
    caption: str


@dataclass(frozen=True)
class Verdict:
    """The outcome of a run.

    Attributes:
        state: "done", "failed" (some items) or "incomplete".
        headline: how many items are done.
        sentence: the solver of the fewest rounds and its distance to the sequential sampler; "" when nothing was compared.
        facts: the numbers of both.
        seconds: what it came to in seconds, here.
    """

    state: str
    headline: str
    sentence: str
    facts: tuple[Fact, ...]
    seconds: Seconds = field(default_factory=Seconds)


def judge(groups: Sequence[Group], seconds: Seconds | None = None) -> Verdict:
    """Sum up a run, and claim nothing that was not measured.

    Args:
        groups: the summary.
        seconds: the times of the run.
    """
    seconds = seconds or Seconds()
    items, done = sum(group.items for group in groups), sum(group.done for group in groups)
    failed = sum(group.failed for group in groups)
    state = "failed" if failed else "done" if done == items else "incomplete"
    parallel = [group for group in groups if not group.is_reference and group.speedup is not None]
    best = max(parallel, key=lambda group: group.speedup.mean if group.speedup else 0.0, default=None)
    return Verdict(
        state,
        _headline(items, done, failed),
        _sentence(best) if best and best.speedup else "",
        (Fact(f"{done:,} / {items:,}", "items done"), *(_facts(best, groups, seconds) if best else ())),
        seconds,
    )


def _headline(items: int, done: int, failed: int) -> str:
    parts = [f"All {items:,} items are done." if done == items else f"{done:,} of {items:,} items are done"]
    if failed:
        parts.append(f"{failed:,} failed")
    if items - done - failed:
        parts.append(f"{items - done - failed:,} not run yet")
    return ", ".join(parts).rstrip(".") + "."


def _sentence(best: Group) -> str:
    start = f"{best.label} takes {calls_in_a_row(best)}"
    rmse = best.metrics.get("latent_rmse")
    if rmse is None:
        return f"{start}; its distance to the sequential sampler was not scored."
    if rmse.maximum == 0:
        return f"{start}, and its latents are bit-identical."
    interval = numbers.interval(rmse.low, rmse.high, "number")
    return f"{start}, at a mean latent RMSE of {numbers.number(rmse.mean)}{' ' + interval if interval else ''}."


def _facts(best: Group, groups: Sequence[Group], seconds: Seconds) -> list[Fact]:
    facts: list[Fact] = []
    if best.speedup and best.rounds:
        rounds = numbers.count(best.rounds.mean)
        of = "" if best.num_steps is None else f" of {best.num_steps}"
        facts.append(Fact(f"{rounds}{of}", f"calls in a row ({numbers.times(best.speedup.mean)}): {best.label}"))
    if best.label in seconds.by_group:
        beside = [
            seconds.by_group[group.label] for group in groups if group.is_reference and group.label in seconds.by_group
        ]
        than = f"; sequential {numbers.number(beside[0].mean)} s" if len(beside) == 1 else ""
        facts.append(Fact(f"{numbers.number(seconds.by_group[best.label].mean)} s", f"an item with it, here{than}"))
    rmse = best.metrics.get("latent_rmse")
    if rmse:
        facts.append(Fact(numbers.number(rmse.mean), f"its latent RMSE, at most {numbers.number(rmse.maximum)}"))
    accuracy = best.metrics.get("checker")
    if accuracy:
        references = [group.metrics["checker"] for group in groups if group.is_reference and "checker" in group.metrics]
        beside = f"; sequential {numbers.styled(references[0].mean, 'share')}" if len(references) == 1 else ""
        facts.append(Fact(numbers.styled(accuracy.mean, "share"), f"its accuracy{beside}"))
    return facts
