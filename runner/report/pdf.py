"""The report on paper: the same page with a picture of each clip in the place of its player, printed by Chromium."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from genrun.adapters.media import MediaError, read_middle_frame
from genrun.runner.errors import RunError, UsageError
from genrun.runner.report.page import Page, collect
from genrun.runner.report.render import render
from genrun.runner.store.files import staged, temporary_folder
from genrun.runner.store.folder import RunFolder

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
