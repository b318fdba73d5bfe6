"""Everything a report shows, read from a run folder: what each section collects, and the pages of single items.

A page carries its items as deflated JSON, and its script shows the one that the address names: items/all.html#3f9c... So ten
thousand items are a handful of static files that need no server, and one of them opens as fast as any other.
"""

from __future__ import annotations

import base64
import json
import shlex
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from genrun.runner import history, numbers
from genrun.runner.errors import GenrunError
from genrun.runner.report.render import RUN_ROOT, address, cut, environment, policy, resource, shown_path, stylesheet
from genrun.runner.report.sections.clips import collect_clips, item_label
from genrun.runner.report.sections.comparison import ComparisonSection, collect_comparison, with_addresses
from genrun.runner.report.sections.environment import collect_environment
from genrun.runner.report.sections.gates import PromiseRow, collect_promises
from genrun.runner.report.sections.nights import SHOWN as MOST_NIGHTS
from genrun.runner.report.sections.nights import NightsSection, collect_nights
from genrun.runner.report.sections.outliers import (
    FailedItem,
    Notes,
    Ranking,
    collect_failures,
    collect_notes,
    collect_outliers,
)
from genrun.runner.report.sections.speed import SpeedSection, collect_seconds, collect_speed
from genrun.runner.report.sections.summary import (
    Heading,
    SummarySection,
    build_table,
    collect_unscored,
    headings,
    saved_blocks,
)
from genrun.runner.report.sections.vbench import VBenchSection, collect_vbench
from genrun.runner.report.sections.verdict import Verdict, judge
from genrun.runner.score.scoring import known_scores
from genrun.runner.score.summary import Group, summarize
from genrun.runner.store.files import atomic_write
from genrun.runner.store.folder import RunFolder, is_run
from genrun.runner.store.records import SET, Record, Score
from genrun.runner.store.scores import read_scores
from genrun.version import __version__

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem


MOST_JOB_LETTERS = 100_000
"""Characters of the job that the page shows: a job with thousands of prompts would make the page slow to open."""


@dataclass(frozen=True)
class Page:
    """The data that the templates are filled with.

    Attributes:
        title: the job's name.
        run: the run folder's name.
        path: the run folder as a shell word.
        groups: the numbers of the run.
        verdict: first lines.
        failures: the first of the failed items.
        failed: how many failed.
        notes: what has to be told about done items, by kind.
        comparison: with a baseline or of the run's own cells, with its gates; or None.
        promises: what is promised of the tolerance of its cells, and what audits found.
        nights: the history of the run's job.
        summary: the groups in a table.
        speed: charts of what each solver costs.
        vbench: VBench's dimensions, or None.
        clips: data of the gallery and of the worst pairs.
        outliers: the slowest items, and the worst by each metric.
        metrics: headings of every metric that has rows.
        environment: (heading, (name, value) pairs): with what the run was made.
        job: the resolved job as YAML.
        items: the plan.
        records: by item id.
        scores: rows of every metric.
        item_pages: address of the page of an item, without its id, in which * is the first letter of that; or "".
        live: number of this version of a page that asks its server for newer ones; 0 for one that stands alone.
    """

    title: str
    run: str
    path: str
    groups: tuple[Group, ...]
    verdict: Verdict
    failures: tuple[FailedItem, ...]
    failed: int
    notes: tuple[Notes, ...]
    comparison: ComparisonSection | None
    promises: tuple[PromiseRow, ...]
    nights: NightsSection
    summary: SummarySection
    speed: SpeedSection
    vbench: VBenchSection | None
    clips: Mapping[str, Any]
    outliers: tuple[Ranking, ...]
    metrics: tuple[Heading, ...]
    environment: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    job: str
    items: tuple[WorkItem, ...]
    records: Mapping[str, Record]
    scores: Sequence[Score]
    item_pages: str = ""
    live: int = 0

    def colour(self, group: Group) -> int:
        """Return the colour of a group: that of its solver in the gallery."""
        return _colour(group, self.clips)

    @property
    def sections(self) -> list[tuple[str, str]]:
        """(id, title) of the sections that the page has, in its order; a section's files are sections/ID.*."""
        comparison = self.comparison
        found = {
            ("failed", "Failed"): bool(self.failures),
            ("notes", "Notes"): bool(self.notes),
            ("gates", "Gates"): comparison is not None and bool(comparison.gates.rows),
            ("promise", "Tolerance"): bool(self.promises),
            ("nights", "Nights"): bool(self.nights.rows or self.nights.note),
            ("summary", "Summary"): True,
            ("speed", "Speed"): not all(group.is_reference for group in self.groups),
            ("vbench", "VBench"): self.vbench is not None,
            ("clips", "Clips"): True,
            ("comparison", "Comparison"): comparison is not None and comparison.has_table,
            ("outliers", "Outliers"): bool(self.outliers),
            ("reproduce", "Reproduce"): True,
            ("definitions", "Definitions"): True,
            ("environment", "Environment"): True,
        }
        return [section for section, is_there in found.items() if is_there]


