"""The report printed by a real Chromium, and read back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pypdf import PdfReader

from genrun.runner.report.build import build_report, find_chromium, write_pdf
from genrun.runner.score.metrics import wanted_metrics
from genrun.runner.score.scoring import score_run
from genrun.runner.store.folder import RunFolder
from tests.e2e.browser import executable, launched
from tests.e2e.full_report import full_report
from tests.sample_run import ALL_SOLVERS, CAPTIONS, make_run

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(executable() is None, reason="Chromium is not installed: apt-get install chromium"),
]

HOSTILE = "<script>document.body.remove()</script><h1>not a heading</h1>"
ERROR = {"kind": "OutOfMemoryError", "message": "out of memory", "remedy": "Use less.", "log": "logs/rank-0.log"}


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> PdfReader:
    """A report of three prompts by five solvers, of which one failed and the file of another is gone."""
    folder = tmp_path_factory.mktemp("paper")
    prompts = (*CAPTIONS[:2], HOSTILE)
    run = make_run(folder / "demo" / "run", solvers=ALL_SOLVERS, prompts=prompts, failed={3: ERROR})
    run.media_path(run.items()[1], ".mp4").unlink()
    score_run(run, wanted_metrics(run, ["latent_rmse"]))
    build_report(run)
    write_pdf(run, find_chromium(os.environ.get("PATH")), folder / "demo.pdf")
    return PdfReader(folder / "demo.pdf")


def words(printed: PdfReader) -> str:
    """All text, on one line."""
    return " ".join(" ".join(page.extract_text() for page in printed.pages).split())


def test_the_paper_says_what_the_page_says(printed: PdfReader) -> None:
    text = words(printed)
    for expected in (
        "14 of 15 items are done, 1 failed",
        "OutOfMemoryError out of memory",
        *CAPTIONS[:2],
        "What was not scored, and why",
        "media file is missing",
        "Environment",
    ):
        assert expected in text, expected


def test_every_section_is_open_and_no_control_is_printed(printed: PdfReader) -> None:
    text = words(printed)
    assert "latent_rmse, 1 item: generation failed" in text
    assert "adapter: demo-video" in text
    for control in ("Play all", "Difference ×8", "Previous", "rerun 7 rounds", "failed only"):
        assert control not in text


def test_clips_are_pictures(printed: PdfReader) -> None:
    posters = [image for page in printed.pages for image in page.images if image.image and image.image.size == (64, 64)]
    assert len(posters) == 13


def test_a_hostile_prompt_is_printed_as_it_is(printed: PdfReader) -> None:
    assert HOSTILE in words(printed)


def test_pages_are_wide_and_bookmarked(printed: PdfReader) -> None:
    assert {round(page.mediabox.width / page.mediabox.height, 1) for page in printed.pages} == {1.4}
    titles = [entry.title for entry in printed.outline[1] if not isinstance(entry, list)]
    assert "Summary" in titles
    assert "not a heading" not in titles


def test_gates_nights_and_the_worst_pairs_are_printed_too(tmp_path: Path) -> None:
    run = RunFolder.open(full_report(tmp_path).parent.parent)
    write_pdf(run, find_chromium(os.environ.get("PATH")), tmp_path / "full.pdf")
    paper = PdfReader(tmp_path / "full.pdf")
    text = words(paper)
    for expected in ("failed latent RMSE rises by at most", "All nights with their commits", "The worst pairs"):
        assert expected in text, expected
    last = text.partition("The worst pairs")[2]
    assert last.index("baseline latent RMSE") < last.index("Reproduce")
    assert "media file is missing" not in text


def test_printing_by_hand_opens_what_was_closed_and_closes_it_again(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo" / "run", files=False, latents=False)
    with launched(tmp_path / "profile") as browser, browser.page() as page:
        page.open(build_report(run).path.as_uri())
        closed = "document.querySelectorAll('details:not([open])').length"
        before = page.value(closed)
        page.value("dispatchEvent(new Event('beforeprint'))")
        assert page.value(closed) == 0 < before
        page.value("dispatchEvent(new Event('afterprint'))")
        assert page.value(closed) == before
