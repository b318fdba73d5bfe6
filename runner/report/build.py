"""Write a report: the folder of a run's page, again while the run goes on, and a PDF.

report/index.html      the page: charts, style and script are inside, the latter two allowed by their hashes only
report/items/...       the pages of single items
report/pairs/...       clips of the baseline, of the worst pairs
report/media/...       copies of the media, in a standalone report only; else the page links ../media
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from genrun.adapters.files import TooLargeError, read_bounded
from genrun.adapters.media import MediaError, read_middle_frame
from genrun.runner.errors import GenrunError, RunError, UsageError
from genrun.runner.report.page import Page, collect, item_address, write_items
from genrun.runner.report.render import RUN_ROOT, address, render
from genrun.runner.report.sections.comparison import PAIRS
from genrun.runner.store.files import atomic_write, staged, temporary_folder
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.planfile import is_kept, kept_files, name_of
from genrun.runner.store.previews import in_work, read_preview, why_none
from genrun.runner.store.repair import remove_below
from genrun.runner.store.results import is_as_recorded, lost_file


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
    """Copy the files that are what was written: the folder is passed on, and a link may lead to anything."""
    records = {str(record.media): record for record in run.records().values() if record.media}
    kept = {name_of(*key): key[0] for key in kept_files(run.items())}
    for name in (*records, *kept):
        source, target = run.path / name, run.report_dir / name
        if not address(name, RUN_ROOT) or lost_file(str(source), None):
            continue
        if target.is_file() and target.stat().st_mtime_ns == source.stat().st_mtime_ns:
            continue
        if is_as_recorded(run.path, records[name], "media") if name in records else is_kept(source, kept[name]):
            with staged(target) as temporary:
                shutil.copy2(source, temporary)


LOOK_S = 1.0
"""Seconds between two looks at the run folder, at least."""

SHARE = 10
"""Writing the report takes this part of the time at most: of ten thousand items it takes seconds."""

MOST_BYTES = 100
"""Of a file of progress: two numbers."""


class LiveReport:
    """Writes a run's report whenever more of its items have a record, or it is gone, in a thread of its own, until stopped.

    Args:
        run: the run.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._planned = frozenset(item.id for item in run.items())
        self._job = run.job_document()
        self._lock = threading.Lock()
        self._done: set[str] = set()
        self._version = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="live-report", daemon=True)

    def __enter__(self) -> LiveReport:
        """Write the report, and go on whenever there is something new."""
        self._write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End, and leave a report that stands alone."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        with contextlib.suppress(GenrunError):
            build_report(self._run)

    def state(self) -> dict[str, Any]:
        """Return what the page asks for.

        Returns:
            {"version": of the report, "items": planned, "recorded": with a record, "work": {id: [front, N]},
            "previews": {id: [front when it was drawn, N, a hash of it]}, "why": why items in work have none}.
        """
        with self._lock:
            recorded, version = set(self._done), self._version
        work, previews = {}, {}
        for item_id in sorted(in_work(self._run) & self._planned - recorded):
            with contextlib.suppress(OSError, ValueError, TooLargeError):
                front, steps = json.loads(read_bounded(self._run.progress_path(item_id), MOST_BYTES))
                if type(front) is type(steps) is int:
                    work[item_id] = [front, steps]
            if (preview := read_preview(self._run, item_id)) is not None:
                previews[item_id] = [preview.step, preview.steps, zlib.crc32(preview.data)]
        counts = {"version": version, "items": len(self._planned), "recorded": len(recorded)}
        return {**counts, "work": work, "previews": previews, "why": why_none(self._run, self._job) if work else ""}

    def preview(self, item_id: str) -> bytes | None:
        """Return the preview of an item in work as a JPEG, or None."""
        found = read_preview(self._run, item_id) if item_id in self._planned else None
        return None if found is None else found.data

    def _work(self) -> None:
        rest_s = LOOK_S
        while not self._stopped.wait(rest_s):
            started = time.monotonic()
            # A run that is being removed, or a full disk: the page stays as it is.
            with contextlib.suppress(GenrunError, OSError):
                page = self._run.report_dir / "index.html"
                if set(self._run.recorded()) != self._done or not page.is_file():
                    self._write()
            rest_s = max(LOOK_S, SHARE * (time.monotonic() - started))

    def _write(self) -> None:
        recorded = set(self._run.recorded())
        build_report(self._run, live=self._version + 1)
        with self._lock:
            self._done, self._version = recorded, self._version + 1


MOST_ROWS = 24
"""Prompts and seeds that are printed with their clips: as many as one leafs through; the page has all of them."""

LARGEST_PX = 480
"""Longer side of a picture: about 300 dots an inch at the width that css/print.css gives a clip."""

PIXELATED_PX = 160
"""Clips up to this size stay as they are, as the page shows their pixels."""

QUALITY = 88
"""Quality of JPEG: high, as its artefacts would be taken for the model's."""

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TIMEOUT_S = 300.0
"""Far above what 24 rows take, so that only a Chromium that hangs is stopped."""

FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # the page needs no network, and gets none
    "--no-pdf-header-footer",
    "--generate-pdf-document-outline",
)
_SHOWN_LINES = 5


def write_pdf(run: RunFolder, program: Path, target: Path) -> None:
    """Print a run's report.

    Args:
        run: whose report has been written.
        program: Chromium.
        target: the PDF, absolute; whole or not at all.

    Raises:
        RunError: Chromium cannot print.
        StoreError: the run cannot be read, or the file cannot be written.
    """
    with staged(target) as temporary, temporary_folder(run.report_dir / "print") as folder:
        page = for_paper(collect(run, link_logs=False), run.report_dir, folder)
        html = folder / "index.html"
        html.write_bytes(render(page).encode("utf-8", "xmlcharrefreplace"))
        print_page(program, html, temporary)


def for_paper(page: Page, base: Path, folder: Path) -> Page:
    """Return a page for print, of which the first clips are shown, and write their pictures.

    Args:
        page: the page as it is for screens.
        base: the folder that its addresses start from.
        folder: where the page for print will lie.
    """
    rows = page.clips["rows"]
    shown = {**page.clips, "rows": rows[:MOST_ROWS], "print": {"rows": min(len(rows), MOST_ROWS), "of": len(rows)}}
    posters: dict[str, str] = {}

    def poster(address: str) -> str:
        if address not in posters:
            posters[address] = _write_poster(base / unquote(address), folder, f"poster-{len(posters)}")
        return posters[address]

    return replace(page, clips=_with_addresses(shown, poster))


def _with_addresses(value: Any, change: Callable[[str], str]) -> Any:
    """Return nested data with every address of a media file (key "m") changed."""
    if isinstance(value, Mapping):
        return {
            key: change(inner) if key == "m" and inner else _with_addresses(inner, change)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_with_addresses(inner, change) for inner in value]
    return value


def _write_poster(media: Path, folder: Path, name: str) -> str:
    """Write the middle of a clip, or a picture, as a file that is small on paper; return its name.

    A file that is missing or damaged has none, and the page says so as it does of any media that it cannot load.
    """
    from PIL import Image

    try:
        image = Image.fromarray(read_middle_frame(media))
    except (MediaError, OSError):
        return "missing.png"
    if max(image.size) <= PIXELATED_PX:
        image.save(folder / f"{name}.png")
        return f"{name}.png"
    image.thumbnail((LARGEST_PX, LARGEST_PX))
    image.save(folder / f"{name}.jpg", quality=QUALITY)
    return f"{name}.jpg"


# ---- Chromium ----


def find_chromium(path: str | None) -> Path:
    """Return the program.

    Args:
        path: the folders to look in, as in PATH.

    Raises:
        UsageError: there is none.
    """
    found = next((found for name in PROGRAMS if (found := shutil.which(name, path=path))), None)
    if found is None:
        raise UsageError(
            f"--pdf needs Chromium, and none of {', '.join(PROGRAMS)} is on the PATH.",
            remedy="Install it (apt-get install chromium), or open the page in any browser and print it there.",
        )
    return Path(found)


def print_page(program: Path, page: Path, target: Path, *, timeout_s: float = TIMEOUT_S) -> None:
    """Print a page to a PDF.

    The sandbox is left out only where Chromium says that it has none to use, as for root and in containers: the page is
    ours, and its policy lets no script but ours run.

    Args:
        program: from `find_chromium`.
        page: an HTML file, absolute.
        target: the PDF, absolute; overwritten.
        timeout_s: after this many seconds Chromium is stopped.

    Raises:
        RunError: Chromium failed, took too long, or left no PDF.
    """
    # Beside the page, since a Chromium from a snap sees no /tmp but its own.
    with temporary_folder(page.parent / "chromium") as profile:
        command = [*FLAGS, f"--user-data-dir={profile}", f"--print-to-pdf={target}", page.as_uri()]
        output = _run([str(program), *command], timeout_s)
        if not _is_pdf(target) and "sandbox" in output:
            output = _run([str(program), "--no-sandbox", *command], timeout_s)
    if not _is_pdf(target):
        last = "\n".join(output.strip().splitlines()[-_SHOWN_LINES:]) or "It wrote nothing."
        raise RunError(
            f"{program} printed no PDF of {page}:\n{last}", remedy="Open the page in a browser, print it there."
        )


def _run(command: Sequence[str], timeout_s: float) -> str:
    """Run Chromium; return what it wrote."""
    quiet, out = subprocess.DEVNULL, subprocess.PIPE
    try:
        done = subprocess.run(
            command, stdin=quiet, stdout=out, stderr=subprocess.STDOUT, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return f"It took longer than {timeout_s:g} s and was stopped."
    except OSError as error:
        return f"It did not start: {error.strerror}."
    return done.stdout.decode(errors="replace")


def _is_pdf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(5) == b"%PDF-"
    except OSError:
        return False
