"""Everything a report shows, read from a run folder."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from genrun.runner.notes import NoteKind, group_notes
from genrun.runner.report import text
from genrun.runner.report.about import about
from genrun.runner.report.blocks import has_caches, saved_blocks
from genrun.runner.report.clips import gallery, where_of
from genrun.runner.report.names import shown_path
from genrun.runner.report.nights import Nights, collect_nights
from genrun.runner.report.outliers import Listing, find_outliers
from genrun.runner.report.table import Heading, Table, build_table, headings
from genrun.runner.report.vbench import Bars, collect_bars
from genrun.runner.report.verdict import Verdict, judge
from genrun.runner.report.versus import Versus, hold_against
from genrun.runner.report.worst import ROOM
from genrun.runner.score.samples import IS_REFERENCE
from genrun.runner.score.summary import Group, summarize
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.records import SET, Record, Score
from genrun.runner.store.scores import read_scores

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem

MEDIA_ROOT = "../"

MOST_FAILURES = 100
"""Failed items that the page tells in full."""

MOST_NOTES = 20
"""Items with a note of one kind that the page lists; at its clip each item has its own."""

MOST_MESSAGE_LETTERS = 2000
MOST_JOB_LETTERS = 100_000
"""What is shown of messages and of the job, so that thousands of items do not make a page that is slow to open."""


@dataclass(frozen=True)
class Failure:
    """An item that failed, with what a reader needs to go on.

    Attributes:
        item_id: the item.
        prompt: its prompt.
        where: seed, solver and other axes.
        kind: of the error.
        message: what failed.
        remedy: what to do, or "".
        log: path of the log relative to the run folder, or "".
        log_href: its address on the page, or "".
        attempt: how often it was tried.
    """

    item_id: str
    prompt: str
    where: str
    kind: str
    message: str
    remedy: str
    log: str
    log_href: str
    attempt: int


@dataclass(frozen=True)
class NotedItem:
    """An item that is done, and what has to be told about it.

    Attributes:
        item_id: the item.
        prompt: its prompt.
        where: seed, solver and other axes.
        message: what is so.
    """

    item_id: str
    prompt: str
    where: str
    message: str


@dataclass(frozen=True)
class Notes:
    """The notes of one kind.

    Attributes:
        about: what the kind means, and what to do.
        items: the first of the items.
        count: how many items there are.
    """

    about: NoteKind
    items: tuple[NotedItem, ...]
    count: int


@dataclass(frozen=True)
class Page:
    """What the template is filled with.

    Attributes:
        title: the job's name.
        run: the run folder's name.
        path: the run folder as a shell word.
        verdict: first lines.
        failures: the first of the failed items.
        failed: how many failed.
        notes: what has to be told about done items, by kind.
        groups: the summary.
        table: the summary, laid out.
        metrics: headings of every metric that has rows.
        unscored: (metric, reason, how many items), most frequent first.
        clips: data of the gallery.
        about: (heading, (name, value) pairs): with what the run was made.
        job: the resolved job as YAML.
        solvers: labels of the solvers, in the order of their colours.
        nights: the history of the run's job.
        versus: the comparison with a baseline or of the run's own cells, or None.
        vbench: VBench's dimensions, or None.
        outliers: the slowest items, and the worst by each metric.
    """

    title: str
    run: str
    path: str
    verdict: Verdict
    failures: tuple[Failure, ...]
    failed: int
    notes: tuple[Notes, ...]
    groups: tuple[Group, ...]
    table: Table
    metrics: tuple[Heading, ...]
    unscored: tuple[tuple[str, str, int], ...]
    clips: Mapping[str, Any]
    about: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    job: str
    solvers: tuple[str, ...]
    nights: Nights
    versus: Versus | None
    vbench: Bars | None
    outliers: tuple[Listing, ...]

    def colour(self, group: Group) -> int:
        """The colour of a group: that of its solver in the gallery."""
        return colour_of(group, self.clips)


def collect(run: RunFolder, *, media_root: str = MEDIA_ROOT, link_logs: bool = True) -> Page:
    """Read a run folder.

    Args:
        run: the run.
        media_root: what comes before a media path on the page.
        link_logs: whether logs lie where the page can link them.
    """
    import yaml

    items, records, scores, job = run.items(), run.records(), read_scores(run), run.job_document()
    planned = {item.id for item in items}
    scores = [score for score in scores if score.item_id in planned or score.item_id.startswith(SET)]
    metrics = headings(scores)
    groups = summarize(items, records, scores)
    saved = saved_blocks(items, records)
    clips = gallery(items, records, scores, metrics, lambda path: address(path, media_root), saved)
    colours = {group.label: colour_of(group, clips) for group in groups}
    versus, nights = hold_against(run, colours), collect_nights(run, colours, link=link_logs)
    return Page(
        title=str(job.get("name") or run.path.parent.name),
        run=run.path.name,
        path=shlex.quote(shown_path(run.path)),
        verdict=judge(groups),
        failures=tuple(islice(_failures(items, records, link_logs), MOST_FAILURES)),
        failed=sum(group.failed for group in groups),
        notes=tuple(_notes(items, records)),
        groups=tuple(groups),
        table=build_table(groups, metrics, nights.trends, saved if has_caches(items) else None),
        metrics=tuple(metrics),
        unscored=tuple(_unscored(scores)),
        clips={**clips, "pairs": _pairs(versus, media_root)},
        about=tuple(about(run.environment(), [records[item.id] for item in items if item.id in records])),
        job=text.cut(yaml.safe_dump(job, sort_keys=False, allow_unicode=True), MOST_JOB_LETTERS),
        solvers=tuple(clips["solvers"]),
        nights=nights,
        versus=versus,
        outliers=find_outliers(
            items, records, scores, metrics, dict(zip(clips["solvers"], clips["colours"], strict=True))
        ),
        vbench=collect_bars(groups, colours, "" if versus is None else versus.path),
    )


def colour_of(group: Group, clips: Mapping[str, Any]) -> int:
    """The index of a group's colour: that of its solver in the gallery."""
    return clips["colours"][clips["solvers"].index(group.solver_label)]


