"""The metrics of a run: which to measure and with what options, and what is known of one by its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genrun.adapters.scorers import registry
from genrun.adapters.scorers.contract import Metric, SetMetric, needs_of, options_of
from genrun.registry import UnknownNameError
from genrun.runner.errors import UsageError
from genrun.runner.job.schema import AUDIT, COSTS
from genrun.runner.statistics import ANY, COUNTS, SHARES, Interval
from genrun.runner.store.scores import metrics_of

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder

AUDITED = "latent_rmse"
"""The metric by which an audit tells whether an item is within its tolerance."""

MetricOptions = Mapping[str, Mapping[str, Any]]
"""Metric -> option -> value."""


def wanted_metrics(
    run: RunFolder,
    names: Sequence[str] = (),
    options: MetricOptions | None = None,
    defaults: MetricOptions | None = None,
) -> list[Metric | SetMetric]:
    """Return the metrics named, or those the job names, or all that need nothing besides genrun, ready to measure.

    Args:
        run: the run folder, whose job may name metrics and their options.
        names: of metrics; those that the job names when empty.
        options: over those of the job.
        defaults: under those of the job, such as where tools are on this machine.

    Raises:
        UsageError: no metric of that name, or no such option.
    """
    document = run.job_document()
    of_job = metrics_of(document)
    # What an audit compares is measured whatever else is.
    audited = [AUDITED] if document.get(AUDIT) is not None and of_job else []
    try:
        chosen = names or [*of_job, *audited] or [name for name in registry.names() if not needs_of(registry.get(name))]
        for name in (options or {}).keys() - set(chosen):
            raise UsageError(f"{name} is given options, but is not measured.", remedy=f"Add it: --metrics {name}")
        layers = (defaults or {}, of_job, options or {})
        metrics: list[Metric | SetMetric] = []
        for name in dict.fromkeys(chosen):
            given = {option: value for layer in layers for option, value in layer.get(name, {}).items()}
            metrics.append(configured(registry.get(name), given) if given else registry.get(name))
        return metrics
    except UnknownNameError as error:
        raise UsageError(str(error)) from error


def configured(metric: Metric | SetMetric, given: Mapping[str, Any]) -> Any:
    """Return a metric with some of its options changed.

    Raises:
        UsageError: an option that it does not have, or a value that it does not take.
    """
    from genrun.runner.job.options import typed

    values, wrong = typed(type(options_of(metric)), given) if options_of(metric) is not None else ({}, "it has none")
    if wrong:
        raise UsageError(f"options of {metric.name}: {wrong}", remedy="genrun score --help lists them.")
    return dataclasses.replace(metric, options=type(options_of(metric))(**values))  # pyright: ignore[reportArgumentType]


def style_of(metric: str) -> str:
    """Return how the values of a metric, a part of one or a drift are written: "share", "decibel" or "number"."""
    base = metric.removeprefix("drift.").partition(".")[0]
    return registry.get(base).style if base in registry.names() else "number"


def bounds_of(metric: str) -> Interval:
    """Return where the values of a metric, a cost, a part of a metric, or a drift can lie, as far as anything tells."""
    if metric in COSTS:
        return COUNTS
    name = metric.removeprefix("drift.")
    if name in registry.names():
        return getattr(registry.get(name), "bounds", ANY)
    # What the parts of a metric measure, only their style tells.
    return SHARES if style_of(metric) == "share" else ANY


def compares(metric: str) -> bool:
    """Return True for a metric, or a part of one, that needs the sequential item of the same prompt and seed."""
    base = metric.partition(".")[0]
    return base in registry.names() and registry.get(base).compares
