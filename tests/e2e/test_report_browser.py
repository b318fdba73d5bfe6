"""The report in a real browser, opened from file://, at the sizes of a telephone, a laptop and a wall."""

from __future__ import annotations

import base64
import io
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genrun.runner.report.build import LiveReport, build_report
from genrun.runner.report.serve import ReportServer
from genrun.runner.score.metrics import wanted_metrics
from genrun.runner.score.scoring import score_run
from genrun.runner.store.environment import current
from genrun.runner.store.lease import Leases, Owner
from genrun.runner.store.previews import preview_path
from genrun.runner.worker.previews import as_jpeg
from tests.e2e.browser import Browser, Page, executable
from tests.e2e.full_report import HOSTILE
from tests.fakes.scores import give
from tests.sample_run import ALL_SOLVERS, CAPTIONS, PICARD, ROPA, SEQUENTIAL, finish, make_run

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(executable() is None, reason="Chromium is not installed: apt-get install chromium"),
]

FIRST_ROW = "document.querySelector('#rows .row')"
PAIR = "document.querySelector('#pairs .row')"
LOADED = "[...document.querySelectorAll('#rows .row:first-child video')].every((video) => video.readyState >= 2)"


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    """The report at the size of a laptop, at its clips."""
    with browser.page() as page:
        settle(page, report)
        yield page


def settle(page: Page, report: Path) -> None:
    """Open a report and wait for the clips of its first row."""
    page.open(report.as_uri())
    page.value("document.getElementById('clips').scrollIntoView()")
    page.until(LOADED)


def times(page: Page) -> list[float]:
    return page.value(f"[...{FIRST_ROW}.querySelectorAll('video')].map((video) => video.currentTime)")


def choose(page: Page, element: str, value: str, event: str) -> None:
    page.value(
        f"(() => {{ const it = document.getElementById({json.dumps(element)}); it.value = {json.dumps(value)};"
        f" it.dispatchEvent(new Event('{event}')); }})()"
    )


def shot(page: Page, selector: str) -> np.ndarray:
    """Return what the screen shows of an element, inside its rounded border: uint8 of shape (H, W)."""
    box = page.value(
        f"(() => {{ const it = document.querySelector({json.dumps(selector)}); it.scrollIntoView({{block: 'center'}});"
        " const r = it.getBoundingClientRect(); return [r.x + scrollX, r.y + scrollY, r.width, r.height]; })()"
    )
    clip = {"x": box[0] + 4, "y": box[1] + 4, "width": box[2] - 8, "height": box[3] - 8, "scale": 1}
    picture = page.send("Page.captureScreenshot", clip=clip)["data"]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("L")).astype(float)


def brightness(page: Page, selector: str) -> float:
    """Mean level 0..255 of what the screen shows of an element."""
    return float(shot(page, selector).mean())


def test_the_page_opens_without_an_error_or_a_warning(page: Page) -> None:
    assert page.events("Log.entryAdded") == []
    assert page.events("Runtime.exceptionThrown") == []
    assert page.events("Runtime.consoleAPICalled") == []


def test_the_page_asks_for_files_only(page: Page) -> None:
    urls = [event["request"]["url"] for event in page.events("Network.requestWillBeSent")]
    assert len(urls) > 5
    assert {url.partition(":")[0] for url in urls} == {"file"}


def test_charts_are_shown_with_their_marks_in_their_colours(page: Page) -> None:
    sizes = page.value(
        "[...document.querySelectorAll('.picture .canvas')].map((it) => it.getBoundingClientRect().width)"
    )
    assert len(sizes) == 2
    assert min(sizes) > 100
    points = (
        "[...document.querySelectorAll('#speed .point.mean')].map((it) => [getComputedStyle(it).fill,"
        " it.querySelector('title').textContent])"
    )
    fills, titles = zip(*page.value(points), strict=True)
    assert len(set(fills)) == 4 and "rgb(0, 0, 0)" not in fills
    assert titles[0].startswith("picard K=8: 1.82×, 0.00404")


@pytest.mark.parametrize(("width", "display"), [(400, "none"), (1280, "block")])
def test_labels_beside_points_stand_only_where_there_is_room(
    width: int, display: str, browser: Browser, report: Path
) -> None:
    with browser.page(width) as page:
        settle(page, report)
        assert page.value("getComputedStyle(document.querySelector('#speed .canvas text')).display") == display
        assert page.value("document.querySelectorAll('#speed .legend dt').length") == 9


