"""Which metrics to measure, each with its options: those named, those of the job, or those that need nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genrun.adapters.scorers import registry
from genrun.adapters.scorers.contract import Metric, SetMetric, needs_of, options_of
from genrun.registry import UnknownNameError
from genrun.runner.errors import UsageError

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder

Options = Mapping[str, Mapping[str, Any]]
"""Metric -> option -> value."""


def wanted_metrics(
    run: RunFolder, names: Sequence[str] = (), options: Options | None = None, defaults: Options | None = None
) -> list[Metric | SetMetric]:
    """Return the metrics named, or those the job names, or all that need nothing beside genrun, ready to measure.

    Args:
        run: the run folder, whose job may name metrics and their options.
        names: of metrics; those that the job names when empty.
        options: over those of the job.
        defaults: under those of the job, such as where tools are on this machine.

    Raises:
        UsageError: no metric of that name, or no such option.
    """
    of_job = {metric_name(entry): _options(entry) for entry in run.job_document().get("score") or ()}
    try:
        chosen = names or list(of_job) or [name for name in registry.names() if not needs_of(registry.get(name))]
        layers = (defaults or {}, of_job, options or {})
        for name in (options or {}).keys() - set(chosen):
            raise UsageError(f"{name} is given options, but is not measured.", remedy=f"Add it: --metrics {name}")
        return [_made(name, layers) for name in dict.fromkeys(chosen)]
    except UnknownNameError as error:
        raise UsageError(str(error)) from error


def metric_name(entry: str | Mapping[str, Any]) -> str:
    """The metric of an entry of a job's `score`: a name, or a mapping whose `kind` is it."""
    return entry if isinstance(entry, str) else str(entry["kind"])


def _options(entry: str | Mapping[str, Any]) -> dict[str, Any]:
    return {} if isinstance(entry, str) else {name: value for name, value in entry.items() if name != "kind"}


def _made(name: str, layers: Sequence[Options]) -> Metric | SetMetric:
    given = {option: value for layer in layers for option, value in layer.get(name, {}).items()}
    metric = registry.get(name)
    return configured(metric, given) if given else metric


def configured(metric: Metric | SetMetric, given: Mapping[str, Any]) -> Any:
    """A metric with some of its options changed.

    Raises:
        UsageError: an option that it does not have, or a value that it does not take.
    """
    from genrun.runner.job.options import typed

    values, wrong = typed(type(options_of(metric)), given) if options_of(metric) is not None else ({}, "it has none")
    if wrong:
        raise UsageError(f"options of {metric.name}: {wrong}", remedy="genrun score --help lists them.")
    return dataclasses.replace(metric, options=type(options_of(metric))(**values))  # pyright: ignore[reportArgumentType]
