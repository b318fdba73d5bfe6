"""Single items on the page: those that stand out, blocks that a cache saved, and with what they were made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from genrun.runner.job.plan import WorkItem
from genrun.runner.report.build import build_report
from genrun.runner.report.page import collect
from genrun.runner.report.sections.environment import collect_environment
from genrun.runner.report.sections.speed import collect_seconds
from genrun.runner.report.sections.summary import saved_blocks
from genrun.runner.score.summary import summarize
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.records import Record, SamplerStats, format_record
from tests.fakes.items import make_item
from tests.fakes.scores import scored_run

FIRST_BLOCK = {"kind": "first_block", "threshold": 0.1}


def record(item: WorkItem, blocks: float = 0.0, **changes: Any) -> Record:
    return replace(Record(item.id, "done", sampler=SamplerStats(4, 2, 6, (2, 4), blocks=blocks)), **changes)


def slowed(run: RunFolder, seconds: dict[int, float]) -> RunFolder:
    """Set the time of items by their number in the plan."""
    for number, elapsed_s in seconds.items():
        old = run.record(run.items()[number].id)
        assert old is not None
        run.record_path(old.item_id).write_bytes(format_record(replace(old, elapsed_s=elapsed_s)))
    return run


def test_the_slowest_items_come_with_what_they_are_beside_their_cell(tmp_path: Path) -> None:
    run = slowed(scored_run(tmp_path / "demo" / "run", {}), {3: 5.0, 4: 1.0})
    (listing,) = collect(run).outliers
    first, second = listing.items
    items = run.items()
    assert (listing.title, first.item_id, second.item_id) == ("slowest", items[3].id, items[4].id)
    assert (first.value, first.note, first.label) == ("5.00 s", "10.0× the median", "ropa")
    assert (first.place, second.place) == (100.0, 20.0)


@pytest.mark.parametrize(("metric", "worst"), [("psnr", 0), ("latent_rmse", 23)])
def test_the_worst_is_the_lowest_or_the_highest_as_the_metric_says(metric: str, worst: int, tmp_path: Path) -> None:
    run = scored_run(tmp_path / "demo" / "run", {metric: lambda item, number: 1.0 + number})
    (listing,) = collect(run).outliers
    assert listing.items[0].item_id == run.items()[worst].id
    assert len(listing.items) == 5


def test_many_of_the_same_value_are_counted(tmp_path: Path) -> None:
    run = scored_run(tmp_path / "demo" / "run", {"checker": lambda item, number: float(number >= 9)})
    (listing,) = collect(run).outliers
    assert ([each.value for each in listing.items], listing.more) == (["0%"] * 5, 4)


def test_a_ranking_of_equals_is_left_out(tmp_path: Path) -> None:
    run = scored_run(tmp_path / "demo" / "run", {"psnr": lambda item, number: 30.0})
    assert collect(run).outliers == ()
    assert 'id="outliers"' not in build_report(run).path.read_text()


def test_items_without_a_value_are_no_outliers(tmp_path: Path) -> None:
    run = scored_run(tmp_path / "demo" / "run", {"psnr": lambda item, number: None if number < 20 else float(number)})
    (listing,) = collect(run).outliers
    assert [each.item_id for each in listing.items] == [item.id for item in run.items()[20:23]]


def test_each_outlier_leads_to_its_clip(tmp_path: Path) -> None:
    run = scored_run(tmp_path / "demo" / "run", {"psnr": lambda item, number: float(number)})
    assert f'data-reveal="{run.items()[0].id}"' in build_report(run).path.read_text()


def with_cache(number: int, cache: dict[str, Any], **changes: Any) -> WorkItem:
    label = cache.get("kind", "none")
    return make_item(number, id=f"{number}-{label}", cache=cache, axes={"cache": label}, **changes)


def test_saved_blocks_are_counted_beside_the_same_item_without_a_cache() -> None:
    plain, cached, lonely = with_cache(0, {}), with_cache(0, FIRST_BLOCK), with_cache(1, FIRST_BLOCK)
    counts = {plain.id: 200.0, cached.id: 150.0, lonely.id: 90.0}
    records = {item.id: record(item, counts[item.id]) for item in (plain, cached, lonely)}
    assert saved_blocks([plain, cached, lonely], records) == {cached.id: 0.25}


def test_other_solvers_and_failed_items_are_no_measure_of_saved_blocks() -> None:
    plain = with_cache(0, {}, solver={"kind": "ropa"})
    failed = replace(with_cache(0, {}), id="failed")
    cached = with_cache(0, FIRST_BLOCK)
    records = {plain.id: record(plain, 200), cached.id: record(cached, 150)}
    records[failed.id] = replace(record(failed, 200), status="failed")
    assert saved_blocks([plain, failed, cached], records) == {}


def test_the_table_and_the_clips_say_what_a_cache_saved(tmp_path: Path) -> None:
    items = [with_cache(0, {}), with_cache(0, FIRST_BLOCK)]
    run = RunFolder.create(tmp_path / "demo" / "run", {"name": "demo"}, items)
    for item, blocks in zip(items, (200.0, 127.0), strict=True):
        run.write_record(record(item, blocks))
    page = collect(run)
    index = [column.title for column in page.summary.table.columns].index("blocks")
    assert [(row.cells[index].text, row.cells[index].note) for row in page.summary.table.rows] == [
        ("200", ""),
        ("127", "36.5% saved"),
    ]
    assert [clip.get("b") for clip in page.clips["rows"][0]["c"]] == [None, "36.5%"]


def test_without_a_cache_blocks_are_no_column(tmp_path: Path) -> None:
    run = scored_run(tmp_path / "demo" / "run", {})
    assert not any(item.cache for item in run.items())
    assert "blocks" not in [column.title for column in collect(run).summary.table.columns]


def test_what_the_items_say_stands_before_versions_and_machine() -> None:
    items = [make_item(number) for number in range(3)]
    records = [
        record(
            items[0],
            device="H100",
            host="a",
            elapsed_s=50.0,
            memory_bytes=(2**30, 3 * 2**30),
            mesh={"time": 2, "cfg": 1},
        ),
        record(items[1], device="H100", host="b", elapsed_s=20.0, attempt=2, versions={"torch": "2.1"}),
        record(items[2], status="failed", host="c"),
    ]
    found = dict(collect_environment({"versions": {"torch": "2.0"}, "git": None, "host": "login"}, records))
    assert list(found) == ["Items", "Versions", "Machine the run was started on"]
    assert dict(found["Items"]) == {
        "devices": "H100",
        "hosts": "a (1), b (1)",
        "ranks an item": "time 2",
        "time": "1:10 summed over items; 35.0 s an item",
        "largest memory of a rank": "3.00 GiB",
        "tried more than once": "1",
        "other versions": "torch 2.1 (1)",
    }
    assert found["Machine the run was started on"] == (("host", "login"),)


def test_every_item_that_is_done_can_be_made_again_by_a_command_of_the_page(tmp_path: Path) -> None:
    page = build_report(scored_run(tmp_path / "a b" / "run", {})).path.read_text()
    assert f"genrun rerun ITEM --run &#39;{tmp_path}/a b/run&#39;" in page


def test_a_hostile_prompt_stays_text_among_the_outliers(tmp_path: Path) -> None:
    prompt = "</li><script>alert(1)</script>"
    run = scored_run(tmp_path / "demo" / "run", {"psnr": lambda item, number: float(number)}, prompts=[prompt])
    page = build_report(run).path.read_text()
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page


def test_time_that_passed_is_told_from_the_sum_over_items_and_who_was_faster_here() -> None:
    slow = [
        make_item(number, id=f"s{number}", solver={"kind": "sequential"}, axes={"solver": "sequential"})
        for number in (0, 1)
    ]
    fast = [make_item(number, id=f"r{number}", solver={"kind": "ropa"}, axes={"solver": "ropa"}) for number in (0, 1)]
    # Two at a time, then an hour in which the run stood still; what was taken over from another run took no time here.
    records = {
        "s0": record(slow[0], elapsed_s=40.0, finished_at="2026-01-01T00:00:40+00:00"),
        "r0": record(fast[0], elapsed_s=20.0, finished_at="2026-01-01T00:00:40+00:00"),
        "s1": record(slow[1], elapsed_s=40.0, finished_at="2026-01-01T01:00:40+00:00"),
        "r1": record(fast[1], elapsed_s=20.0, finished_at="2025-01-01T00:00:00+00:00", reused_from="earlier"),
    }
    found = collect_seconds(summarize([*slow, *fast], records, []), records)
    assert (found.summed_s, found.elapsed_s, found.totals) == (100.0, 80.0, "1:20 elapsed, 1:40 summed over items")
    assert found.answer == "Faster here."
    assert found.sentence == "An item took 40.0 s with sequential, 20.0 s with ropa (2.0× faster)."
