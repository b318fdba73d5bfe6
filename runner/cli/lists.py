"""`genrun models`, `genrun solvers`, `genrun caches` and `genrun score --list`: what a job can name, and its options."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrun.runner.cli.base import Verb, complete_plugins
from genrun.runner.cli.output import json_option, put, put_json, put_table, say
from genrun.runner.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

CALIBRATED = 2
"""Samples of a calibration."""


@click.command(cls=Verb, examples=("genrun models", "genrun models --json", "genrun models --markdown"))
@click.option(
    "--markdown", is_flag=True, help="Print docs/models.md: also guidance, caches, meshes and what is refused."
)
@json_option
def models(markdown: bool, as_json: bool) -> None:
    """List the models, with their defaults.

    Besides these names, `model:` takes the folder or hub id (org/name) of any diffusers pipeline.
    """
    from genrun.runner.job.options import Registries

    installed = Registries.installed()
    adapters = installed.adapters
    if markdown:
        from genrun.runner.cli.models_page import page

        put(page(adapters, installed.caches).rstrip("\n"))
        return
    rows = [_model(adapters.get(name), name) for name in adapters.names()]
    if as_json:
        put_json(rows)
        return
    put_table(
        ("model", "makes", "title", "dtype", "defaults"),
        [(row["name"], row["kind"] or "?", row["title"], row["dtype"], _defaults(row["defaults"])) for row in rows],
    )
    say("Use one: `model: NAME` in a job file; change a default: `sampling: {steps: 20}`.")


def _model(adapter: Any, name: str) -> dict[str, Any]:
    checkpoint = adapter.checkpoint
    adapter = adapter.for_checkpoint(str(checkpoint))
    return {
        "name": name,
        "title": adapter.title,
        "kind": adapter.kind,
        "checkpoint": "packaged" if isinstance(checkpoint, Path) else checkpoint,
        "dtype": adapter.dtype,
        "fps": adapter.fps,
        "defaults": dict(adapter.defaults),
    }


def _defaults(defaults: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value['kind'] if key == 'scheduler' else value}" for key, value in defaults.items())


@click.command(cls=Verb, examples=("genrun solvers", "genrun solvers ropa", "genrun solvers --json"))
@click.argument("names", metavar="[SOLVER]...", nargs=-1, shell_complete=complete_plugins("solvers"))
@json_option
def solvers(names: Sequence[str], as_json: bool) -> None:
    """List the solvers, with their options.

    Every option is a key beside `kind` in a job file: `solver: {kind: ropa, workers: 8}`.
    """
    from genrun.runner.job.options import Registries, title

    registry = Registries.installed().solvers
    found = [
        {"name": name, "title": title(registry.get(name)), "options": _options(registry.get(name))}
        for name in _known(names, registry.names(), "solver")
    ]
    if as_json:
        put_json(found)
        return
    for solver in found:
        put(f"{solver['name']}: {solver['title']}")
        _put_options(solver["options"])


@click.command(cls=Verb, examples=("genrun caches", "genrun caches toca", "genrun caches mag --calibrate demo-video"))
@click.argument("names", metavar="[CACHE]...", nargs=-1, shell_complete=complete_plugins("caches"))
@click.option("--calibrate", metavar="MODEL", help="Measure the ratios that mag needs, on a few samples of a model.")
@json_option
def caches(names: Sequence[str], calibrate: str | None, as_json: bool) -> None:
    """List the caches of transformer blocks, with their options.

    Every option is a key beside `kind` in a job file: `cache: {kind: first_block, threshold: 0.1}`.
    """
    if calibrate is not None:
        if tuple(names) != ("mag",):
            raise UsageError("--calibrate is for mag alone.", remedy=f"genrun caches mag --calibrate {calibrate}")
        _calibrate(calibrate, as_json)
        return
    from genrun.runner.job.options import Registries

    registry = Registries.installed().caches
    found = [_cache(name, registry.get(name)) for name in _known(names, registry.names(), "cache")]
    if as_json:
        put_json(found)
        return
    for cache in found:
        put(f"{cache['name']}: {cache['title']}")
        if cache["order"]:
            put(f"  In the order of steps only: {cache['order']}.")
        if cache["package"]:
            put(f"  Needs {cache['package']}: pip install {cache['package']}")
        _put_options(cache["options"])


def _cache(name: str, cache: Any) -> dict[str, Any]:
    from genrun.runner.job.options import title

    return {
        "name": name,
        "title": title(cache),
        "models": list(getattr(cache, "models", ())),
        "order": getattr(cache, "needs_order", ""),
        "package": getattr(cache, "package", ""),
        "options": _options(cache),
    }


def _calibrate(model: str, as_json: bool) -> None:
    """Load a model and print a section `cache` for it."""
    from genrun.adapters.caches.contract import CacheError
    from genrun.adapters.pipeline.additions import Additions
    from genrun.adapters.pipeline.load_options import LoadOptions
    from genrun.adapters.pipeline.loading import load
    from genrun.adapters.sampling.call import SamplingRequest
    from genrun.adapters.sampling.mag_ratios import calibrate
    from genrun.runner.bench.subjects import ModelQuestion, ModelSubject, ask_model, quieten
    from genrun.runner.worker.rank import choose_device

    (subject,) = ask_model(ModelQuestion(model, samples=CALIBRATED)).subjects
    assert isinstance(subject, ModelSubject)
    quieten()
    spec, device = subject.model, choose_device(subject.model["device"])
    held = LoadOptions(spec["dtype"], variant=spec.get("variant"), additions=Additions.of(spec))
    revision = spec["revision"]
    pipe = load(subject.adapter, spec["checkpoint"], dtype=None, device=device, revision=revision, load_options=held)
    asks = [SamplingRequest(ask.prompt, ask.seed, subject.sampling, ask.negative_prompt) for ask in subject.inputs]
    try:
        ratios = calibrate(pipe, subject.adapter, asks)
    except CacheError as error:
        raise UsageError(f"{error}.") from error
    if as_json:
        put_json({"kind": "mag", "ratios": ratios})
    else:
        put(f"cache: {{kind: mag, ratios: {ratios}}}")


def put_metrics(as_json: bool) -> None:
    """Print every metric, what it needs, and its options."""
    from genrun.adapters.scorers import registry

    found = [_metric(name) for name in registry.names()]
    if as_json:
        put_json(found)
        return
    for metric in found:
        needs = f" (needs {metric['needs']})" if metric["needs"] else ""
        put(f"{metric['name']}: {metric['definition']}{needs}")
        shown = {option["name"]: _shown(option["default"]) for option in metric["options"]}
        _put_options(metric["options"], shown)


def _metric(name: str) -> dict[str, Any]:
    from genrun.adapters.scorers import registry
    from genrun.adapters.scorers.contract import SetMetric, needs_of, options_of

    metric = registry.get(name)
    options = options_of(metric)
    return {
        "name": name,
        "title": metric.title,
        "definition": metric.definition,
        "needs": needs_of(metric),
        "of": "sets" if isinstance(metric, SetMetric) else "items",
        "higher_is_better": metric.higher_is_better,
        "options": [] if options is None else [_plain(option) for option in _options(type(options))],
    }


def _plain(option: dict[str, Any]) -> dict[str, Any]:
    default = option["default"]
    known = default is None or isinstance(default, bool | int | float | str | list | tuple)
    return {**option, "default": default if known else str(default)}


def _shown(default: Any) -> str:
    if default is None:
        return "null"
    return f"{len(default)} of them" if isinstance(default, list | tuple) else str(default)


def _known(names: Sequence[str], known: Sequence[str], what: str) -> Sequence[str]:
    """Return the names that were asked for, or all; refuse unknown ones."""
    from genrun.runner.job.tree import unknown

    for name in names:
        if name not in known:
            raise UsageError(unknown(name, known, what))
    return names or known


def _options(kind: Any) -> list[dict[str, Any]]:
    from genrun.runner.job.options import describe

    return [asdict(option) for option in describe(kind)]


def _put_options(options: Iterable[dict[str, Any]], shown: Mapping[str, str] | None = None) -> None:
    """Print a table of options, their defaults as YAML or as `shown` has them, and an empty line."""
    from genrun.runner.job.yaml import scalar

    texts = shown or {}
    rows = [
        ("  " + option["name"], option["type"], texts.get(option["name"]) or scalar(option["default"]), option["help"])
        for option in options
    ]
    if rows:
        put_table(("  option", "type", "default", "meaning"), rows)
    put("")
