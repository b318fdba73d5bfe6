"""Runs are found by folder, by name and by default; a changed job finds another run, or is refused."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from genrun.runner.errors import DamagedFileError, MixError, UsageError
from genrun.runner.store.files import temporary_name
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.planfile import read_job
from genrun.runner.store.runs import names, new_path, pin, point_latest, resolve
from genrun.runner.submit.resume import SubmittedJob, changed_fields, check_same, find_run, open_run
from genrun.runner.submit.reuse import EarlierItem
from tests.fakes.damage import denied
from tests.fakes.items import document, done, make_folder, make_item


def open_folder(job: SubmittedJob, base: Path) -> RunFolder:
    return open_run(job, base, None).folder


def make_job(count: int = 3, name: str = "fake", **changes: Any) -> SubmittedJob:
    spec: Any = SimpleNamespace(name=name)
    return SubmittedJob(spec, document(name=name, **changes), [make_item(number) for number in range(count)])


def test_a_run_is_found_by_folder_name_or_default(tmp_path: Path) -> None:
    old = make_folder(tmp_path / "cats" / "2026-01-01T00-00-00-aaaa")
    new = make_folder(tmp_path / "cats" / "2026-01-02T00-00-00-bbbb")
    other = make_folder(tmp_path / "dogs" / "2026-01-03T00-00-00-cccc")
    point_latest(new)
    point_latest(other)
    assert resolve(str(old.path), tmp_path) == old
    assert resolve("cats", tmp_path) == new
    assert resolve("cats/latest", tmp_path) == new
    assert resolve(str(tmp_path / "cats"), tmp_path) == new
    assert resolve("cats/2026-01-01T00-00-00-aaaa", tmp_path) == old
    assert resolve(None, tmp_path) == other
    assert names(tmp_path) == ["cats", "dogs"]


def test_the_default_is_the_run_submitted_last(tmp_path: Path) -> None:
    first = make_folder(tmp_path / "a" / "2026-01-01T00-00-00-aaaa")
    second = make_folder(tmp_path / "b" / "2026-01-02T00-00-00-bbbb")
    for folder, moment in ((second, 1), (first, 2)):
        point_latest(folder)
        os.utime(folder.path.parent / "latest", (moment, moment), follow_symlinks=False)
    assert resolve(None, tmp_path) == first


def test_latest_is_guessed_when_its_link_was_lost(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "2026-01-01T00-00-00-aaaa")
    newer = make_folder(tmp_path / "a" / "2026-01-02T00-00-00-aaaa")
    assert resolve("a", tmp_path) == newer
    assert resolve(None, tmp_path) == newer


def test_an_unknown_run_is_refused_with_the_nearest(tmp_path: Path) -> None:
    make_folder(tmp_path / "hunyuan" / "2026-01-01T00-00-00-aaaa")
    with pytest.raises(UsageError) as caught:
        resolve("hunyan", tmp_path)
    assert str(caught.value) == (
        "'hunyan': no such run. Did you mean 'hunyuan'?\n"
        f"  Jobs with runs in {tmp_path}: hunyuan. Others: --runs FOLDER."
    )


def test_no_runs_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no runs there"):
        resolve(None, tmp_path / "runs")


def test_new_runs_have_distinct_sortable_names(tmp_path: Path) -> None:
    path = new_path(tmp_path, "fake")
    assert path.parent == tmp_path / "fake"
    assert len(path.name) == len("2026-01-31T02-00-00-3f9c")


def test_the_same_items_go_on_with_the_same_run(tmp_path: Path) -> None:
    first = open_folder(make_job(), tmp_path)
    again = open_folder(make_job(launch={"kind": "torchrun"}), tmp_path)
    assert again == first
    assert again.job_document()["launch"] == {"kind": "torchrun"}
    assert (tmp_path / "fake" / "latest").resolve() == first.path


def test_a_changed_job_gets_a_new_run_and_the_old_one_stays_findable(tmp_path: Path) -> None:
    first = open_folder(make_job(3), tmp_path)
    second = open_folder(make_job(4), tmp_path)
    assert second != first
    assert resolve("fake", tmp_path) == second
    assert find_run(make_job(3), tmp_path) == first
    assert open_folder(make_job(3), tmp_path) == first
    assert resolve("fake", tmp_path) == first


def test_a_copy_that_somebody_keeps_beside_a_run_is_not_gone_on_with(tmp_path: Path) -> None:
    first = open_folder(make_job(), tmp_path)
    for name in (f"{first.path.name}-backup", f"{first.path.name}x", "old"):
        shutil.copytree(first.path, first.path.with_name(name))
    assert find_run(make_job(), tmp_path) == first
    shutil.rmtree(first.path)
    # The only ones that are left, whatever they are called.
    assert find_run(make_job(), tmp_path) is not None


def test_a_changed_job_is_refused_by_an_old_run_with_the_fields_named(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run")
    changed = make_job(4, sampling={"steps": 5}, seeds=[0, 1])
    with pytest.raises(MixError) as caught:
        check_same(changed, folder)
    assert str(caught.value) == (
        f"{folder.path}: the job has changed since this run was made (1 items are new, 0 gone):\n"
        "    sampling.steps: 4 -> 5\n"
        "    seeds: [0] -> [0, 1]\n"
        "  Submit without --run to start a new run, or restore the old values."
    )
    assert caught.value.exit_code == 2
    assert RunFolder.open(folder.path).items() == [make_item(number) for number in range(3)]


def test_only_fields_that_change_pixels_count_as_changed() -> None:
    old = document(launch={"kind": "inline"}, solver={"kind": "ropa", "workers": 8})
    new = document(launch={"kind": "torchrun"}, solver={"kind": "ropa"}, score=["psnr"])
    assert changed_fields(old, new) == ["solver.workers: 8 -> (not set)"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 200, "nested deeper"),
        ("name: a\nmodel: &a {x: *a}\n", "nested deeper"),
        (
            "name: a\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else 'x'] * 9)}]\n" for n in range(12)),
            "holds",
        ),
        ("name: [\n", "no YAML"),
        ("name: a\nmodel: {a: !!python/name:os.system x}\n", "no YAML"),
        ("name: a\nscore: [psnr, {psnr: 3}]\n", r"score holds \{'psnr': 3\}"),
        ("name: a\nscore: [3]\n", "score holds 3"),
        ("name: a\ngates: {psnr: high}\n", "gates.psnr is 'high'"),
        ("name: a\ngates: {psnr: {min: high}}\n", "gates.psnr.min is 'high'"),
        ("name: a\ngates: {psnr: {max_missing: [1]}}\n", r"gates.psnr.max_missing is \[1\]"),
    ],
)
def test_a_stored_job_that_no_genrun_wrote_is_damaged_and_brings_nothing_down(
    tmp_path: Path, text: str, why: str
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(DamagedFileError, match=why):
        read_job(path)


def test_a_stored_job_may_use_aliases(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("name: a\nmodel: &m {adapter: x}\nlaunch: *m\n")
    assert read_job(path) == {"name": "a", "model": {"adapter": "x"}, "launch": {"adapter": "x"}}


def test_results_are_taken_over_only_where_they_may_be_read_and_are_what_was_written(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run", count=1)
    (item,) = folder.items()
    assert done(folder, item)
    record = folder.record(item.id)
    assert record is not None
    found, media = EarlierItem(folder, record), folder.media_path(item, ".png")
    assert found.is_whole()
    with denied(media):
        assert not found.is_whole()
    media.write_bytes(b"Picture")
    assert not found.is_whole()
    media.unlink()
    assert not found.is_whole()
    os.mkfifo(media)
    assert not found.is_whole()


def test_what_a_killed_command_left_of_a_link_goes_with_the_next(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "a" / "2026-01-01T00-00-00-aaaa")
    ours = temporary_name(tmp_path / "a" / "pinned").name.split("-")
    # Of a process of this machine that is no more.
    ours[2] = "00000000"
    (tmp_path / "a" / "-".join(ours)).symlink_to("gone")
    pin(folder)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [folder.path.name, "pinned"]