def collect(run: RunFolder, *, media_root: str = RUN_ROOT, link_logs: bool = True) -> Page:
    """Read a run folder.

    Args:
        run: the run.
        media_root: what comes before a media path on the page.
        link_logs: whether logs lie where the page can link them.
    """
    items, records, job = run.items(), run.records(), run.job_document()
    planned = {item.id for item in items}
    known = known_scores(run, items, records).scores
    scores = [score for score in known if score.item_id in planned or score.item_id.startswith(SET)]
    metrics = headings(scores)
    groups = summarize(items, records, scores)
    saved = saved_blocks(items, records)
    clips = collect_clips(items, records, scores, metrics, lambda path: address(path, media_root), saved)
    colours = {group.label: _colour(group, clips) for group in groups}
    comparison, nights = collect_comparison(run, colours), collect_nights(run, colours, link=link_logs)
    seconds = collect_seconds(groups, records)
    has_caches = any(item.cache for item in items)
    return Page(
        title=str(job.get("name") or run.path.parent.name),
        run=run.path.name,
        path=shlex.quote(shown_path(run.path)),
        groups=tuple(groups),
        verdict=judge(groups, seconds),
        failures=collect_failures(items, records, link_logs=link_logs),
        failed=sum(group.failed for group in groups),
        notes=collect_notes(items, records),
        comparison=comparison,
        promises=collect_promises(items, scores, colours),
        nights=nights,
        summary=SummarySection(
            build_table(groups, metrics, nights.trends, saved if has_caches else None, seconds.by_group),
            collect_unscored(scores),
        ),
        speed=collect_speed([(group, colours[group.label]) for group in groups], records, scores),
        vbench=collect_vbench(groups, colours, "" if comparison is None else comparison.path),
        clips={**clips, "pairs": with_addresses(() if comparison is None else comparison.worst, media_root)},
        outliers=collect_outliers(
            items, records, scores, metrics, dict(zip(clips["solvers"], clips["colours"], strict=True))
        ),
        metrics=tuple(metrics),
        environment=collect_environment(
            run.environment(),
            [records[item.id] for item in items if item.id in records],
            (item.model for item in items),
        ),
        items=tuple(items),
        records=records,
        scores=scores,
        job=cut(_as_yaml(job), MOST_JOB_LETTERS),
    )


def _as_yaml(job: Mapping[str, Any]) -> str:
    import yaml

    # With prompts by the thousand the dumper in C saves a second; without libyaml there is the other.
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    try:
        return yaml.dump(job, Dumper=dumper, sort_keys=False, allow_unicode=True)
    except UnicodeEncodeError:
        # The one in C knows no lone surrogates.
        return yaml.safe_dump(job, sort_keys=False, allow_unicode=True)


def _colour(group: Group, clips: Mapping[str, Any]) -> int:
    return clips["colours"][clips["solvers"].index(group.solver_label)]


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
