"""The pages of single items: one for all of them, items/all.html, or of many one for each first letter of their ids.

A page carries its items as deflated JSON, and its script shows the one that the address names: items/all.html#3f9c... So ten
thousand items are a handful of static files that need no server, and one of them opens as fast as any other.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from genrun.runner import history, numbers
from genrun.runner.errors import GenrunError
from genrun.runner.report.render import environment, policy, resource, stylesheet
from genrun.runner.report.sections.clips import item_label
from genrun.runner.report.sections.nights import SHOWN as MOST_NIGHTS
from genrun.runner.report.sections.summary import Heading
from genrun.runner.report.text import RUN_ROOT, address, cut
from genrun.runner.store.files import atomic_write
from genrun.runner.store.folder import RunFolder, is_run
from genrun.runner.store.records import Record, Score
from genrun.runner.store.scores import read_scores
from genrun.version import __version__

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.report.page import Page

FOLDER = "items"
ALL = "all"
MOST_ON_A_PAGE = 2000
TEMPLATE = "item.html.j2"
MOST_NIGHT_ITEMS = 50_000
"""Items of other nights whose scores are read: a month of 1,600 items; of more, fewer nights."""

MOST_LOGS = 64
"""Logs of one launch that an item's page links: its ranks may be hundreds."""

MOST_ERROR_LETTERS = 20_000
LEVEL = 6
"""Of zlib: higher ones take longer, and save nothing that one would notice."""

NightScores = list[tuple[str, dict[str, dict[str, float]]]]
"""(night, item id -> metric -> value), oldest first."""


def item_address(count: int) -> str:
    """Return the address of an item's page on the report's, without the id; * is the first letter of it."""
    return f"{FOLDER}/{ALL if count <= MOST_ON_A_PAGE else '*'}.html"


def write_items(run: RunFolder, page: Page, *, media_root: str, link_logs: bool) -> None:
    """Write the pages of a run's items.

    Args:
        run: the run.
        page: the report's, which is read already.
        media_root: what comes before a media path on the report's page.
        link_logs: whether logs lie where the page can link them.

    Raises:
        StoreError: they cannot be written.
    """
    from markupsafe import Markup

    style = stylesheet("page", "charts", "item")
    script = f'"use strict";\n(() => {{\n{resource("js/item.js")}}})();\n'
    template = environment().get_template(TEMPLATE)
    shared = {
        "title": page.title,
        "run": page.path,
        "metrics": {metric.name: [metric.title, metric.style] for metric in page.metrics},
    }
    entry = _entries(run, page, media_root, link_logs)
    by_page: dict[str, list[WorkItem]] = {}
    for item in page.items:
        by_page.setdefault(ALL if len(page.items) <= MOST_ON_A_PAGE else item.id[0].lower(), []).append(item)
    for name, members in by_page.items():
        data = json.dumps({**shared, "items": {item.id: entry(item) for item in members}}, separators=(",", ":"))
        html = template.render(
            title=page.title,
            run=page.run,
            version=__version__,
            style=Markup(style),
            script=Markup(script),
            policy=policy(style, script),
            data=base64.b64encode(zlib.compress(data.encode(), LEVEL)).decode(),
        )
        atomic_write(run.report_dir / FOLDER / f"{name}.html", html.encode("utf-8", "xmlcharrefreplace"))


def _entries(run: RunFolder, page: Page, media_root: str, link_logs: bool) -> Callable[[WorkItem], dict[str, Any]]:
    """Return a function that collects what the page of an item shows."""
    headings = {metric.name: metric for metric in page.metrics}
    by_item: dict[str, list[Score]] = {}
    for score in page.scores:
        by_item.setdefault(score.item_id, []).append(score)
    nights = night_scores(run, frozenset(item.id for item in page.items))
    logs: dict[str, list[str]] = {}

    def logs_of(record: Record) -> list[str]:
        launch = record.job.rpartition(".")[0]
        if launch not in logs:
            logs[launch] = [*_log_addresses(run, launch)] if link_logs else []
        return logs[launch]

    def entry(item: WorkItem) -> dict[str, Any]:
        record = page.records.get(item.id)
        found: dict[str, Any] = {
            "prompt": item.prompt,
            "negative": item.negative_prompt or "",
            "seed": item.seed,
            "cell": ", ".join(item.axes.values()) or item_label(item),
            # As it is: to write fifty thousand of them out takes longer here than one takes in the browser.
            "input": {"model": item.model, "sampling": item.sampling, "solver": item.solver, "cache": item.cache},
            "attention": item.attention,
            "scores": [_score(score, headings.get(score.metric)) for score in by_item.get(item.id, ())],
        }
        if record is not None:
            found["record"] = _record(record)
            if record.media and record.status == "done" and (media := address(record.media, media_root)):
                found["media"] = f"../{media}"
            found["logs"] = logs_of(record)
        if nights:
            found["nights"] = [[night, values[item.id]] for night, values in nights if item.id in values]
        return found

    return entry


def _score(score: Score, heading: Heading | None) -> list[str]:
    title, style = (score.metric, "number") if heading is None else (heading.title, heading.style)
    return [title, score.reason or "" if score.value is None else numbers.styled(score.value, style)]


def _record(record: Record) -> dict[str, Any]:
    """Return a record as it is, without what it leaves open."""
    found: dict[str, Any] = {name: value for name, value in vars(record).items() if value or value == 0}
    if record.sampler is not None:
        found["sampler"] = vars(record.sampler)
    if record.notes:
        found["notes"] = [vars(note) for note in record.notes]
    if record.error is not None:
        message = cut(str(record.error.get("message") or ""), MOST_ERROR_LETTERS)
        found["error"] = {**record.error, "message": message}
    return found


def _log_addresses(run: RunFolder, launch: str) -> Iterator[str]:
    """Yield the addresses, on an item's page, of the logs of a launch: one for each of its ranks."""
    if not launch or PurePosixPath(launch).name != launch or launch.startswith("."):
        return
    try:
        found = sorted((run.logs / launch).glob("**/*.log"))
    except OSError:
        return
    yield from (address(run.relative(path), f"../{RUN_ROOT}") for path in found[:MOST_LOGS])


def night_scores(run: RunFolder, wanted: frozenset[str]) -> NightScores:
    """Return the scores that items of a run have in the nights of its job, up to its own.

    Args:
        run: the run.
        wanted: ids of its items.
    """
    job = str(run.job_document().get("name") or run.path.parent.name)
    try:
        nights = [night for night in history.read(run.path.parent.parent, job) if not night.is_removed]
    except GenrunError:
        return []  # the page says so among its nights
    own = next((index for index, night in enumerate(nights) if night.run == run.path.name), None)
    if own is None or own == 0:
        return []
    most = max(1, min(MOST_NIGHTS, MOST_NIGHT_ITEMS // max(1, len(wanted))))
    return [
        (night.night, found) for night in nights[: own + 1][-most:] if (found := _scores_of(run, night.run, wanted))
    ]


def _scores_of(run: RunFolder, name: str, wanted: frozenset[str]) -> dict[str, dict[str, float]]:
    path = run.path.parent / name
    found: dict[str, dict[str, float]] = {}
    try:
        if not is_run(path):
            return {}
        for score in read_scores(RunFolder.open(path)):
            if score.value is not None and score.item_id in wanted:
                found.setdefault(score.item_id, {})[score.metric] = score.value
    except GenrunError:
        return {}
    return found
