"""Writes the report's folder.

report/index.html      the page: style and script are inside, allowed by their hashes only
report/assets/*.svg    the pictures
report/pairs/...       clips of the baseline, of the worst pairs
report/media/...       copies of the media, in a standalone report only; else the page links ../media
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrun import __version__
from genrun.runner.report.data import MEDIA_ROOT, Page, address, collect
from genrun.runner.report.html import environment, page_script, page_style, policy
from genrun.runner.report.worst import ROOM
from genrun.runner.store.files import atomic_write, staged
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.repair import remove_below
from genrun.runner.store.scores import read_scores

TEMPLATE = "index.html.j2"


@dataclass(frozen=True)
class Report:
    """A report that was written.

    Attributes:
        path: of index.html, absolute.
        items: how many items the run has.
        failed: how many of them failed.
    """

    path: Path
    items: int
    failed: int


def build_report(run: RunFolder, *, standalone: bool = False) -> Report:
    """Write the report of a run into its `report/` folder; index.html comes last.

    Args:
        run: the run.
        standalone: copy the media into the folder, so that it can be moved or sent.

    Raises:
        StoreError: the run cannot be read, or the folder cannot be written.
    """
    from genrun.runner.report.pictures import draw_all

    # Of a report that was killed; perhaps one with more files than this one writes.
    remove_below(run.report_dir)
    page = collect(run, media_root="" if standalone else MEDIA_ROOT, link_logs=not standalone)
    pictures = draw_all(page.groups, [page.colour(group) for group in page.groups], run.records(), read_scores(run))
    for name, svg in pictures.items():
        atomic_write(run.report_dir / "assets" / name, svg)
    if standalone:
        _copy_media(run)
    _take_pairs(run, {} if page.versus is None else page.versus.worst.files)
    index = run.report_dir / "index.html"
    atomic_write(index, render(page, frozenset(pictures)).encode("utf-8", "xmlcharrefreplace"))
    return Report(index, sum(group.items for group in page.groups), sum(group.failed for group in page.groups))


def render(page: Page, pictures: frozenset[str]) -> str:
    """Fill the template.

    Args:
        page: what to show.
        pictures: names of the files in assets/.
    """
    from markupsafe import Markup

    style, script = page_style(), page_script()
    return (
        environment()
        .get_template(TEMPLATE)
        .render(
            page=page,
            sections=_sections(page),
            pictures=pictures,
            version=__version__,
            style=Markup(style),
            script=Markup(script),
            data=Markup(embed_json({**page.clips, "run": page.path, "nights": page.nights.data()})),
            policy=policy(style, script),
        )
    )


def _sections(page: Page) -> list[tuple[str, str]]:
    """(id, name) of the sections that the page has, in its order."""
    versus, nights = page.versus, page.nights
    found = {
        ("failed", "Failed"): bool(page.failures),
        ("notes", "To know"): bool(page.notes),
        ("gates", "Gates"): versus is not None and bool(versus.gates),
        ("nights", "Nights"): bool(nights.rows or nights.note),
        ("summary", "Summary"): True,
        ("vbench", "VBench"): page.vbench is not None,
        ("clips", "Side by side"): True,
        ("compare", "Comparison"): versus is not None and versus.has_table,
        ("outliers", "Slowest and worst"): bool(page.outliers),
        ("reproduce", "Reproduce"): True,
        ("definitions", "Definitions"): True,
        ("environment", "Environment"): True,
    }
    return [section for section, is_there in found.items() if is_there]


def embed_json(value: Mapping[str, Any]) -> str:
    """Return JSON that is safe inside <script type="application/json">: no "<" and no character beyond ASCII."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _take_pairs(run: RunFolder, files: Mapping[str, Path]) -> None:
    """Have exactly these files of the baseline in the report: as links where the disk is the same, else as copies."""
    room = run.report_dir / ROOM
    wanted = {run.report_dir / address: source for address, source in files.items() if source.is_file()}
    for path in [path for path in room.rglob("*") if path.is_file() and path not in wanted]:
        path.unlink()
    for target, source in wanted.items():
        if target.is_file() and target.stat().st_mtime_ns == source.stat().st_mtime_ns:
            continue
        with staged(target) as temporary:
            try:
                os.link(source, temporary)
            except OSError:
                shutil.copy2(source, temporary)


def _copy_media(run: RunFolder) -> None:
    for record in run.records().values():
        if record.media is None or not address(record.media, MEDIA_ROOT):
            continue
        source = run.path / record.media
        if not source.is_file():
            continue
        target = run.report_dir / record.media
        if not target.is_file() or target.stat().st_mtime_ns != source.stat().st_mtime_ns:
            with staged(target) as temporary:
                shutil.copy2(source, temporary)
