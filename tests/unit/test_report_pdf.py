"""The report on paper, apart from the real browser: posters, and what is said when Chromium does not print."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from genrun.adapters.media import MediaError, read_frames, read_middle_frame, write_video
from genrun.runner.cli import main
from genrun.runner.errors import RunError, UsageError
from genrun.runner.report import build
from genrun.runner.report.build import MOST_ROWS, build_report, find_chromium, for_paper, print_page, write_pdf
from genrun.runner.report.page import collect
from tests.sample_run import CAPTIONS, make_run

PRINTS = 'for word; do case $word in --print-to-pdf=*) printf %%PDF-1.4 > "${word#--print-to-pdf=}";; esac; done'


def program(path: Path, script: str) -> Path:
    """A Chromium of our own."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_the_middle_frame_is_that_of_the_whole_clip(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (9, 33, 47, 3), dtype=np.uint8)
    write_video(tmp_path / "a.mp4", frames, fps=8)
    assert np.array_equal(read_middle_frame(tmp_path / "a.mp4"), read_frames(tmp_path / "a.mp4")[4])
    assert read_middle_frame(tmp_path / "a.mp4").shape == (33, 47, 3)


def test_a_clip_cut_off_before_its_middle_has_none(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3), dtype=np.uint8), fps=8)
    path.write_bytes(path.read_bytes()[:8000])
    with pytest.raises(MediaError):
        read_middle_frame(path)


@pytest.mark.parametrize("image", [False, True])
def test_every_clip_has_its_poster(image: bool, tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo" / "run", image=image)
    run.media_path(run.items()[1], ".png" if image else ".mp4").unlink()
    build_report(run)
    folder = tmp_path / "paper"
    folder.mkdir()
    screen, paper = collect(run), for_paper(collect(run), run.report_dir, folder)
    clips = [[clip for row in page.clips["rows"] for clip in row["c"]] for page in (screen, paper)]
    assert [clip["m"] for clip in clips[1]].count("missing.png") == 1
    for before, after in zip(*clips, strict=True):
        assert {**before, "m": ""} == {**after, "m": ""}
        if after["m"] != "missing.png":
            media = run.report_dir / unquote(before["m"])
            assert np.array_equal(read_frames(folder / after["m"])[0], read_middle_frame(media))


def test_a_large_clip_has_a_small_poster(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", np.zeros((3, 360, 1280, 3), np.uint8), fps=8)
    name = build._write_poster(tmp_path / "a.mp4", tmp_path, "a")
    assert name == "a.jpg"
    with Image.open(tmp_path / name) as image:
        assert image.size == (480, 135)


def test_only_the_first_prompts_are_printed_and_the_paper_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo" / "run", seeds=range(20), files=False, latents=False)
    page = for_paper(collect(run), run.report_dir, tmp_path)
    assert len(page.clips["rows"]) == MOST_ROWS
    assert page.clips["print"] == {"rows": MOST_ROWS, "of": 40}


def test_a_pdf_is_whole_or_not_there_and_nothing_is_left_behind(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo" / "run")
    build_report(run)
    before = sorted(path.name for path in run.report_dir.iterdir())
    with pytest.raises(RunError, match="oh no"):
        write_pdf(run, program(tmp_path / "bad", "echo oh no"), tmp_path / "a.pdf")
    assert not list(tmp_path.glob("*.pdf"))
    write_pdf(run, program(tmp_path / "good", PRINTS), tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").read_bytes() == b"%PDF-1.4"
    assert sorted(path.name for path in run.report_dir.iterdir()) == before


def test_the_sandbox_is_left_out_only_where_there_is_none(tmp_path: Path) -> None:
    log = f'echo "$*" >> {tmp_path}/calls'
    page = tmp_path / "page.html"
    page.touch()
    print_page(program(tmp_path / "a", f"{log}; {PRINTS}"), page, tmp_path / "a.pdf")
    picky = f'{log}; case "$*" in *--no-sandbox*) {PRINTS};; *) echo No usable sandbox! >&2; exit 1;; esac'
    print_page(program(tmp_path / "b", picky), page, tmp_path / "b.pdf")
    calls = (tmp_path / "calls").read_text().splitlines()
    assert ["--no-sandbox" in call for call in calls] == [False, False, True]


def test_a_browser_that_prints_nothing_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.touch()
    for script, words in {
        "exit 3": "It wrote nothing",
        "seq 9; exit 1": "5\n6\n7\n8\n9",
        "exec sleep 60": "0.5 s",
    }.items():
        with pytest.raises(RunError, match=words) as caught:
            print_page(program(tmp_path / "chromium", script), page, tmp_path / "a.pdf", timeout_s=0.5)
        assert "print it there" in caught.value.remedy
    with pytest.raises(RunError, match="It did not start"):
        print_page(tmp_path / "none", page, tmp_path / "a.pdf")


def test_chromium_has_several_names_and_its_absence_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--pdf needs Chromium.*\n.*apt-get install chromium"):
        find_chromium(str(tmp_path))
    google = program(tmp_path / "google-chrome", "")
    assert find_chromium(str(tmp_path)) == google


def test_the_command_prints_beside_the_page_or_where_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_run(tmp_path / "demo" / "run", prompts=CAPTIONS[:1])
    (tmp_path / "bin").mkdir()
    program(tmp_path / "bin" / "chromium", PRINTS)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["report", str(made.path), "--pdf"])
    assert result.stdout.splitlines() == [f"{made.path}/report/index.html", f"{made.path}/report/report.pdf"]
    result = CliRunner().invoke(main, ["report", str(made.path), "--pdf", "it.pdf", "--json"])
    assert json.loads(result.stdout)["pdf"] == f"{tmp_path}/it.pdf"
    assert (tmp_path / "it.pdf").is_file()


def test_a_run_after_pdf_is_not_taken_for_a_file(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["report", "--pdf", "demo"])
    assert result.exit_code == 2
    assert "--pdf demo: not the name of a PDF.\n  RUN goes before --pdf" in result.stderr


def test_without_chromium_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_run(tmp_path / "demo" / "run", files=False, latents=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    result = CliRunner().invoke(main, ["report", str(made.path), "--pdf"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "apt-get install chromium" in result.stderr
    assert not made.report_dir.exists()
