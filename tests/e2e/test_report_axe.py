"""axe-core finds nothing serious or critical on the report: light and dark, wide and at 400 pixels, and as it is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from genrun.runner.report.build import build_report
from tests.e2e import axe
from tests.e2e.browser import Browser, Page, executable
from tests.e2e.full_report import ERROR
from tests.large_run import make_large_run
from tests.sample_run import make_run

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(executable() is None, reason="Chromium is not installed: apt-get install chromium"),
    pytest.mark.skipif(axe.source() is None, reason="axe-core is not installed: make .venv/ready"),
]

ALL_OPEN = "for (const it of document.querySelectorAll('details')) it.open = true"


def settle(page: Page, report: Path) -> None:
    page.open(report.as_uri())
    page.until("document.querySelectorAll('#rows .row').length > 0")
    page.value(ALL_OPEN)


def test_axe_finds_what_is_wrong(browser: Browser, report: Path) -> None:
    with browser.page() as page:
        settle(page, report)
        page.value(
            "(() => { document.documentElement.removeAttribute('lang'); document.getElementById('scrub-all')"
            ".removeAttribute('aria-label'); document.querySelector('.lead').style.color = '#ddd'; })()"
        )
        assert {finding["rule"] for finding in axe.findings(page)} == {"html-has-lang", "label", "color-contrast"}


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_whole_report_is_accessible(dark: bool, width: int, browser: Browser, report: Path) -> None:
    with browser.page(width, dark=dark) as page:
        settle(page, report)
        assert axe.findings(page) == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_stays_so_while_it_is_used(dark: bool, browser: Browser, report: Path) -> None:
    with browser.page(dark=dark) as page:
        settle(page, report)
        for use in (
            "document.querySelector('[data-overlay=difference]').click()",
            "document.querySelector('[data-overlay=wipe]').click()",
            "document.querySelector('thead button').click()",
            "document.getElementById('play-all').click()",
            "document.getElementById('failed-only').click()",
            "document.querySelector('.copy').click()",
            "document.querySelector('#rows .player button').click()",
        ):
            page.value(use)
            assert axe.findings(page) == [], use


@pytest.mark.parametrize("width", [400, 1280])
def test_many_long_failures_are_accessible(width: int, browser: Browser, tmp_path: Path) -> None:
    run = make_large_run(tmp_path / "demo" / "run", items=200, words=120, is_failed=True)
    with browser.page(width) as page:
        settle(page, build_report(run).path)
        page.value("document.querySelector('[data-more]').click()")
        assert axe.findings(page) == []


def test_pictures_and_a_run_that_has_only_begun_are_accessible(browser: Browser, tmp_path: Path) -> None:
    for name, run in {
        "pictures": make_run(tmp_path / "demo" / "pictures", image=True, failed={3: ERROR}),
        "begun": make_run(tmp_path / "demo" / "begun", pending=(0, 1, 2, 3)),
    }.items():
        with browser.page() as page:
            settle(page, build_report(run).path)
            assert axe.findings(page) == [], name


def test_a_text_that_is_too_long_for_its_box_is_reached_by_the_keyboard(browser: Browser, report: Path) -> None:
    reached = (
        "[...document.querySelectorAll('#rows .prompt')].map((it) => [it.tabIndex, it.scrollHeight > it.clientHeight])"
    )
    with browser.page(400) as page:
        settle(page, report)
        page.until(f"{reached}.some(([index]) => index === 0)")
        assert sorted({(index, is_long) for index, is_long in page.value(reached)}) == [(-1, False), (0, True)]
