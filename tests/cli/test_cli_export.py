"""`genrun export`: names, formats, contact sheets and the table, and that it never writes over what is not its own."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import imageio.v3 as iio
import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from genrun.adapters.media import convert, read_fps, read_frames
from genrun.runner.errors import UsageError
from genrun.runner.export.contact_sheet import CAPTION, HEADING, MARGIN, QUIET, THUMB, sheets
from genrun.runner.export.export import rows_of, to_csv
from genrun.runner.export.filenames import name_items
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.records import Score
from tests.sample_run import ROPA, SEQUENTIAL, make_run, work_item

Genrun = Callable[..., Result]
HOSTILE = "../../etc/passwd\x00 <b>'; rm -rf ~'\n" + "long " * 80
TOP, LEFT = slice(MARGIN + HEADING, MARGIN + HEADING + THUMB), slice(MARGIN, MARGIN + THUMB)
BELOW = slice(TOP.stop + CAPTION + MARGIN, TOP.stop + CAPTION + MARGIN + THUMB)
RIGHT = slice(LEFT.stop + MARGIN, LEFT.stop + MARGIN + THUMB)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "runs" / "demo" / "2026-01-31T02-00-00-3f9c", pending=[3]).path


def exported(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {"export.json"}


def test_media_are_copied_under_names_that_say_what_they_are(genrun: Genrun, run: Path) -> None:
    result = genrun("export", str(run), "--to", "out")
    assert exported(Path("out")) == {
        "0001_a-small-red-circle-moving-left-on-gray_0_sequential.mp4",
        "0002_a-small-red-circle-moving-left-on-gray_0_ropa-K-8.mp4",
        "0003_a-large-white-square-moving-down-on-navy_0_sequential.mp4",
    }
    assert "1 left out: not made." in result.stderr
    original = next(run.glob("media/*/*.mp4"))
    assert original.read_bytes() in {path.read_bytes() for path in Path("out").glob("*.mp4")}


def test_a_template_makes_folders(genrun: Genrun, run: Path) -> None:
    genrun("export", str(run), "--to", "out", "--name", "{solver}/{index:03}_{seed}")
    assert exported(Path("out")) == {"sequential/001_0.mp4", "ropa-K-8/002_0.mp4", "sequential/003_0.mp4"}


def test_clips_become_gif_webp_webm_and_frames(genrun: Genrun, run: Path) -> None:
    genrun("export", str(run), "--to", "out", "--name", "{index}", "--format", "gif,webp,webm,frames")
    media = next(run.glob(f"media/*/{RunFolder.open(run).items()[0].id}.mp4"))
    original = read_frames(media)
    clips = {suffix: np.stack(list(iio.imiter(f"out/1.{suffix}", plugin="pillow"))) for suffix in ("gif", "webp")}
    with av.open("out/1.webm") as webm:
        rate = webm.streams.video[0].average_rate
        clips["webm"] = np.stack([frame.to_ndarray(format="rgb24") for frame in webm.decode(video=0)])
    assert {suffix: clip.shape[:3] for suffix, clip in clips.items()} == dict.fromkeys(clips, original.shape[:3])
    assert rate == read_fps(media)
    frames = sorted(Path("out/1-frames").iterdir())
    assert [frame.name for frame in frames[:2]] == ["00001.png", "00002.png"]
    assert np.array_equal(np.stack([np.asarray(Image.open(frame)) for frame in frames]), original)


def test_pictures_can_be_webp_and_no_gif(genrun: Genrun, tmp_path: Path) -> None:
    pictures = make_run(tmp_path / "runs" / "pictures" / "2026-01-31T02-00-00-3f9c", image=True).path
    genrun("export", str(pictures), "--to", "out", "--name", "{index}", "--format", "as-is,webp")
    assert exported(Path("out")) == {f"{index}.{suffix}" for index in (1, 2, 3, 4) for suffix in ("png", "webp")}
    result = genrun("export", str(pictures), "--to", "other", "--format", "gif", exit_code=2)
    assert "these are pictures" in result.stderr
    assert not Path("other").exists()


def test_a_sheet_has_a_row_for_each_prompt_and_a_column_for_each_cell(genrun: Genrun, run: Path) -> None:
    genrun("export", str(run), "--to", "out", "--format", "none", "--sheet")
    sheet = np.asarray(Image.open("out/sheet.png").convert("RGB"))
    assert exported(Path("out")) == {"sheet.png"}
    height, width = sheet.shape[:2]
    assert 2 * 256 < width < 2 * 280 and 2 * 256 < height < 2 * 320
    assert len(np.unique(sheet[height // 4, : width // 2], axis=0)) > 2


def test_long_runs_have_several_sheets(genrun: Genrun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "long" / "2026-01-31T02-00-00-3f9c", seeds=range(12), image=True).path
    genrun("export", str(run), "--to", "out", "--format", "none", "--sheet")
    assert exported(Path("out")) == {"sheet-01.png", "sheet-02.png"}


def test_the_table_has_every_item_with_its_costs_and_scores(genrun: Genrun, run: Path) -> None:
    genrun("score", str(run), "--metrics", "psnr")
    genrun("export", str(run), "--to", "out", "--name", "{index}", "--csv")
    rows = list(csv.DictReader(io.StringIO(Path("out/results.csv").read_text(encoding="utf-8"))))
    assert [(row["index"], row["file"], row["status"]) for row in rows] == [
        ("1", "1.mp4", "done"),
        ("2", "2.mp4", "done"),
        ("3", "3.mp4", "done"),
        ("4", "", "pending"),
    ]
    assert (rows[1]["rounds"], rows[1]["nfe"], rows[1]["solver"]) == ("7", "52", "ropa K=8")
    assert float(rows[1]["psnr"]) > 10
    assert rows[0]["psnr"] == ""


def test_a_text_of_the_table_is_no_formula() -> None:
    texts = ("=1+2", "+1", "-a", "@x", "\tx", "a=1", "-")
    rows = [{"prompt": text, "psnr": -1.5, "seed": 3} for text in texts]
    found = list(csv.DictReader(io.StringIO(to_csv(rows).decode(), newline="")))
    assert [row["prompt"] for row in found] == ["'=1+2", "'+1", "'-a", "'@x", "'\tx", "a=1", "'-"]
    assert {(row["psnr"], row["seed"]) for row in found} == {("-1.5", "3")}


def test_the_same_export_again_brings_the_folder_up_to_date(genrun: Genrun, run: Path) -> None:
    arguments = ("export", str(run), "--to", "out", "--name", "{index}", "--sheet", "--csv")
    genrun(*arguments)
    Path("out/1.mp4").write_bytes(b"cut off")
    genrun(*arguments)
    assert len(read_frames(Path("out/1.mp4"))) > 1


def test_a_file_that_is_not_the_one_that_was_made_goes_nowhere(genrun: Genrun, run: Path) -> None:
    first, second = (run.joinpath(record.media or "") for record in list(RunFolder.open(run).records().values())[:2])
    secret = run.parent / "secret"
    secret.write_text("nothing of this run's")
    first.unlink()
    first.symlink_to(secret)
    for path in run.glob("items/*/*.json"):
        record = json.loads(path.read_text())
        if record["item_id"] == second.stem:
            path.write_text(json.dumps({**record, "media_bytes": second.stat().st_size + 1}))
        elif record["item_id"] == first.stem:
            path.write_text(json.dumps({**record, "media_bytes": 5}))
    assert "2 left out: its file is lost, or not as it was written" in genrun("export", str(run), "--to", "out").stderr
    genrun("report", str(run), "--standalone")
    made = {path.stem for path in (run / "report" / "media").rglob("*") if path.is_file()}
    assert len(exported(Path("out"))) == 1 and made.isdisjoint({first.stem, second.stem}) and made


def test_a_file_that_changed_but_kept_its_size_goes_nowhere(genrun: Genrun, run: Path) -> None:
    first, second, third = (run.joinpath(record.media or "") for record in RunFolder.open(run).records().values())
    secret = run.parent / "secret"
    secret.write_bytes(bytes(first.stat().st_size))
    first.unlink()
    first.symlink_to(secret)
    second.write_bytes(second.read_bytes()[::-1])
    # A link to what was written is as good as the file.
    third.rename(run.parent / third.name)
    third.symlink_to(run.parent / third.name)
    arguments = ("export", str(run), "--to", "out", "--name", "{id}", "--sheet")
    told = genrun(*arguments).stderr
    assert "2 left out: its file is not the one that was made" in told
    assert first.stem in told and second.stem in told and third.stem not in told
    genrun("report", str(run), "--standalone")
    made = {path.stem for path in (run / "report" / "media").rglob("*") if path.is_file()}
    assert exported(Path("out")) == {f"{third.stem}.mp4", "sheet.png"} and made == {third.stem}
    Path("out", first.name).write_text("precious")
    assert "no export wrote it" in genrun(*arguments, exit_code=2).stderr
    assert Path("out", first.name).read_text() == "precious"


def test_a_file_of_somebody_elses_stays(genrun: Genrun, run: Path) -> None:
    Path("out").mkdir()
    Path("out/2.mp4").write_text("precious")
    result = genrun("export", str(run), "--to", "out", "--name", "{index}", exit_code=2)
    assert "no export wrote it" in result.stderr
    assert exported(Path("out")) == {"2.mp4"}
    assert Path("out/2.mp4").read_text() == "precious"


def test_nothing_is_exported_into_a_run(genrun: Genrun, run: Path) -> None:
    before = sorted(run.rglob("*"))
    for to in (run, run / "media", run / "new" / "folder"):
        assert "lies in the run" in genrun("export", str(run), "--to", str(to), "--csv", exit_code=2).stderr
    assert sorted(run.rglob("*")) == before


def test_json_tells_every_file(genrun: Genrun, run: Path) -> None:
    told = json.loads(genrun("export", str(run), "--to", "out", "--name", "{index}", "--csv", "--json").stdout)
    assert sorted(name for names in told["files"].values() for name in names) == ["1.mp4", "2.mp4", "3.mp4"]
    assert told["others"] == ["results.csv"]
    assert list(told["left_out"].values()) == ["not made"]
    assert told["to"] == str(Path("out").absolute())


def test_an_unknown_format_is_refused_with_the_nearest(genrun: Genrun, run: Path) -> None:
    assert "Did you mean 'gif'?" in genrun("export", str(run), "--to", "o", "--format", "gifs", exit_code=2).stderr


def test_a_hostile_prompt_makes_a_plain_name() -> None:
    (name,) = name_items([work_item(HOSTILE, 0, ROPA)], "{prompt}").values()
    assert name == "etc-passwd-b-rm-rf-long-long-long-long-long-long-long-long-l"


def test_a_prompt_of_another_script_keeps_its_letters() -> None:
    assert list(name_items([work_item("красный шар, 赤い", 0, ROPA)], "{prompt}").values()) == ["красный-шар-赤い"]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{promt}", "Did you mean 'prompt'"),
        ("{prompt.__class__}", "no field"),
        ("{index[0]}", "no field"),
        ("{prompt!r}", "conversion"),
        ("{0}", "no field"),
        ("{", "Single"),
        ("../{index}", "no file name"),
        ("/{index}", "no file name"),
        ("{index:999999999}", "wider than a file name"),
        ("{index}\n", "no file name"),
        ("{prompt:d}", "Unknown format code"),
        (".{index}", "no file name"),
        ("{index}" + "x" * 300, "too long"),
    ],
)
def test_a_template_that_cannot_be_meant_is_refused(template: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        name_items([work_item("a", 0, ROPA)], template)


def test_two_items_of_one_name_are_refused_before_anything_is_written() -> None:
    with pytest.raises(UsageError, match="would both be 'A'"):
        name_items([work_item("a", 0, SEQUENTIAL), work_item("A", 0, ROPA)], "{prompt}")


def test_names_that_differ_in_how_an_accent_is_written_are_one_file_elsewhere() -> None:
    # The same syllable as one letter and as three, all of them letters.
    with pytest.raises(UsageError, match="would both be"):
        name_items([work_item("\ud55c", 0, SEQUENTIAL), work_item("\u1112\u1161\u11ab", 0, ROPA)], "{prompt}")


def test_an_item_named_as_the_contact_sheet_is_not_written_over(genrun: Genrun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "t" / "2026-01-31T02-00-00-3f9c", prompts=["Sheet"], solvers=[ROPA], image=True)
    result = genrun("export", str(run.path), "--to", "out", "--name", "{prompt}", "--sheet", exit_code=2)
    assert "would be 'Sheet.png', which the contact sheet is called" in result.stderr
    genrun("export", str(run.path), "--to", "out", "--name", "{prompt}")
    assert exported(Path("out")) == {"Sheet.png"}


def test_frames_are_shown_as_long_as_the_clips(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (12, 16, 16, 3), dtype=np.uint8)
    for suffix in (".gif", ".webp"):
        convert(tmp_path / f"a{suffix}", frames, 24)
        assert sum(_durations(tmp_path / f"a{suffix}")) == 500
    convert(tmp_path / "fast.gif", frames, 60)
    # Less is shown for a tenth of a second by browsers.
    assert set(_durations(tmp_path / "fast.gif")) == {20}


def _durations(path: Path) -> list[int]:
    with Image.open(path) as image:
        found = []
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            image.load()
            found.append(image.info["duration"])
        return found


def test_a_sheet_leaves_places_blank_that_no_item_was_planned_for() -> None:
    items = [replace(work_item("a", 0, each), negative_prompt=text) for each, text in ((SEQUENTIAL, "x"), (ROPA, "y"))]
    (sheet,) = sheets(items, {})
    # Two rows of two: what was planned and not made is framed, the rest is paper.
    frames = [(sheet[rows, columns] == QUIET).all(-1).any() for rows in (TOP, BELOW) for columns in (LEFT, RIGHT)]
    assert frames == [True, False, False, True]


def test_scores_of_sets_are_in_no_row(run: Path) -> None:
    folder = RunFolder.open(run)
    rows = rows_of(folder.items(), folder.records(), [Score("set:ropa K=8", "fid", 3.0, False)], {})
    assert {row["fid"] for row in rows} == {None}


def test_an_export_that_was_cut_off_can_be_repeated(genrun: Genrun, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("export", str(run), "--to", "out", "--name", "{index}", "--sheet", "--csv")
    with monkeypatch.context() as cut, pytest.raises(RuntimeError, match="cut off"):
        cut.setattr("genrun.runner.export.export.rows_of", _cut_off)
        genrun(*arguments)
    Path("out/results.csv").write_text("half")
    genrun(*arguments)
    assert Path("out/results.csv").read_text(encoding="utf-8").startswith("index,file,id")


def _cut_off(*_: object) -> None:
    raise RuntimeError("cut off")
