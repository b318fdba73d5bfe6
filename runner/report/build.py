"""Write the report's folder.

report/index.html      the page: charts, style and script are inside, the latter two allowed by their hashes only
report/items/...       the pages of single items
report/pairs/...       clips of the baseline, of the worst pairs
report/media/...       copies of the media, in a standalone report only; else the page links ../media
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from genrun.runner.report.items import item_address, write_items
from genrun.runner.report.page import collect
from genrun.runner.report.render import render
from genrun.runner.report.sections.comparison import PAIRS
from genrun.runner.report.text import RUN_ROOT, address
from genrun.runner.store.files import atomic_write, staged
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.inputs import kept_files, name_of
from genrun.runner.store.repair import remove_below


@dataclass(frozen=True)
class WrittenReport:
    """A report that was written.

    Attributes:
        path: of index.html, absolute.
        items: how many items the run has.
        failed: how many of them failed.
    """

    path: Path
    items: int
    failed: int


def build_report(run: RunFolder, *, standalone: bool = False, live: int = 0) -> WrittenReport:
    """Write the report of a run into its `report/` folder; index.html comes last.

    Args:
        run: the run.
        standalone: copy the media into the folder, so that it can be moved or sent.
        live: number of this version of the page, from 1, for one that asks its server for newer ones; 0 for one that stands
            alone.

    Raises:
        StoreError: the run cannot be read, or the folder cannot be written.
    """
    # Of a report that was killed, or of one with more files than this one writes.
    remove_below(run.report_dir)
    media_root = "" if standalone else RUN_ROOT
    page = collect(run, media_root=media_root, link_logs=not standalone)
    page = replace(page, item_pages=item_address(len(page.items)), live=live)
    if standalone:
        _copy_media(run)
    _link_pairs(run, {} if page.comparison is None else page.comparison.files)
    write_items(run, page, media_root=media_root, link_logs=not standalone)
    index = run.report_dir / "index.html"
    atomic_write(index, render(page).encode("utf-8", "xmlcharrefreplace"))
    return WrittenReport(index, sum(group.items for group in page.groups), page.failed)


def _link_pairs(run: RunFolder, files: Mapping[str, Path]) -> None:
    """Make the report hold exactly these files of the baseline: as links where the disk is the same, else as copies."""
    folder = run.report_dir / PAIRS
    wanted = {run.report_dir / name: source for name, source in files.items() if source.is_file()}
    for path in [path for path in folder.rglob("*") if path.is_file() and path not in wanted]:
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
    inputs = (name_of(*key) for key in kept_files(run.items()))
    for name in (*(record.media for record in run.records().values()), *inputs):
        if name is None or not address(name, RUN_ROOT):
            continue
        source = run.path / name
        if not source.is_file():
            continue
        target = run.report_dir / name
        if not target.is_file() or target.stat().st_mtime_ns != source.stat().st_mtime_ns:
            with staged(target) as temporary:
                shutil.copy2(source, temporary)
