"""`genrun score --list`: the metrics, what they need, and their options."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from genrun.runner.cli.output import put, put_json, put_table


def put_metrics(as_json: bool) -> None:
    """Print every metric."""
    from genrun.adapters.scorers import registry

    found = [_about(name) for name in registry.names()]
    if as_json:
        put_json(found)
        return
    for metric in found:
        needs = f" (needs {metric['needs']})" if metric["needs"] else ""
        put(f"{metric['name']}: {metric['definition']}{needs}")
        _put_options(metric["options"])
        put("")


def _about(name: str) -> dict[str, Any]:
    from genrun.adapters.scorers import registry
    from genrun.adapters.scorers.contract import SetMetric, needs_of, options_of
    from genrun.runner.job.options import describe

    metric = registry.get(name)
    options = options_of(metric)
    return {
        "name": name,
        "title": metric.title,
        "definition": metric.definition,
        "needs": needs_of(metric),
        "of": "sets" if isinstance(metric, SetMetric) else "items",
        "higher_is_better": metric.higher_is_better,
        "options": [] if options is None else [_plain(asdict(option)) for option in describe(type(options))],
    }


def _plain(option: dict[str, Any]) -> dict[str, Any]:
    default = option["default"]
    known = default is None or isinstance(default, bool | int | float | str | list | tuple)
    return {**option, "default": default if known else str(default)}


def _put_options(options: list[dict[str, Any]]) -> None:
    rows = [("  " + option["name"], option["type"], _short(option["default"]), option["help"]) for option in options]
    if rows:
        put_table(("  option", "type", "default", "meaning"), rows)


def _short(default: Any) -> str:
    if default is None:
        return "null"
    return f"{len(default)} of them" if isinstance(default, list | tuple) else str(default)
