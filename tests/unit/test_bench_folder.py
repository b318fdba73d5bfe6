"""A bench that is cut off goes on; one that would mix is refused; every number is measured against the same references."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from genrun.runner.bench.measure import Meter, SubjectMeasurer, SweepPlan, measure
from genrun.runner.bench.results import BenchFolder
from genrun.runner.bench.subjects import AnalyticSubject, SolvedSample, ask_problem
from genrun.runner.bench.sweep import SweepPoint, parse_solvers
from genrun.runner.errors import GenrunError, MixError, RunError, StoreError, UsageError
from genrun.runner.job.options import Registries
from genrun.runner.progress import Progress, progress_line
from genrun.solvers import Solution
from tests.fakes.bench import result

SOLVERS = Registries.installed().solvers
Cache = Mapping[str, Any] | None
SETTINGS: dict[str, Any] = {"model": {"adapter": "demo"}, "sampling": {"steps": 50}, "batch": 1}


@dataclass
class Watched:
    """A closed-form problem that remembers what it was asked to run."""

    inner: AnalyticSubject
    batch: int = 1
    num_frames: int | None = None
    runs: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    offset: float = 0.0

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def title(self) -> str:
        return self.inner.title

    @property
    def count(self) -> int:
        return self.inner.count

    def run(self, solver: Any, indices: Sequence[int], cache: Cache = None) -> list[SolvedSample]:
        self.runs.append((type(solver).__name__, tuple(indices)))
        return [SolvedSample(each.x + self.offset, each.solution) for each in self.inner.run(solver, indices, cache)]

    def warm_up(self) -> None:
        pass

    def close(self) -> None:
        pass


@dataclass
class Display:
    """Keeps what it was shown."""

    shown: list[Progress] = field(default_factory=list)
    closed: bool = False

    def show(self, progress: Progress) -> None:
        self.shown.append(progress)

    def close(self, progress: Progress) -> None:
        self.show(progress)
        self.closed = True


def subject(count: int = 3, **fields: Any) -> Watched:
    return Watched(AnalyticSubject("mixture", 12, count), **fields)


def cell(kind: str = "ropa", **options: Any) -> SweepPoint:
    options = {"workers": 4, "tolerance": 0.1} | options
    return SweepPoint("mixture", kind, kind, options["workers"], options["tolerance"], options)


def opened(path: Path, **changes: Any) -> BenchFolder:
    return BenchFolder.open(path / "bench", {**SETTINGS, **changes})


def ignore(_: float) -> None:
    pass


def test_a_finished_cell_is_not_measured_again(tmp_path: Path) -> None:
    first = subject()
    made, is_new = SubjectMeasurer(first, opened(tmp_path), SOLVERS).result(cell(), ignore)
    assert is_new
    assert first.runs == [(name, (index,)) for name in ("Sequential", "Ropa") for index in range(3)]
    second = subject()
    found, is_new = SubjectMeasurer(second, opened(tmp_path), SOLVERS).result(cell(), ignore)
    assert not is_new
    assert found == made
    assert second.runs == []


def test_another_cell_takes_the_references_from_the_folder_and_times_one_again(tmp_path: Path) -> None:
    SubjectMeasurer(subject(), opened(tmp_path), SOLVERS).result(cell(), ignore)
    again = subject()
    result, _ = SubjectMeasurer(again, opened(tmp_path), SOLVERS).result(cell(tolerance=0.2), ignore)
    assert [indices for name, indices in again.runs if name == "Sequential"] == [(0,)]
    assert result.evaluation_s > 0
    fresh, _ = SubjectMeasurer(subject(), opened(tmp_path / "fresh"), SOLVERS).result(cell(tolerance=0.2), ignore)
    assert result.samples == fresh.samples


def test_a_cell_cut_off_leaves_no_record_and_those_before_it_stay(tmp_path: Path) -> None:
    folder, broken = opened(tmp_path), subject()
    SubjectMeasurer(broken, folder, SOLVERS).result(cell(), ignore)

    def interrupt(fraction: float) -> None:
        if broken.runs[-1][0] == "Paradigms" and fraction > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SubjectMeasurer(broken, folder, SOLVERS).result(cell("paradigms"), interrupt)
    assert len(list((folder.path / "cells").iterdir())) == 1
    assert folder.result(cell("paradigms"), "any") is None
    _, is_new = SubjectMeasurer(subject(), folder, SOLVERS).result(cell("paradigms"), ignore)
    assert is_new


def test_numbers_are_those_of_the_solver_and_its_distance_to_the_sequential_state(tmp_path: Path) -> None:
    watched = subject()
    result, _ = SubjectMeasurer(watched, opened(tmp_path), SOLVERS).result(cell(), ignore)
    for index, sample in enumerate(result.samples):
        (exact,) = watched.inner.run(SOLVERS.get("sequential")(), [index])
        (found,) = watched.inner.run(SOLVERS.get("ropa")(workers=4, tolerance=0.1), [index])
        distance = (found.x - exact.x).square().mean().sqrt() / exact.x.std(correction=0)
        assert sample.rmse == pytest.approx(float(distance), rel=1e-5)
        assert (sample.rounds, sample.nfe, sample.fronts) == (
            found.solution.rounds,
            found.solution.nfe,
            found.solution.fronts,
        )
        assert sample.worst_block is None
    assert result.calls == sum(sample.rounds for sample in result.samples)
    assert result.num_steps == 12


def test_the_worst_block_is_of_states_with_places(tmp_path: Path) -> None:
    @dataclass
    class Pictures(Watched):
        def run(self, solver: Any, indices: Sequence[int], cache: Cache = None) -> list[SolvedSample]:
            wrong = float(type(solver).__name__ != "Sequential")
            return [SolvedSample(picture(wrong), Solution(picture(0), 4, 4, (12,))) for _ in indices]

    result, _ = SubjectMeasurer(Pictures(subject().inner), opened(tmp_path), SOLVERS).result(cell(), ignore)
    sample = result.samples[0]
    assert sample.worst_block == pytest.approx(2 * sample.rmse)
    assert result.worst_block == sample.worst_block


def picture(wrong: float) -> Tensor:
    """(1, 2, 16, 16) noise, one quarter of it off by `wrong`."""
    x = torch.randn(1, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    x[..., 8:, 8:] += wrong
    return x


def test_a_batch_is_run_in_one_call(tmp_path: Path) -> None:
    watched = subject(count=5, batch=2)
    result, _ = SubjectMeasurer(watched, opened(tmp_path), SOLVERS).result(cell(), ignore)
    assert [indices for name, indices in watched.runs if name == "Ropa"] == [(0, 1), (2, 3), (4,)]
    rounds = [sample.rounds for sample in result.samples]
    assert result.calls == max(rounds[:2]) + max(rounds[2:4]) + rounds[4]


def test_a_solver_that_refuses_its_options_or_fails_is_a_result_with_the_reason(tmp_path: Path) -> None:
    measurer = SubjectMeasurer(subject(), opened(tmp_path), SOLVERS)
    refused, _ = measurer.result(cell(workers=0), ignore)
    assert (refused.samples, refused.error) == ((), "refused: workers: must be at least 1, got 0")
    again, is_new = measurer.result(cell(workers=0), ignore)
    assert (again, is_new) == (refused, False)

    @dataclass
    class Failing(Watched):
        def run(self, solver: Any, indices: Sequence[int], cache: Cache = None) -> list[SolvedSample]:
            from genrun.solvers import NonFiniteError

            if type(solver).__name__ == "Ropa" and indices[0] == 1:
                raise NonFiniteError(3, 2)
            return super().run(solver, indices, cache)

    failed, _ = SubjectMeasurer(Failing(subject().inner), opened(tmp_path / "other"), SOLVERS).result(cell(), ignore)
    assert failed.samples == ()
    assert failed.error == "NonFiniteError: non-finite values at step 3 in round 2"


def test_a_sequential_sampler_that_fails_ends_the_bench(tmp_path: Path) -> None:
    @dataclass
    class Broken(Watched):
        def run(self, solver: Any, indices: Sequence[int], cache: Cache = None) -> list[SolvedSample]:
            from genrun.solvers import NonFiniteError

            raise NonFiniteError(3, 4)

    with pytest.raises(RunError, match="mixture: the sequential sampler itself fails: non-finite values at step 3"):
        SubjectMeasurer(Broken(subject().inner), opened(tmp_path), SOLVERS).result(cell(), ignore)


def test_another_machines_sequential_latents_are_refused(tmp_path: Path) -> None:
    SubjectMeasurer(subject(), opened(tmp_path), SOLVERS).result(cell(), ignore)
    with pytest.raises(MixError, match="makes other latents of mixture than it did when this bench was begun"):
        SubjectMeasurer(subject(offset=1e-6), opened(tmp_path), SOLVERS).result(cell("paradigms"), ignore)


def test_other_settings_are_refused_with_what_differs_and_a_remedy(tmp_path: Path) -> None:
    opened(tmp_path)
    opened(tmp_path)
    with pytest.raises(MixError) as caught:
        opened(tmp_path, sampling={"steps": 30}, batch=2)
    assert "\n    batch: 1 there, 2 now\n    sampling.steps: 50 there, 30 now\n" in str(caught.value)
    assert "Choose another folder with --out" in str(caught.value)


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match=r"has other files in it, and no bench\.json"):
        BenchFolder.open(tmp_path, SETTINGS)


@pytest.mark.parametrize("spoilt", [b"", b"{}", b"[]", b'{"cell": {"problem": 1}, "samples": []}'])
def test_a_spoilt_record_is_named(tmp_path: Path, spoilt: bytes) -> None:
    folder = opened(tmp_path)
    SubjectMeasurer(subject(), folder, SOLVERS).result(cell(), ignore)
    (path,) = (folder.path / "cells").iterdir()
    path.write_bytes(spoilt)
    with pytest.raises(StoreError, match=path.name):
        SubjectMeasurer(subject(), folder, SOLVERS).result(cell(), ignore)


def test_a_spoilt_reference_is_named(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    SubjectMeasurer(subject(), folder, SOLVERS).result(cell(), ignore)
    (folder.path / "references" / "mixture-0001.safetensors").write_bytes(b"no")
    with pytest.raises(StoreError, match=r"mixture-0001\.safetensors: cannot be read as latents"):
        SubjectMeasurer(subject(), folder, SOLVERS).result(cell(tolerance=0.2), ignore)


def test_newer_code_of_a_solver_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SubjectMeasurer(subject(), opened(tmp_path), SOLVERS).result(cell(), ignore)
    monkeypatch.setattr("genrun.runner.bench.measure.code_of", lambda kind: "newer")
    _, is_new = SubjectMeasurer(subject(), opened(tmp_path), SOLVERS).result(cell(), ignore)
    assert is_new


def test_progress_counts_cells_and_knows_the_rest(tmp_path: Path) -> None:
    asked = ask_problem("mixture", 2, 0, 12)
    plan = SweepPlan(asked, parse_solvers("paradigms,ropa", SOLVERS), (2, 4), {"": (0.1, 0.2)})
    folder, display = BenchFolder.open(tmp_path / "bench", asked.settings), Display()
    results = measure(plan, folder, SOLVERS, display)
    assert len(results) == plan.total == 8
    last = display.shown[-1]
    assert (last.total, last.done, last.failed, last.made, display.closed) == (8, 8, 0, 8, True)
    assert {round(part, 2) for progress in display.shown for part in progress.in_work} == {0.5, 1.0}
    again = Display()
    assert measure(plan, folder, SOLVERS, again) == results
    assert again.shown[-1].made == 0


def test_time_left_is_told_at_the_pace_of_what_was_measured() -> None:
    display, times = Display(), iter([0.0, 30.0, 40.0])
    meter = Meter(display, 4, clock=lambda: next(times))
    meter.count(result(0.02, 10), is_new=True)
    assert progress_line(display.shown[-1]) == "1/4 done, 0:00:30 elapsed, about 0:01:30 left"
    meter.count(result(0.02, 10), is_new=False)
    assert progress_line(display.shown[-1]) == "2/4 done, 0:00:40 elapsed, about 0:01:20 left"


def test_settings_of_closed_forms_say_what_decides_their_numbers() -> None:
    settings = ask_problem("linear", 2, 5, None).settings
    assert (settings["steps"], settings["samples"]) == (50, {"count": 2, "seed": 5})
    assert json.loads(json.dumps(settings)) == settings
    with pytest.raises(GenrunError, match=r"there is no problem 'lineal'\. Did you mean 'linear'"):
        ask_problem("lineal", 2, 5, None)


def test_a_cache_is_compared_with_the_same_solver_without_it() -> None:
    from genrun.runner.bench.outputs import CACHE_COLUMNS, cache_rows, result_rows
    from genrun.runner.bench.results import PointResult, SampleResult
    from genrun.runner.bench.sweep import SweepPoint

    def result(kind: str, blocks: float, rmse: float, cache: dict[str, Any], error: str = "") -> PointResult:
        samples = () if error else (SampleResult(10, 40, 0, "tolerance", (), rmse, None, blocks),)
        return PointResult(SweepPoint("p", kind, kind, 8, None, {}, cache), "", 50, samples, error)

    cache = {"kind": "toca"}
    found = [
        result("ropa", 240, 0.02, {}),
        result("ropa", 120, 0.03, cache),
        result("sequential", 100, 0.01, cache),
        result("srds", 0, 0, cache, "CacheError: no"),
    ]
    rows = result_rows(found)
    assert [row["saved"] for row in rows] == [None, 2.0, 3.0, None]
    assert rows[1]["rmse_added"] == pytest.approx(0.01)
    assert rows[2]["rmse_added"] == pytest.approx(0.01)
    assert all(len(row) == len(CACHE_COLUMNS) for row in cache_rows(found))
