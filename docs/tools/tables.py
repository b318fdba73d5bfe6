"""Fills the generated tables of the pages in docs/: keys of a job, options of solvers and caches, metrics.

A page holds a pair of comments, `<!-- table: section LaunchSpec -->` and `<!-- end -->`. What stands between them is written
here, from the descriptions that `genrun validate` and `--help` use. Run `make docs`; a test tells when a table is stale.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from genrun.adapters.caches import registry as caches
from genrun.adapters.scorers import registry as metrics
from genrun.adapters.scorers.contract import needs_of
from genrun.runner.job.jsonschema import job_schema
from genrun.runner.job.options import describe
from genrun.solvers import registry as solvers

DOCS = Path(__file__).parents[1]
SECTIONS = {
    "SolverSpec": "The [solver](solvers.md): a name, or `{kind: NAME, ...}` with its options. `sequential` by default.",
    "CacheSpec": "The [cache](caches.md): a name, or `{kind: NAME, ...}` with its options. `none` by default.",
}
"""Descriptions of the sections whose keys depend on their kind."""
BLOCK = re.compile(r"(<!-- table: ([\w. -]+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(page: str) -> str:
    """Return a page with every table between its comments written anew."""
    return BLOCK.sub(lambda block: f"{block[1]}\n{table(*block[2].split())}\n\n{block[3]}", page)


def table(kind: str, name: str = "") -> str:
    """Return a Markdown table.

    Args:
        kind: `job` for the keys of a job, `section` for those of one of its sections, `solver`, `cache` or `metrics`.
        name: of the section (as the schema calls it, such as LaunchSpec), solver or cache.
    """
    match kind:
        case "job":
            return _rows(("key", "default", "what it says"), _keys(_schema()))
        case "section":
            return _rows(("key", "default", "what it says"), _keys(_schema()["$defs"][name]))
        case "solver" | "cache":
            registry = solvers if kind == "solver" else caches
            options = ((f"`{o.name}`", o.type, _code(o.default), o.help) for o in describe(registry.get(name)))
            return _rows(("option", "type", "default", "meaning"), options)
        case "metrics":
            return _rows(("metric", "better", "definition", "needs"), _metrics())
    raise ValueError(f"no table {kind!r}")


@cache
def _schema() -> dict[str, Any]:
    return job_schema()


def _keys(schema: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    needed = {"model", "prompts", *schema.get("required", ())}
    for key, field in schema["properties"].items():
        words = field.get("description") or _described(field)
        choices = _choices(field)
        yield (
            f"`{key}`",
            "needed" if key in needed and "default" not in field else _code(field.get("default", ...)),
            (f"{words} {choices}".strip()),
        )


def _described(field: Mapping[str, Any]) -> str:
    """The description of the section that a key refers to."""
    references = [field, *field.get("anyOf", ()), *field.get("allOf", ())]
    names = [each["$ref"].rpartition("/")[2] for each in references if "$ref" in each]
    if not names:
        return ""
    return SECTIONS.get(names[0]) or _schema()["$defs"][names[0]].get("description", "").partition("\n")[0]


def _choices(field: Mapping[str, Any]) -> str:
    """The values that a key may have, where they are few."""
    parts = [field, *field.get("anyOf", ())]
    values = [value for part in parts for value in part.get("enum", ())]
    return f"One of {', '.join(f'`{value}`' for value in values)}." if 0 < len(values) < 8 else ""


def _metrics() -> Iterator[tuple[str, str, str, str]]:
    for name in metrics.names():
        metric = metrics.get(name)
        yield f"`{name}`", "higher" if metric.higher_is_better else "lower", metric.definition, needs_of(metric)


def _code(default: Any) -> str:
    """A default as a job file writes it; nothing for None, an empty value, or a section."""
    if default in (None, ..., (), [], {}) or isinstance(default, dict):
        return ""
    if isinstance(default, list | tuple):
        return f"{len(default)} of them" if len(default) > 4 else f"`{json.dumps(default)}`"
    return f"`{default}`" if isinstance(default, str) else f"`{json.dumps(default)}`"


def _rows(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    cells = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in cells)


def pages() -> list[Path]:
    """Return the pages that hold a generated table."""
    return [path for path in sorted(DOCS.glob("*.md")) if "<!-- table: " in path.read_text(encoding="utf-8")]


if __name__ == "__main__":
    for path in pages():
        path.write_text(fill(path.read_text(encoding="utf-8")), encoding="utf-8")
