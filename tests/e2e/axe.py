"""axe-core, the accessibility checker, run in a page: findings of what hinders people, by rule."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

from tests.e2e.browser import Page

GRAVE = ("serious", "critical")
RUN = "axe.run(document, {resultTypes: ['violations'], preload: false})"


@cache
def source() -> str | None:
    """The text of axe.min.js, as a package carries it, or None where that is not installed."""
    found = importlib.util.find_spec("axe_playwright_python")  # found, not imported: it would need Playwright
    for folder in (found and found.submodule_search_locations) or ():
        return (Path(folder) / "axe.min.js").read_text(encoding="utf-8")
    return None


def findings(page: Page) -> list[dict[str, Any]]:
    """Check a page as it is now; return the serious and critical findings: rule, impact, and places with the reason."""
    script = source()
    if script is None:
        raise FileNotFoundError("axe-core is not installed: make .venv/ready")
    if page.value("typeof axe") == "undefined":
        page.value(f"{script}; 0")
    found = page.value(f"{RUN}.then((it) => it.violations)")
    return [
        {
            "rule": each["id"],
            "impact": each["impact"],
            "places": [f"{node['target'][0]}: {node['failureSummary']}" for node in each["nodes"]],
        }
        for each in found
        if each["impact"] in GRAVE
    ]
