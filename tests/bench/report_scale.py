"""What a report of thousands of items takes: to write, on disk, and until a browser shows it with its first clips.

    python -m tests.bench.report_scale --items 2000

Items have records, scores and clips as those of a real run. Chromium opens the page from its file, with an empty cache
each time; the smallest of five is given. Not a test: times belong to the machine.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from genrun.runner.report.build import build_report
from tests.e2e.browser import launched
from tests.large_run import make_large_run
from tests.sample_run import ALL_SOLVERS, CAPTIONS, make_run

TIMES = (
    "(() => { const it = performance.getEntriesByType('navigation')[0];"
    " return {parsed_ms: Math.round(it.domInteractive), loaded_ms: Math.round(it.loadEventEnd)}; })()"
)
LOADED = "performance.getEntriesByType('navigation')[0].loadEventEnd > 0"
CLIPS = "[...document.querySelectorAll('#rows .row:first-child video')].every((video) => video.readyState >= 2)"
FIND = (
    "(() => { const start = performance.now(); const it = document.getElementById('filter'); it.value = '17';"
    " it.dispatchEvent(new Event('input')); document.body.offsetHeight; return Math.round(performance.now() - start); })()"
)


def opened(page: Path, profile: Path) -> dict[str, float]:
    """Open a page in a new browser, scroll to its clips, and find in its prompts; return what each took in ms."""
    with launched(profile) as browser, browser.page() as tab:
        start = time.monotonic()
        tab.open(page.as_uri())
        tab.until(LOADED)
        figures = tab.value(TIMES)
        tab.value("document.getElementById('clips').scrollIntoView()")
        tab.until(CLIPS)
        figures["first_clips_ms"] = round(1000 * (time.monotonic() - start))
        return {**figures, "find_ms": tab.value(FIND)}


def best(figures: list[dict[str, float]]) -> dict[str, float]:
    """The smallest of each figure."""
    return {name: min(figure[name] for figure in figures) for name in figures[0]}


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=2000)
    items = parser.parse_args().items
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = make_run(folder / "small" / "run", solvers=ALL_SOLVERS, prompts=CAPTIONS[:1])
        clips = [small.media_path(item, ".mp4") for item in small.items()]
        run = make_large_run(folder / "demo" / "run", items=items, clips=clips)
        build_report(run)  # imports, fonts
        start, cpu = time.monotonic(), time.process_time()
        page = build_report(run).path
        written = {"wall_s": round(time.monotonic() - start, 2), "own_s": round(time.process_time() - cpu, 2)}
        size = sum(path.stat().st_size for path in run.report_dir.rglob("*") if path.is_file())
        opens = best([opened(page, folder / f"profile-{number}") for number in range(5)])
    print(json.dumps({"items": items, "write": written, "folder_bytes": size, "open": opens}))


if __name__ == "__main__":
    main()