def address(path: str, root: str) -> str:
    """Return the address of a file of the run on the page; "" for a path that leaves the run folder."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts:
        return ""
    return root + quote(path)


def _failures(items: Sequence[WorkItem], records: Mapping[str, Record], link_logs: bool) -> Iterable[Failure]:
    for item in items:
        record = records.get(item.id)
        if record is None or record.status != "failed":
            continue
        error = record.error or {}
        log = str(error.get("log") or "")
        yield Failure(
            item_id=item.id,
            prompt=item.prompt,
            where=where_of(item),
            kind=str(error.get("kind") or "error"),
            message=text.cut(str(error.get("message") or "no message was recorded"), MOST_MESSAGE_LETTERS),
            remedy=str(error.get("remedy") or ""),
            log=log,
            log_href=address(log, MEDIA_ROOT) if log and link_logs else "",
            attempt=record.attempt,
        )


def _notes(items: Sequence[WorkItem], records: Mapping[str, Record]) -> Iterable[Notes]:
    by_id = {item.id: item for item in items}
    for found in group_notes(records[item.id] for item in items if item.id in records):
        shown = tuple(
            NotedItem(
                item_id,
                by_id[item_id].prompt,
                where_of(by_id[item_id]),
                text.cut(message, MOST_MESSAGE_LETTERS),
            )
            for item_id, message in found.items[:MOST_NOTES]
        )
        yield Notes(found.about, shown, len({item_id for item_id, _ in found.items}))


def _pairs(versus: Versus | None, media_root: str) -> list[dict[str, Any]]:
    """The listings of worst pairs, with the addresses of their clips on the page."""

    def clip(found: Mapping[str, Any]) -> dict[str, Any]:
        if "m" not in found:
            return dict(found)
        path, own = found["m"], {key: value for key, value in found.items() if key != "f"}
        own["m"] = quote(path) if path.startswith(f"{ROOM}/") else address(path, media_root)
        return {**own, "f": shlex.quote(shown_path(Path(found["f"])))} if "f" in found else own

    return [
        {**listing, "rows": [{**row, "c": [clip(each) for each in row["c"]]} for row in listing["rows"]]}
        for listing in (versus.data() if versus is not None else ())
    ]


def _unscored(scores: Sequence[Score]) -> list[tuple[str, str, int]]:
    counts: dict[tuple[str, str], int] = {}
    for score in scores:
        if score.value is None and score.reason != IS_REFERENCE:
            key = (score.metric, score.reason or "no reason was recorded")
            counts[key] = counts.get(key, 0) + 1
    return sorted(((metric, reason, n) for (metric, reason), n in counts.items()), key=lambda row: -row[2])
