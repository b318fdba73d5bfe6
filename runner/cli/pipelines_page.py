"""The section of docs/models.md on diffusers' own test pipelines, drawn from what was measured: `pipelines.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

MEASURED = Path(__file__).with_name("pipelines.json")
HEAD = """
## diffusers' own pipelines

Every pipeline class that diffusers' tests build from tiny random components, called as those tests call it with {steps}
steps: solver `sequential`, `paradigms` and `collocation` (exact) at tolerance 0 beside the plain pipeline. Measured on
{date} with diffusers {diffusers}, in {dtype} on a CPU, by a harness that reads those tests from diffusers' repository
and is not part of this one: of {classes} classes with a finite plain result **{exact} have the plain pipeline's bits
under every solver** ({percent:.1f} %), {refused} are refused by name, and {other} are neither. Joined from the runs of
two days. {absent}

A class counts once, with the family of its folder in diffusers.

| family | classes | exact | refused |
|---|---|---|---|"""
SCHEDULERS = """
Schedulers: `python -m tests.bench.scheduler_matrix` tries every scheduler class that steps latents with every option of its
config that changes its steps. Of {configurations} configurations with which the plain loop is finite {exact} are exact
under all three solvers, {refused} refused when the job is checked."""


def section() -> str:
    """Return the section, as Markdown."""
    found = json.loads(MEASURED.read_text(encoding="utf-8"))
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    families: Mapping[str, Mapping[str, int]] = found["families"]
    total = {key: sum(family.get(key, 0) for family in families.values()) for key in ("exact", "refused", "other")}
    classes = sum(total.values())
    yield HEAD.format(**{**found, **total}, classes=classes, percent=100 * total["exact"] / classes)
    for name, family in families.items():
        yield f"| {name} | {sum(family.values())} | {family.get('exact', 0)} | {family.get('refused', 0)} |"
    yield ""
    yield "Refused:\n"
    yield from (f"- `{each['pipeline']}`, {each['solvers']}: {each['why']}" for each in found["refused_classes"])
    if found.get("narrow"):
        yield "\nIn {dtype}, a class each of {classes} families: {exact} are exact. {rest}".format(**found["narrow"])
    yield SCHEDULERS.format(**found["schedulers"])
