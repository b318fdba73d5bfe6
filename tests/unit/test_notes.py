"""What has to be told about items that are done: kept in records, and told by every verb that shows items."""

from dataclasses import replace
from pathlib import Path

from genrun.runner import notes
from genrun.runner.compare.difference import measure
from genrun.runner.compare.matching import ComparedItem
from genrun.runner.report.build import build_report
from genrun.runner.report.sections.clips import describe
from genrun.runner.score.metrics import wanted_metrics
from genrun.runner.score.scoring import score_run
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.records import Note, Record, SamplerStats, format_record, parse_record
from genrun.runner.store.scores import read_scores
from tests.fakes.items import make_item
from tests.sample_run import ROPA, SEQUENTIAL, make_run

BLACK = Note(notes.SAFETY_CHECKER, "the safety checker flagged it")
CUT = Note(notes.PROMPT_TRUNCATED, "CLIP saw 77 of 90 tokens; lost: '</script>'")


def noted_run(path: Path, note: Note, index: int = 1, **changes: object) -> RunFolder:
    """A run one of whose records has a note."""
    run = make_run(path, image=True, **changes)  # pyright: ignore[reportArgumentType]
    record = run.record(run.items()[index].id)
    assert record is not None
    run.record_path(record.item_id).write_bytes(format_record(replace(record, notes=(note,))))
    return run


def test_a_record_keeps_its_notes() -> None:
    record = Record("a", "done", sampler=SamplerStats(4, 2, 6), notes=(BLACK, CUT))
    assert parse_record(format_record(record)) == record


def test_a_record_without_notes_is_one_of_an_earlier_version() -> None:
    assert parse_record(b'{"item_id": "a", "status": "done"}').notes == ()


def test_notes_are_counted_by_item_and_kind_and_only_of_done_items() -> None:
    records = [
        Record("a", "done", notes=(CUT, CUT)),
        Record("b", "done", notes=(CUT, BLACK)),
        Record("c", "failed", notes=(BLACK,)),
    ]
    assert notes.count_notes(records) == {notes.PROMPT_TRUNCATED: 2, notes.SAFETY_CHECKER: 1}
    first, second = map(str, notes.group_notes(records))
    assert first.startswith("2 items: the prompt is longer than the window of a text encoder")
    assert second.startswith("1 item: the checkpoint's safety checker made the picture black")


def test_a_kind_of_a_later_version_is_told_in_its_own_words() -> None:
    (found,) = notes.group_notes([Record("a", "done", notes=(Note("new_kind", "as it says"),))])
    assert str(found) == "1 item: as it says."


def test_a_picture_that_is_not_the_models_is_not_scored(tmp_path: Path) -> None:
    run = noted_run(tmp_path / "job" / "run", BLACK, index=1, solvers=(SEQUENTIAL, ROPA))
    rows = score_run(run, wanted_metrics(run, ["psnr", "latent_rmse", "checker"]))
    flagged = run.items()[1].id
    of = {row.metric: row for row in rows if row.item_id == flagged}
    assert of["psnr"].value is None
    assert "the safety checker flagged it" in str(of["psnr"].reason)
    assert of["checker"].value is None
    assert of["latent_rmse"].value is not None  # its latents are what the model made
    assert read_scores(run)


def test_nothing_is_compared_with_a_reference_that_is_not_real(tmp_path: Path) -> None:
    run = noted_run(tmp_path / "job" / "run", BLACK, index=0, solvers=(SEQUENTIAL, ROPA))
    other = run.items()[1].id
    (row,) = [row for row in score_run(run, wanted_metrics(run, ["psnr"])) if row.item_id == other]
    assert row.value is None
    assert "the sequential item: not what the model made" in str(row.reason)


def test_the_report_lists_notes_and_has_them_at_the_clip(tmp_path: Path) -> None:
    page = build_report(noted_run(tmp_path / "job" / "run", CUT)).path.read_text(encoding="utf-8")
    assert 'id="notes"' in page
    assert "Prompt cut" in page
    assert "CLIP saw 77 of 90 tokens; lost: &#39;&lt;/script&gt;&#39;" in page
    assert '"o":["CLIP saw 77 of 90 tokens' in page


def test_the_report_of_a_run_without_notes_has_no_such_section(tmp_path: Path) -> None:
    page = build_report(make_run(tmp_path / "job" / "run", image=True)).path.read_text(encoding="utf-8")
    assert 'id="notes"' not in page


def test_drift_from_or_of_a_picture_that_is_not_real_is_not_measured(tmp_path: Path) -> None:
    real = make_run(tmp_path / "job" / "a", image=True)
    black = noted_run(tmp_path / "job" / "b", BLACK, index=0)
    entries = [
        ComparedItem(run.items()[0], run.record(run.items()[0].id), {}, run.records()[run.items()[0].id].media, run)
        for run in (real, black)
    ]
    (of,) = measure("drift.psnr", [(entries[0], entries[1])])
    (against,) = measure("drift.psnr", [(entries[1], entries[0])])
    assert (of.value, against.value) == (None, None)
    assert of.reason == "not what the model made: the safety checker flagged it"
    assert against.reason == "the baseline: not what the model made: the safety checker flagged it"


def test_a_list_of_items_names_every_axis_of_each() -> None:
    item = make_item(1)
    assert describe(replace(item, axes={"solver": "ropa", "model": "sd2"})) == f"seed {item.seed}, ropa, model sd2"
