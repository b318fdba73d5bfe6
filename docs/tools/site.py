"""MkDocs hooks: MathJax from the Python package that carries it, on pages with formulas, so that no page needs a network."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

MATHJAX = "assets/mathjax.js"
CONFIGURATION = r"""
window.MathJax = {
  tex: {inlineMath: [["\\(", "\\)"]], displayMath: [["\\[", "\\]"]]},
  options: {ignoreHtmlClass: ".*|", processHtmlClass: "arithmatex"}
};
"""


def on_files(files_: Files, config: MkDocsConfig) -> Files:
    """Add MathJax, which draws formulas as SVG and loads no fonts, and CONTRIBUTING.md, which lies above docs/."""
    source = files("mathjax").joinpath("static/mathjax/es5/tex-svg.js")
    files_.append(File.generated(config, MATHJAX, content=source.read_bytes()))
    guide = (Path(config.docs_dir).parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    files_.append(File.generated(config, "contributing.md", content=guide.replace("](docs/", "](")))
    return files_


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Load MathJax on a page with formulas; it is 2 MB, which other pages are spared."""
    if 'class="arithmatex"' not in output:
        return output
    root = "../" * page.url.count("/")
    scripts = f'<script>{CONFIGURATION}</script><script async src="{root}{MATHJAX}"></script>'
    return output.replace("</body>", f"{scripts}</body>")