def test_the_clips_of_a_row_play_in_step_and_start_again(page: Page) -> None:
    page.value(f"{FIRST_ROW}.querySelector('.bar button').click()")
    page.until(f"[...{FIRST_ROW}.querySelectorAll('video')].every((video) => video.currentTime > 0.3)")
    now = times(page)
    assert len(now) == 5
    assert max(now) - min(now) < 0.2
    page.value(
        f"new Promise((done) => {FIRST_ROW}.querySelector('video').addEventListener('seeking', done, {{once: true}}))"
    )
    page.until(f"[...{FIRST_ROW}.querySelectorAll('video')].every((video) => !video.paused)")


def test_pausing_leaves_every_clip_at_the_same_frame(page: Page) -> None:
    page.value(f"{FIRST_ROW}.querySelector('.bar button').click()")
    page.until(f"{FIRST_ROW}.querySelector('video').currentTime > 0.2")
    page.value(f"{FIRST_ROW}.querySelector('.bar button').click()")
    page.until(f"[...{FIRST_ROW}.querySelectorAll('video')].every((video) => video.paused && !video.seeking)")
    now = times(page)
    assert max(now) - min(now) < 0.01


def test_the_scrub_bar_moves_every_clip_of_the_row(page: Page) -> None:
    page.value(
        f"(() => {{ const bar = {FIRST_ROW}.querySelector('input'); bar.value = 500;"
        " bar.dispatchEvent(new Event('input')); })()"
    )
    page.until(f"[...{FIRST_ROW}.querySelectorAll('video')].every((video) => !video.seeking)")
    assert times(page) == pytest.approx([9 / 8 / 2] * 5, abs=0.01)


def test_one_button_plays_and_pauses_what_is_in_view(page: Page) -> None:
    page.value("document.getElementById('play-all').click()")
    page.until(f"[...{FIRST_ROW}.querySelectorAll('video')].every((video) => video.currentTime > 0.1)")
    assert page.value("document.getElementById('play-all').textContent") == "Pause all"
    page.value("document.getElementById('play-all').click()")
    page.until("[...document.querySelectorAll('video')].every((video) => video.paused)")


def test_clips_far_below_are_not_loaded(page: Page) -> None:
    counts = page.value(
        "(() => { const all = [...document.querySelectorAll('video')];"
        " return [all.length, all.filter((video) => video.hasAttribute('src')).length]; })()"
    )
    assert 0 < counts[1] < counts[0]


@pytest.mark.parametrize("width", [320, 400, 768, 1280, 2560, 3840])
def test_nothing_overflows_sideways(width: int, browser: Browser, report: Path) -> None:
    with browser.page(width) as page:
        settle(page, report)
        assert page.value("document.documentElement.scrollWidth") == width
        beyond = page.value(
            "[...document.querySelectorAll('body *')].filter((it) => !it.closest('.scroll, svg, .skip, pre') &&"
            " it.getBoundingClientRect().right > innerWidth + 1).map((it) => it.tagName + '.' + it.className)"
        )
        assert beyond == []


