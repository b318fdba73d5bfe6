"""Pages as HTML: templates that escape everything, a policy that lets nothing in from elsewhere; words of the page."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from genrun.adapters.scorers import registry
from genrun.runner.job.schema import AUDIT
from genrun.version import __version__

if TYPE_CHECKING:
    import jinja2

    from genrun.runner.report.page import Page


REPORT = "genrun.runner.report"
PAGE = "index.html.j2"
STYLES = ("page", "charts", "sections", "clips", "inputs", "print")
"""Files of `css/`, in the order in which they are read."""

SCRIPTS = (
    *("base", "keyboard", "player", "overlay", "inputs", "row", "versus", "gallery", "pairs"),
    *("lightbox", "nights", "table", "live", "print", "page"),
)
"""Files of `js/`, in the order in which they are read: they share one scope."""


def render(page: Page) -> str:
    """Return a report's page."""
    from markupsafe import Markup

    style = stylesheet(*STYLES)
    body = "\n".join(resource(f"js/{name}.js") for name in SCRIPTS)
    script = f'"use strict";\n(() => {{\n{body}}})();\n'
    data = {
        **page.clips,
        "pages": page.item_pages,
        "run": page.path,
        "nights": page.nights.data(),
        "live": page.live,
    }
    return (
        environment()
        .get_template(PAGE)
        .render(
            page=page,
            version=__version__,
            style=Markup(style),
            script=Markup(script),
            data=Markup(embed_json(data)),
            policy=policy(style, script, asks=page.live > 0),
        )
    )


def environment(package: str = REPORT) -> jinja2.Environment:
    """Return jinja2 for the templates of a package, with every value escaped; templates of the report come after its own."""
    import jinja2

    def load(name: str) -> str:
        try:
            return resource(name, package)
        except FileNotFoundError:
            return resource(name, REPORT)

    return jinja2.Environment(
        loader=jinja2.FunctionLoader(load),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def stylesheet(*names: str) -> str:
    """Return files of `css/` as one style sheet."""
    return "\n".join(resource(f"css/{name}.css") for name in names)


def policy(style: str, script: str = "", *, asks: bool = False) -> str:
    """Return a content security policy: this very style and script (if any), media beside the page, no network.

    Args:
        style: of the page.
        script: of the page.
        asks: whether the script may ask the server that the page came from.
    """
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_digest(script)}'" if script else "script-src 'none'",
            f"style-src '{_digest(style)}'",
            "img-src 'self' file:",
            "media-src 'self' file:",
            *(("connect-src 'self'",) if asks else ()),
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def embed_json(value: Mapping[str, Any]) -> str:
    """Return JSON that is safe inside <script type="application/json">: no "<" and no character beyond ASCII."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def resource(name: str, package: str = REPORT) -> str:
    """Return a file of a package."""
    return (files(package) / name).read_text(encoding="utf-8")


def _digest(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


COST_TITLES = {"rounds": "rounds", "nfe": "NFE", "speedup": "N / rounds", "elapsed_s": "seconds an item"}
RULES = {"max": "at most", "min": "at least", "max_drop": "drops by at most", "max_rise": "rises by at most"}
DRIFT = "drift."
RUN_ROOT = "../"
"""Address of the run folder on its page."""

MOST_MESSAGE_LETTERS = 2000
"""Characters of a message that the page shows, so that thousands of items do not make it slow to open."""


def title_of(metric: str) -> str:
    """Return the heading of a metric, a part of one, a drift or a cost."""
    if metric == AUDIT:
        return "audited items within tolerance"
    if metric in COST_TITLES:
        return COST_TITLES[metric]
    if metric.startswith(DRIFT):
        return f"drift: {title_of(metric.removeprefix(DRIFT))}"
    base, _, part = metric.partition(".")
    title = registry.get(base).title if base in registry.names() else base
    return f"{title}: {part.replace('_', ' ')}" if part else title


def shown_path(path: Path) -> str:
    """Return `path` relative to the working directory where that is shorter to type, else absolute."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def address(path: str, root: str) -> str:
    """Return the address of a file of the run on the page; "" for a path that leaves the run folder.

    Args:
        path: relative to the run folder.
        root: what comes before it on the page.
    """
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts:
        return ""
    return root + quote(path)


def cut(words: str, most: int) -> str:
    """Return the first `most` letters of a longer text and how many more there are."""
    return words if len(words) <= most else f"{words[:most]}… and {len(words) - most:,} letters more"
