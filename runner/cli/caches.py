"""`genrun caches`: the caches that a job can name, and their options."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import json_option, put, put_json
from genrun.runner.cli.solvers import put_options
from genrun.runner.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


CALIBRATED = 2
"""Samples of a calibration."""


@click.command(cls=Verb, examples=("genrun caches", "genrun caches toca", "genrun caches mag --calibrate demo-video"))
@click.argument("names", metavar="[CACHE]...", nargs=-1)
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
    from genrun.runner.job.registries import Registries
    from genrun.runner.job.tree import unknown

    registry = Registries.installed().caches
    for name in names:
        if name not in registry.names():
            raise UsageError(unknown(name, registry.names(), "cache"))
    found = [_entry(name, registry.get(name)) for name in names or registry.names()]
    if as_json:
        put_json(found)
        return
    for cache in found:
        put(f"{cache['name']}: {cache['title']}")
        if cache["order"]:
            put(f"  In the order of steps only: {cache['order']}.")
        if cache["package"]:
            put(f"  Needs {cache['package']}: pip install {cache['package']}")
        put_options(cache["options"])
        put("")


def _calibrate(model: str, as_json: bool) -> None:
    """Load a model and print a section `cache` for it."""
    from genrun.adapters.errors import CacheError
    from genrun.adapters.pipeline.load_options import LoadOptions
    from genrun.adapters.pipeline.loading import load
    from genrun.adapters.sampling.call import Request
    from genrun.adapters.sampling.mag_ratios import calibrate
    from genrun.runner.bench.subjects import ModelQuestion, ModelSubject, ask_model, quieten
    from genrun.runner.worker.device import choose_device

    (subject,) = ask_model(ModelQuestion(model, samples=CALIBRATED)).subjects
    assert isinstance(subject, ModelSubject)
    quieten()
    spec, device = subject.model, choose_device(subject.model["device"])
    held = LoadOptions(spec["dtype"], variant=spec.get("variant"))
    revision = spec["revision"]
    pipe = load(subject.adapter, spec["checkpoint"], dtype=None, device=device, revision=revision, load_options=held)
    asks = [Request(ask.prompt, ask.seed, subject.sampling, ask.negative_prompt) for ask in subject.inputs]
    try:
        ratios = calibrate(pipe, subject.adapter, asks)
    except CacheError as error:
        raise UsageError(f"{error}.") from error
    if as_json:
        put_json({"kind": "mag", "ratios": ratios})
    else:
        put(f"cache: {{kind: mag, ratios: {ratios}}}")


def _entry(name: str, cache: Any) -> dict[str, Any]:
    from genrun.runner.job.options import describe, title

    return {
        "name": name,
        "title": title(cache),
        "models": list(getattr(cache, "models", ())),
        "order": getattr(cache, "needs_order", ""),
        "package": getattr(cache, "package", ""),
        "options": [asdict(option) for option in describe(cache)],
    }