def test_a_table_of_many_metrics_fits_a_laptop(browser: Browser, tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo" / "run", solvers=ALL_SOLVERS)
    metrics = ["latent_rmse", "latent_worst_block", "psnr", "ssim", "temporal_flicker", "checker"]
    score_run(run, wanted_metrics(run, metrics))
    with browser.page(1280) as page:
        page.open(build_report(run).path.as_uri())
        assert page.value("document.querySelectorAll('#table th[scope=col]').length") == 14
        scroll = "document.querySelector('#summary .scroll')"
        shown, whole = page.value(f"[{scroll}.clientWidth, {scroll}.scrollWidth]")
        assert shown == whole > 1000


def test_a_prompt_with_a_script_stays_text(page: Page) -> None:
    choose(page, "filter", "<script>", "input")
    assert page.value("document.querySelectorAll('#rows .row').length") == 1
    assert page.value(f"{FIRST_ROW}.querySelector('.prompt').textContent") == HOSTILE
    assert page.value("typeof window.hacked") == "undefined"
    assert page.value("document.querySelectorAll('#rows script, #failed script, #rows img').length") == 0


def test_a_script_that_got_into_the_page_would_not_run(page: Page) -> None:
    page.value(
        "(() => { const bad = document.createElement('script'); bad.textContent = 'window.hacked = 3';"
        " document.body.append(bad); })()"
    )
    assert page.value("typeof window.hacked") == "undefined"


def test_the_filter_finds_prompts_and_says_when_there_are_none(page: Page) -> None:
    choose(page, "filter", "TRIANGLE", "input")
    prompts = page.value("[...document.querySelectorAll('#rows .prompt')].map((it) => it.textContent)")
    assert prompts == [CAPTIONS[2]]
    choose(page, "filter", "no such words", "input")
    assert page.value("document.getElementById('empty').hidden") is False
    choose(page, "filter", "", "input")
    assert page.value("document.getElementById('position').textContent") == "1–8 of 9"


def test_one_solver_is_shown_beside_the_sequential_one(page: Page) -> None:
    choose(page, "solver", ROPA.label, "change")
    names = page.value(f"[...{FIRST_ROW}.querySelectorAll('.name bdi')].map((it) => it.textContent)")
    assert names == [SEQUENTIAL.label, ROPA.label]


def test_failed_only_leaves_the_rows_with_failures(page: Page) -> None:
    page.value("document.getElementById('failed-only').click()")
    assert page.value("document.querySelectorAll('#rows .row').length") == 1
    assert page.value("document.querySelectorAll('#rows .stage.failed').length") == 2


def test_paging_shows_the_rest(page: Page) -> None:
    page.value("document.getElementById('next').click()")
    assert page.value("document.getElementById('position').textContent") == "9 of 9"
    assert page.value("document.getElementById('next').disabled") is True


def test_the_difference_is_black_where_clips_agree_and_bright_where_they_do_not(page: Page) -> None:
    page.value("document.getElementById('difference').click()")
    page.until(f"[...{FIRST_ROW}.querySelectorAll('canvas')].every((canvas) => canvas.width === 64)")
    assert page.value(f"{FIRST_ROW}.querySelectorAll('canvas').length") == 4
    item = page.value(f"[...{FIRST_ROW}.querySelectorAll('.player')].map((film) => film.dataset.item)")
    level = {
        solver.label: brightness(page, f"[data-item='{item_id}'] .stage")
        for solver, item_id in zip(ALL_SOLVERS, item, strict=True)
    }
    assert level["exact K=8"] < 2
    assert level["exact K=8"] < level["picard K=8"] < level["ropa K=8"] < level["chords K=4"]
    page.value("document.getElementById('difference').click()")
    assert page.value("document.querySelectorAll('canvas').length") == 0


def test_the_wipe_shows_the_reference_left_of_a_divider_that_the_pointer_moves(page: Page) -> None:
    stage = "document.querySelector('#rows .player:nth-child(5) .stage')"
    page.press("w", "w")
    page.until(f"{stage}.querySelector('canvas')?.width === 64")
    x, y, width = page.value(
        f"(() => {{ {stage}.scrollIntoView({{block: 'center'}}); const box = {stage}.getBoundingClientRect();"
        " return [box.x, box.y, box.width]; })()"
    )
    for share in (0.25, 0.75):
        page.send("Input.dispatchMouseEvent", type="mouseMoved", x=x + share * width, y=y + 20)
        left = page.value(f"{stage}.querySelector('.divider').getBoundingClientRect().x - {x}")
        assert left == pytest.approx(share * width, abs=2)
    others = page.value(f"[...{FIRST_ROW}.querySelectorAll('.divider')].map((it) => it.style.left)")
    assert len(others) == 4 and len(set(others)) == 1
    page.value("document.querySelector('.wipe-at').focus()")
    pictures = {}
    for key, left in (("End", "100%"), ("Home", "0%")):
        page.press(key)
        page.until(f"{stage}.querySelector('.divider').style.left === '{left}'")
        pictures[key] = shot(page, "#rows .player:nth-child(5) .stage")[:, 4:-4]
    reference = shot(page, "#rows .player:nth-child(1) .stage")[:, 4:-4]
    assert np.abs(pictures["End"] - reference).mean() < 0.5
    assert np.abs(pictures["Home"] - reference).mean() > 2
    page.value("document.activeElement.blur()")
    page.press("w", "w")
    assert page.value("document.querySelectorAll('.divider, canvas').length") == 0


def test_a_clip_is_enlarged_beside_its_reference_and_plays_there(page: Page) -> None:
    page.value(f"{FIRST_ROW}.querySelectorAll('.player')[2].querySelector('button').click()")
    large = "document.getElementById('lightbox')"
    names = page.value(f"[...{large}.querySelectorAll('.name bdi')].map((it) => it.textContent)")
    assert names == [SEQUENTIAL.label, ROPA.label]
    page.until(f"[...{large}.querySelectorAll('video')].every((video) => video.currentTime > 0.2)")
    width, height, window = page.value(
        f"(() => {{ const box = {large}.getBoundingClientRect();"
        f" return [{large}.querySelector('video').clientWidth, box.height, innerHeight]; }})()"
    )
    assert width > 400 and height <= window
    page.press(" ", " ")
    page.until(f"[...{large}.querySelectorAll('video')].every((video) => video.paused)")
    page.press("d", "d")
    page.until(f"{large}.querySelector('canvas')?.width === 64")
    page.send("Input.dispatchKeyEvent", type="keyDown", key="Escape", windowsVirtualKeyCode=27)
    page.until(f"!{large}.open && !{large}.querySelector('video')")


def test_an_outlier_leads_to_its_clip_whatever_is_filtered(page: Page) -> None:
    choose(page, "filter", "no such words", "input")
    item = page.value("document.querySelector('[data-reveal]').dataset.reveal")
    page.value("document.querySelector('[data-reveal]').click()")
    assert page.value("document.activeElement.dataset.item") == item
    assert page.value("document.activeElement.classList.contains('found')") is True
    assert page.value("document.getElementById('filter').value") == ""


def test_the_worst_pairs_play_in_step_and_another_listing_can_be_chosen(page: Page) -> None:
    page.value(f"{PAIR}.scrollIntoView()")
    page.until(f"[...{PAIR}.querySelectorAll('video')].every((video) => video.readyState >= 2)")
    names = page.value(f"[...{PAIR}.querySelectorAll('.name bdi')].map((it) => it.textContent)")
    assert names[0] == "baseline"
    page.value(f"{PAIR}.querySelector('.bar button').click()")
    page.until(f"[...{PAIR}.querySelectorAll('video')].every((video) => video.currentTime > 0.2)")
    now = page.value(f"[...{PAIR}.querySelectorAll('video')].map((video) => video.currentTime)")
    assert len(now) == 2 and abs(now[0] - now[1]) < 0.2
    listed = page.value("document.getElementById('listing').options.length")
    assert listed > 1
    choose(page, "listing", str(listed - 1), "change")
    assert page.value(f"{PAIR}.querySelectorAll('.name bdi')[1].textContent") != names[1]


def test_the_arrow_keys_go_through_the_nights_and_every_chart_follows(page: Page) -> None:
    says = "document.getElementById('night-title').textContent"
    assert page.value(says).startswith("2026-01-03 · passed · abcdef12")
    page.value("document.querySelector('.night-strip').focus()")
    page.press("ArrowLeft")
    assert page.value(says).startswith("2026-01-02")
    read = "document.querySelector('.trend .legend dd').textContent"
    assert page.value(read).startswith("29.0 dB")
    assert page.value("document.querySelector('.cross').getAttribute('x1')") == "50%"
    assert page.value("document.getElementById('position').textContent") == "1–8 of 9"
    page.press("Home")
    assert page.value(read).startswith("33.0 dB")


def test_gates_that_failed_stand_first_and_the_header_says_so(page: Page) -> None:
    states = page.value("[...document.querySelectorAll('.gates li')].map((it) => it.dataset.state)")
    order = ["failed", "incomplete", "passed"]
    assert states == sorted(states, key=order.index) and set(states) == set(order)
    assert page.value("document.querySelector('.verdict.gate').dataset.state") == "failed"


def test_a_click_on_a_heading_sorts_and_a_second_one_turns_round(page: Page) -> None:
    def column() -> list[str]:
        return page.value("[...document.querySelectorAll('#table tbody tr')].map((row) => row.children[4].textContent)")

    heading = "document.querySelectorAll('thead button')[4]"
    page.value(f"{heading}.click()")
    assert [cell[:4] for cell in column()] == ["1.00", "1.67", "1.82", "2.50", "2.86"]
    page.value(f"{heading}.click()")
    assert [cell[:4] for cell in column()] == ["2.86", "2.50", "1.82", "1.67", "1.00"]
    assert page.value(f"{heading}.closest('th').getAttribute('aria-sort')") == "descending"


def test_numbers_that_are_missing_sort_last(page: Page) -> None:
    heading = "document.querySelectorAll('thead button')[6]"
    for _ in range(2):
        page.value(f"{heading}.click()")
        last = page.value("document.querySelector('#table tbody tr:last-child').textContent")
        assert "sequential" in last


def test_the_keyboard_plays_finds_and_turns_pages(page: Page) -> None:
    page.press(" ", " ")
    page.until(f"!{FIRST_ROW}.querySelector('video').paused")
    page.press(" ", " ")
    page.until(f"{FIRST_ROW}.querySelector('video').paused")
    page.press("d", "d")
    assert page.value("document.getElementById('difference').getAttribute('aria-pressed')") == "true"
    page.press("ArrowRight")
    assert page.value("document.getElementById('position').textContent") == "9 of 9"
    page.press("/", "/")
    assert page.value("document.activeElement.id") == "filter"


def test_every_control_has_a_name(page: Page) -> None:
    unnamed = page.value(
        "[...document.querySelectorAll('button, input, select')].filter((it) => !(it.textContent.trim() ||"
        " it.getAttribute('aria-label') || it.closest('label'))).map((it) => it.outerHTML)"
    )
    assert unnamed == []


def test_a_command_is_copied(page: Page) -> None:
    page.value("document.querySelector('#failed .copy').click()")
    page.until("document.querySelector('#failed .copy').textContent === 'copied'")


@pytest.mark.parametrize(("dark", "paper"), [(False, "rgb(253, 252, 250)"), (True, "rgb(22, 22, 20)")])
def test_paper_and_charts_follow_the_colour_scheme(dark: bool, paper: str, browser: Browser, report: Path) -> None:
    with browser.page(dark=dark) as page:
        settle(page, report)
        assert page.value("getComputedStyle(document.body).backgroundColor") == paper
        fill = page.value("getComputedStyle(document.querySelector('#speed .s1 .point')).fill")
        assert fill == ("rgb(116, 176, 221)" if dark else "rgb(47, 111, 159)")


def test_a_missing_file_is_said_and_the_rest_plays(browser: Browser, tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo" / "run", solvers=ALL_SOLVERS[:3], prompts=CAPTIONS[:1])
    run.media_path(run.items()[1], ".mp4").unlink()
    with browser.page() as page:
        settle(page, build_report(run).path)
        page.until(f"{FIRST_ROW}.textContent.includes('media file is missing')")
        page.value(f"{FIRST_ROW}.querySelector('.bar button').click()")
        page.until(f"[...{FIRST_ROW}.querySelectorAll('video')].every((video) => video.currentTime > 0.1)")


def test_images_are_shown_and_compared(browser: Browser, tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo" / "run", image=True, prompts=CAPTIONS[:1])
    with browser.page() as page:
        settle(page, build_report(run).path)
        page.until("[...document.querySelectorAll('.stage img')].every((image) => image.naturalWidth === 64)")
        page.value("document.getElementById('difference').click()")
        page.until("document.querySelector('canvas')?.width === 64")
        assert page.value("document.querySelectorAll('.bar').length") == 0


def test_a_standalone_report_plays_elsewhere(browser: Browser, tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo" / "run", prompts=CAPTIONS[:1])
    folder = build_report(run, standalone=True).path.parent.rename(tmp_path / "a folder #1?")
    shutil.rmtree(run.path)
    with browser.page() as page:
        settle(page, folder / "index.html")
        assert page.value("document.querySelectorAll('#rows .row:first-child video').length") == 2


def test_a_served_report_plays_and_seeks_by_parts(browser: Browser, tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo" / "run", prompts=CAPTIONS[:1])
    build_report(run)
    with ReportServer(run.path) as server, browser.page() as page:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            page.open(server.url)
            page.value("document.getElementById('clips').scrollIntoView()")
            page.until(LOADED)
            page.value(
                f"(() => {{ const bar = {FIRST_ROW}.querySelector('input'); bar.value = 500;"
                " bar.dispatchEvent(new Event('input')); })()"
            )
            page.until(f"[...{FIRST_ROW}.querySelectorAll('video')].every((video) => !video.seeking)")
            assert times(page) == pytest.approx([9 / 8 / 2] * 2, abs=0.01)
        finally:
            server.shutdown()
            thread.join()
        answers = [event["response"] for event in page.events("Network.responseReceived")]
        assert {answer["status"] for answer in answers if answer["url"].endswith(".mp4")} == {206}
        assert {answer["status"] for answer in answers if not answer["url"].endswith(".mp4")} == {200, 204}
        assert page.events("Log.entryAdded") == []


def test_a_live_report_opens_itself_again_when_an_item_is_done(browser: Browser, tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo" / "run", prompts=CAPTIONS[:1], pending=(1,))
    pending = run.items()[1]
    live = LiveReport(run)
    with ReportServer(run.path, live=live) as server, browser.page() as page:
        live.__enter__()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            page.open(server.url)
            lease = Leases(run, Owner(current(), "job.0")).claim(pending.id)
            assert lease is not None
            run.progress_path(pending.id).write_text("[12, 20]")
            page.until(f"document.querySelector('[data-item=\"{pending.id}\"] .stage').textContent === 'step 12 of 20'")
            preview_path(run, pending.id).write_bytes(as_jpeg(np.full((8, 8, 3), 200, np.uint8), (11, 20)))
            drawn = f"document.querySelector('[data-item=\"{pending.id}\"] .preview')"
            page.until(f"{drawn} !== null && {drawn}.naturalWidth === 8")
            assert page.value(f"{drawn}.parentElement.textContent") == "preview, step 11 of 20"
            finish(run, pending, ROPA)
            lease.release()
            page.until(f"document.querySelector('[data-item=\"{pending.id}\"] video') !== null")
            assert "All 2 items are done." in page.value("document.querySelector('.verdict').textContent")
        finally:
            server.shutdown()
            thread.join()
            live.__exit__()
        assert page.events("Runtime.exceptionThrown") == []
    assert "connect-src" not in (run.report_dir / "index.html").read_text()


def test_one_solver_over_many_prompts_is_a_gallery_without_idle_controls(browser: Browser, tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo" / "run", solvers=(SEQUENTIAL,), seeds=range(3), image=True)
    with browser.page() as page:
        page.open(build_report(run).path.as_uri())
        tops = page.value("[...document.querySelectorAll('#rows .row')].map((it) => it.getBoundingClientRect().top)")
        assert len(tops) == 6 and tops[0] == tops[4] < tops[5]
        shown = (
            "['play-all', 'scrub-all', 'difference', 'wipe', 'solver', 'against', 'failed-check', 'pager', 'filter']"
        )
        visible = page.value(f"{shown}.filter((id) => document.getElementById(id).getClientRects().length)")
        assert visible == ["filter"]


def test_any_two_cells_are_set_beside_each_other_with_what_differs(page: Page) -> None:
    choose(page, "solver", ROPA.label, "change")
    choose(page, "against", PICARD.label, "change")
    names = page.value(f"[...{FIRST_ROW}.querySelectorAll('.name bdi')].map((it) => it.textContent)")
    assert names == [PICARD.label, ROPA.label]
    rows = page.value(
        "[...document.querySelectorAll('#versus tbody tr')].map((row) => [...row.children].map((it) => it.textContent))"
    )
    assert ["rounds", "11.0", "7.00", "8 / 0 / 0", "8"] in rows
    assert next(row for row in rows if row[0] == "latent RMSE")[3] == "0 / 0 / 8"


def test_numbers_that_read_the_same_and_differ_are_not_called_equal(browser: Browser, tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo" / "run", solvers=(SEQUENTIAL, PICARD, ROPA), seeds=range(4), image=True)
    give(run, "latent_rmse", lambda item, _: 0.04321 - (1e-7 if item.solver["kind"] == ROPA.kind else 0.0))
    with browser.page() as page:
        page.open(build_report(run).path.as_uri())
        choose(page, "solver", ROPA.label, "change")
        choose(page, "against", PICARD.label, "change")
        rows = page.value(
            "[...document.querySelectorAll('#versus tbody tr')].map((it) => [...it.children].map((at) => at.textContent))"
        )
        assert ["latent RMSE", "0.0432", "0.0432", "8 / 0 / 0", "8"] in rows
        # What is typed is held against what is read.
        by = "[...document.getElementById('by').options].find((it) => it.textContent === 'worst latent RMSE first').value"
        choose(page, "by", page.value(by), "change")
        choose(page, "least", "0.0432", "input")
        assert page.value("document.querySelectorAll('#rows .row').length") == 8


def test_clips_are_ordered_and_filtered_by_a_metric(page: Page) -> None:
    worst = page.value(
        "[...document.getElementById('by').options].find((it) => it.textContent === 'worst latent RMSE first').value"
    )
    choose(page, "by", worst, "change")
    values = (
        "[...document.querySelectorAll('#rows .row')].map((row) => Math.max(...[...row.querySelectorAll('dl')]"
        ".flatMap((it) => it.firstChild.textContent === 'latent RMSE' ? [Number(it.children[1].textContent)] : [])))"
    )
    shown = page.value(values)
    assert len(shown) == 8 and shown == sorted(shown, reverse=True)
    choose(page, "least", str(shown[2]), "input")
    assert page.value(values) == shown[:3]


def test_the_table_is_saved_with_the_columns_that_are_chosen_and_its_best_marked(page: Page) -> None:
    page.value("URL.createObjectURL = (blob) => { window.saved = blob; return 'blob:none'; }")
    page.value("[...document.querySelectorAll('#columns label')].find((it) => it.textContent.trim() === 'NFE').click()")
    page.value("document.getElementById('as-csv').click()")
    heading, first, *_ = page.value("window.saved.text()").splitlines()
    assert heading.startswith("solver,n,rounds,rounds low,rounds high,N / rounds,") and "NFE" not in heading
    assert first.startswith("sequential,9,20,20,20,1,")
    page.value("document.getElementById('as-latex').click()")
    latex = page.value("window.saved.text()")
    assert "\\begin{tabular}{lr" in latex and "ropa K=8 & 8 & \\textbf{7}" in latex and "100\\%" in latex


def test_a_link_leads_to_an_item_and_its_page_says_all_of_it(browser: Browser, report: Path) -> None:
    with browser.page() as page:
        page.open(report.as_uri())
        item = page.value("document.querySelectorAll('#rows .player')[37].dataset.item")
        page.open(f"{report.as_uri()}#item-{item}")
        page.until(f"document.activeElement.dataset.item === '{item}'")
        address = page.value(f"document.querySelector('[data-item=\"{item}\"] .actions a').href")
        page.open(address)
        page.until("document.querySelector('#item video')?.videoWidth === 64")
        text = page.value("document.body.textContent")
        assert f'"item_id": "{item}"' in text and "sampling.steps" in text and "seconds a round" in text
        assert page.value("document.documentElement.scrollWidth") == 1280
        page.value("location.hash = '#<img src=x onerror=alert(1)>'")
        page.until("document.getElementById('prompt').textContent === 'No item of this name'")
        assert page.events("Log.entryAdded") == []


def test_turning_on_the_wipe_moves_nothing_and_the_large_view_never_scrolls(browser: Browser, report: Path) -> None:
    for size in ((1280, 900), (400, 700), (2560, 1440)):
        with browser.page(*size) as page:
            settle(page, report)
            top = "document.querySelector('#rows .row').getBoundingClientRect().top"
            before = page.value(top)
            page.press("w", "w")
            assert page.value(top) == before
            page.value(f"{FIRST_ROW}.querySelectorAll('.player')[2].querySelector('button').click()")
            large = "document.getElementById('lightbox')"
            page.until(f"[...{large}.querySelectorAll('video')].every((video) => video.readyState >= 2)")
            assert page.value(f"{large}.scrollHeight - {large}.clientHeight") <= 0
            assert page.value(f"{large}.querySelector('video').clientWidth") > size[0] / 4
