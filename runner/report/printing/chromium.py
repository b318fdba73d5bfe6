"""Chromium as a printer: finds one that is installed, and has it print a page that lies on this disk."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from genrun.runner.errors import RunError, UsageError
from genrun.runner.store.files import temporary_folder

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TIMEOUT_S = 300.0
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


def find_chromium(path: str | None) -> Path:
    """Return the program.

    Args:
        path: the folders to look in, as in PATH.

    Raises:
        UsageError: there is none.
    """
    found = next((found for name in NAMES if (found := shutil.which(name, path=path))), None)
    if found is None:
        raise UsageError(
            f"--pdf needs Chromium, and none of {', '.join(NAMES)} is on the PATH.",
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
        said = _run([str(program), *command], timeout_s)
        if not _is_pdf(target) and "sandbox" in said:
            said = _run([str(program), "--no-sandbox", *command], timeout_s)
    if not _is_pdf(target):
        last = "\n".join(said.strip().splitlines()[-_SHOWN_LINES:]) or "It wrote nothing."
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
