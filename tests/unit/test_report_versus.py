"""The comparison on the page: with which baseline, gates, differences, and the worst pairs with their clips."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from genrun.runner.report.build import build_report
from genrun.runner.report.sections.comparison import ComparisonSection, collect_comparison
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.nights import Night, write_night
from genrun.runner.store.records import format_record
from genrun.runner.store.runs import pin
from tests.fakes.scores import Value, give, scored_run

COLOURS = {"sequential": 0, "ropa": 1}
GATES = {"psnr": {"max_drop": 0.2}}


def level(shift: float) -> Value:
    """PSNR that is `shift` higher for ropa, a little different on every item."""
    return lambda item, number: 30.0 + 0.01 * (number % 5) + (shift if item.solver["kind"] == "ropa" else 0.0)


def run_of(path: Path, shift: float = 0.0, **changes: Any) -> RunFolder:
    """A run with its pictures, which are as many bytes as their names."""
    run = scored_run(path, {"psnr": level(shift)}, **changes)
    for record in run.records().values():
        media = run.path / (record.media or "")
        media.parent.mkdir(parents=True, exist_ok=True)
        media.write_bytes(content := f"{path.name} {record.item_id}".encode())
        told = replace(record, sha256=hashlib.sha256(content).hexdigest())
        run.record_path(record.item_id).write_bytes(format_record(told))
    give(run, "psnr", level(shift))
    return run


def two(tmp_path: Path, shift: float = -1.0, **changes: Any) -> tuple[RunFolder, RunFolder]:
    """A pinned run, and one that is worse."""
    old, new = run_of(tmp_path / "demo" / "old"), run_of(tmp_path / "demo" / "new", shift, **changes)
    pin(old)
    return old, new


def held(run: RunFolder) -> ComparisonSection:
    found = collect_comparison(run, COLOURS)
    assert found is not None
    return found


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(r'id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_without_gates_and_baseline_there_is_no_comparison(tmp_path: Path) -> None:
    assert collect_comparison(run_of(tmp_path / "demo" / "run"), COLOURS) is None
    assert 'id="comparison"' not in build_report(run_of(tmp_path / "other" / "run")).path.read_text()


def test_a_run_is_held_against_the_pinned_one(tmp_path: Path) -> None:
    _, new = two(tmp_path)
    found = held(new)
    assert (found.against, [cell.label for cell in found.cells]) == ("old", ["sequential", "ropa"])
    (row,) = found.cells[1].rows
    assert (row.title, row.verdict, row.wins, row.ties, row.losses) == ("PSNR", "worse", 0, 0, 3)
    assert row.bar is not None and row.bar.high < (row.bar.mark or 0) == 50
    assert row.shares == (("wins", 0.0, 0.0), ("ties", 0.0, 0.0), ("losses", 0.0, 100.0))


def test_metrics_that_are_equal_on_every_pair_are_only_named(tmp_path: Path) -> None:
    _, new = two(tmp_path)
    assert held(new).cells[0].rows == ()
    assert held(new).cells[0].equal == ("PSNR", "rounds", "NFE", "N / rounds", "seconds an item")


def test_the_pinned_run_itself_has_no_baseline(tmp_path: Path) -> None:
    old, _ = two(tmp_path)
    assert collect_comparison(old, COLOURS) is None


def test_a_night_is_held_against_what_it_was_judged_by(tmp_path: Path) -> None:
    _, new = two(tmp_path)
    other = run_of(tmp_path / "demo" / "other", -1.0)
    night = Night("demo", "new", "2026-01-31", "2026-01-31T02:00:00+00:00", baseline=str(other.path))
    write_night(new.night_path, night)
    assert held(new).against == "other"
    write_night(new.night_path, replace(night, baseline=str(tmp_path / "gone")))
    assert "no longer there: gone" in held(new).note


def test_gates_without_a_baseline_are_judged_along_the_matrix(tmp_path: Path) -> None:
    found = held(run_of(tmp_path / "demo" / "run", -1.0, gates=GATES))
    assert (found.against, found.gates.headline) == ("this run's sequential items", "1 of 1 gates failed.")
    assert found.gates.trouble.startswith("ropa: psnr drop of 1.0 dB")
    assert found.worst[0]["against"] == "sequential"


def test_gates_come_worst_first_with_their_interval_beside_the_limit(tmp_path: Path) -> None:
    _, new = two(tmp_path, gates={"psnr": {"max_drop": 0.2, "min": 20.0}, "ssim": {"min": 0.9}})
    found = held(new)
    assert [gate.state for gate in found.gates.rows] == ["failed", "incomplete", *["passed"] * 3]
    worst = found.gates.rows[0]
    assert (worst.metric, worst.rule, worst.limit, worst.cell, worst.n) == (
        "PSNR",
        "drops by at most",
        "0.2 dB",
        "ropa",
        12,
    )
    assert worst.bar is not None and worst.bar.mark is not None and worst.bar.low > worst.bar.mark
    assert found.gates.rows[1].bar is None
    assert found.gates.headline == "1 of 5 gates failed, 1 could not be judged."


def test_the_page_shows_gates_and_differences(tmp_path: Path) -> None:
    _, new = two(tmp_path, gates=GATES)
    page = build_report(new).path.read_text()
    assert page.index('class="verdict gate"') < page.index('id="gates"') < page.index('id="clips"')
    assert page.index('id="clips"') < page.index('id="comparison"')
    assert "genrun compare" in page and "demo/old" in page


def test_the_worst_pairs_have_both_clips_in_the_report(tmp_path: Path) -> None:
    old, new = two(tmp_path)
    report = build_report(new).path
    (listing,) = data_of(report)["pairs"]
    assert (listing["cell"], listing["metric"], len(listing["rows"])) == ("ropa", "PSNR", 10)
    theirs, ours = listing["rows"][0]["c"]
    assert (report.parent / theirs["m"]).read_bytes() == f"old {theirs['i']}".encode()
    assert (report.parent / ours["m"]).read_bytes() == f"new {ours['i']}".encode()
    assert theirs["f"].endswith(f"old/media/{theirs['i'][:2]}/{theirs['i']}.png")
    assert old.path.name in theirs["m"]


def test_clips_of_another_baseline_are_removed(tmp_path: Path) -> None:
    _, new = two(tmp_path)
    folder = build_report(new).path.parent / "pairs"
    assert len(list(folder.rglob("*.png"))) == 10
    pin(run_of(tmp_path / "demo" / "other"))
    build_report(new)
    assert {path.parent.name for path in folder.rglob("*.png")} == {"other"}


def test_a_file_of_the_baseline_that_changed_is_not_shown_as_its_own(tmp_path: Path) -> None:
    _, new = two(tmp_path)
    build_report(new)
    first, second, *_ = (Path(row["c"][0]["f"]) for row in held(new).worst[0]["rows"])
    before = first.stat()
    # As long and as old as it was, and the very file that the report has a link to.
    first.write_bytes(b"x" * before.st_size)
    os.utime(first, ns=(before.st_atime_ns, before.st_mtime_ns))
    second.unlink()
    report = build_report(new).path
    shown = {row["c"][0]["i"]: row["c"][0] for row in data_of(report)["pairs"][0]["rows"]}
    told = {item_id for item_id, clip in shown.items() if clip.get("no") == "not the file that was recorded"}
    assert told == {first.stem, second.stem} and not any(
        "m" in shown[item_id] or "f" in shown[item_id] for item_id in told
    )
    assert {path.stem for path in (report.parent / "pairs").rglob("*.png")} == shown.keys() - told


@pytest.mark.parametrize("media", ["/etc/hostname", "media/../../../../../etc/hostname"])
def test_a_record_of_the_baseline_cannot_bring_foreign_files_in(media: str, tmp_path: Path) -> None:
    old, new = two(tmp_path)
    for record in old.records().values():
        old.record_path(record.item_id).write_bytes(format_record(replace(record, media=media)))
    report = build_report(new).path
    assert not list((report.parent / "pairs").rglob("*"))
    assert not any("m" in row["c"][0] for row in data_of(report)["pairs"][0]["rows"])


def test_runs_that_cannot_be_compared_say_so(tmp_path: Path) -> None:
    pin(run_of(tmp_path / "demo" / "old", solvers=["srds", "chords"]))
    new = run_of(tmp_path / "demo" / "new")
    assert "no cell of" in held(new).note
    assert "no cell of" in build_report(new).path.read_text()


def test_a_hostile_label_stays_text(tmp_path: Path) -> None:
    label = "<script>alert(1)</script>"
    pin(run_of(tmp_path / "demo" / "old", solvers=["sequential", label]))
    new = run_of(tmp_path / "demo" / "new", solvers=["sequential", label], gates=GATES)
    page = build_report(new).path.read_text()
    assert "<script>alert" not in page
    assert page.count("<script") == 2
