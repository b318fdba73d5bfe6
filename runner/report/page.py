"""Everything a report shows, read from a run folder: what each section collects, in the order of the page."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from genrun.runner.report.sections.clips import collect_clips
from genrun.runner.report.sections.comparison import ComparisonSection, collect_comparison, with_addresses
from genrun.runner.report.sections.environment import collect_environment
from genrun.runner.report.sections.failed import FailedItem, collect_failures
from genrun.runner.report.sections.nights import NightsSection, collect_nights
from genrun.runner.report.sections.notes import Notes, collect_notes
from genrun.runner.report.sections.outliers import Ranking, collect_outliers
from genrun.runner.report.sections.promise import PromiseRow, collect_promises
from genrun.runner.report.sections.seconds import collect_seconds
from genrun.runner.report.sections.speed import SpeedSection, collect_speed
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
from genrun.runner.report.text import RUN_ROOT, address, cut, shown_path
from genrun.runner.score.summary import Group, summarize
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.records import SET, Record, Score
from genrun.runner.store.scores import read_scores

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
    scores = [score for score in read_scores(run) if score.item_id in planned or score.item_id.startswith(SET)]
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
