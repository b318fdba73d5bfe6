"""How pages are made: templates that escape everything, and a policy that lets nothing in from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2

REPORT = "genrun.runner.report"
STYLES = ("report.css", "css/charts.css", "css/compare.css", "css/print.css")
SCRIPTS = ("base", "reach", "film", "over", "row", "gallery", "pairs", "loupe", "nights", "paper", "page")
"""Files of `js/`, in the order in which they are read: they share one scope."""


def environment(package: str = REPORT) -> jinja2.Environment:
    """Return jinja2 for the templates of a package, with every value escaped."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: resource(name, package)),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def resource(name: str, package: str = REPORT) -> str:
    """Return a text file that lies in a package."""
    return (files(package) / name).read_text(encoding="utf-8")


def page_style() -> str:
    """Return the report's style sheet."""
    return "\n".join(resource(name) for name in STYLES)


def page_script() -> str:
    """Return the report's script: the files of `js/` in one function."""
    body = "\n".join(resource(f"js/{name}.js") for name in SCRIPTS)
    return f'"use strict";\n(() => {{\n{body}}})();\n'


def policy(style: str, script: str = "") -> str:
    """A content security policy: this very script (if any) and style, media and pictures beside the page, no network."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_digest(script)}'" if script else "script-src 'none'",
            f"style-src '{_digest(style)}'",
            "img-src 'self' file:",
            "media-src 'self' file:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _digest(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
