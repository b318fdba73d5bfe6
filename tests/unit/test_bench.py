"""What a bench measures and how a sweep is read: options, interpolation, tables, and which code a result belongs to."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from genrun.runner.bench.outputs import PARETO_COLUMNS, RESULT_COLUMNS, as_csv, as_json, pareto_row, result_row
from genrun.runner.bench.results import PointResult, code_of_module, crossing, crossings
from genrun.runner.bench.sweep import SweepPoint, parse_solvers, parse_tolerances, parse_workers, sweep, with_caches
from genrun.runner.errors import GenrunError
from genrun.runner.job.options import Registries
from tests.fakes.bench import result

registry = Registries.installed().solvers


FALLING = ((0.005, 20.0), (0.02, 12.0), (0.08, 8.0))
"""Error x 4 from point to point, in the order of the tolerance."""


@pytest.mark.parametrize(("target", "rounds"), [(0.005, 20.0), (0.01, 16.0), (0.02, 12.0), (0.04, 10.0), (0.08, 8.0)])
def test_rounds_at_an_error_are_linear_in_its_logarithm(target: float, rounds: float) -> None:
    assert crossing(FALLING, target) == (pytest.approx(rounds), False)


def test_an_error_below_the_sweep_is_not_reached_and_never_extrapolated() -> None:
    assert crossing(FALLING, 0.004) == (None, False)
    assert crossing(FALLING[2:], 0.05) == (None, False)
    assert crossing((), 0.05) == (None, False)


def test_a_sweep_that_is_better_than_the_error_throughout_gives_a_bound() -> None:
    assert crossing(FALLING, 0.2) == (8.0, True)
    assert crossing(FALLING[:1], 0.05) == (20.0, True)


def test_an_error_of_zero_has_no_logarithm_so_its_rounds_are_a_bound() -> None:
    assert crossing(((0.0, 50.0), (0.03, 10.0)), 0.01) == (50.0, True)


def test_of_several_crossings_the_fewest_rounds_count() -> None:
    wavy = ((0.01, 20.0), (0.04, 16.0), (0.01, 12.0), (0.04, 8.0))
    assert crossing(wavy, 0.02) == (pytest.approx(10.0), False)
    assert crossing(((0.02, 9.0), (0.02, 8.0)), 0.02) == (8.0, False)


def test_crossings_follow_each_sweep_by_its_tolerance_and_leave_refused_cells_out() -> None:
    refused = PointResult(result(1, 1, 0.07).cell, "0", 50, (), error="refused: no")
    cells = [result(0.08, 8, 0.4), result(0.005, 20, 0.1), refused, result(0.02, 12, 0.2)]
    one, *others = crossings([*cells, result(0.03, 9, None, solver="other")])
    assert (one.solver, one.error, one.state) == ("ropa", 0.01, "reached")
    assert one.rounds == pytest.approx(16)
    assert one.speedup == pytest.approx(50 / 16)
    assert [(each.solver, each.state) for each in others[2:]] == [
        ("other", "not reached"),
        ("other", "not reached"),
        ("other", "at most"),
    ]


def test_a_result_is_summed_up_by_its_samples() -> None:
    found = result(0.02, 10, elapsed_s=4.0, calls=20, evaluation_s=0.1)
    assert (found.rounds, found.nfe, found.speedup) == (10, 60, 5)
    assert (found.rmse, found.rmse_median, found.rmse_max) == (pytest.approx(0.02), pytest.approx(0.02), 0.03)
    assert found.worst_block == 0.04
    assert found.round_ratio == pytest.approx(2)
    assert PointResult.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_tables_have_a_number_or_an_empty_cell_in_every_column() -> None:
    refused = PointResult(result(1, 1).cell, "0", 50, (), error='refused: "workers", say')
    cells = [result(0.02, 10, elapsed_s=4.0, calls=20, evaluation_s=0.1), refused]
    rows = list(csv.DictReader(io.StringIO(as_csv(RESULT_COLUMNS, map(result_row, cells)).decode())))
    assert tuple(rows[0]) == RESULT_COLUMNS
    assert float(rows[0]["rmse_mean"]) == pytest.approx(0.02)
    assert (rows[0]["rounds"], rows[0]["speedup"], rows[0]["error"]) == ("10.0", "5.0", "")
    assert (rows[1]["rounds"], rows[1]["samples"], rows[1]["error"]) == ("", "0", 'refused: "workers", say')
    found = crossings(cells)
    lines = list(csv.DictReader(io.StringIO(as_csv(PARETO_COLUMNS, map(pareto_row, found)).decode())))
    assert [line["state"] for line in lines] == ["not reached", "at most", "at most"]
    whole = json.loads(as_json({"steps": 50}, cells, found))
    assert whole["cells"][0]["by_sample"][0]["fronts"] == [10, 50]
    assert whole["pareto"][1]["rounds"] == 10


def cells(solvers: str, workers: str = "1,8", *tolerances: str) -> list[SweepPoint]:
    variants = parse_solvers(solvers, registry)
    return list(sweep("demo", variants, parse_workers(workers), parse_tolerances(tolerances, variants)))


def test_a_sweep_is_factors_of_each_solvers_own_tolerance() -> None:
    found = cells("paradigms,ropa", "8")
    default = registry.get("paradigms")().tolerance
    mine = [cell.tolerance for cell in found if cell.solver == "paradigms"]
    assert mine == pytest.approx([default * factor for factor in (0.125, 0.25, 0.5, 1, 2, 4)], rel=0.01)
    assert all(cell.options["tolerance"] == cell.tolerance and cell.options["workers"] == 8 for cell in found)
    assert all(registry.get(cell.kind)(**cell.options).workers == 8 for cell in found)


def test_all_solvers_are_swept_but_the_reference() -> None:
    assert {cell.kind for cell in cells("all")} == set(registry.names()) - {"sequential"}
    assert cells("sequential") == []


def test_a_solver_without_workers_or_tolerance_is_one_point() -> None:
    class Registry:
        def names(self) -> tuple[str, ...]:
            return ("plain",)

        def get(self, name: str) -> Any:
            return registry.get("sequential")

    variants = parse_solvers("plain", Registry())
    (cell,) = sweep("demo", variants, (2, 4), {})
    assert (cell.workers, cell.tolerance, dict(cell.options)) == (1, None, {})


def test_tolerances_are_for_all_solvers_or_for_one() -> None:
    found = cells("paradigms,ropa", "8", "0.1,0.02", "ropa=0.3")
    assert [(cell.kind, cell.tolerance) for cell in found] == [("paradigms", 0.02), ("paradigms", 0.1), ("ropa", 0.3)]


def test_options_of_a_solver_make_a_variant_of_it() -> None:
    found = cells("ropa,ropa:warmup=2", "8", "0.1")
    assert [cell.solver for cell in found] == ["ropa", "ropa warmup=2"]
    assert [cell.options["warmup"] for cell in found] == [registry.get("ropa")().warmup, 2]


def test_all_that_is_wrong_with_options_is_told_at_once() -> None:
    with pytest.raises(GenrunError) as caught:
        cells("ropa:warmpu=2:warmup=-1:max_rounds=0,parataa:history=x,srds")
    lines = str(caught.value).splitlines()
    assert [re.sub(r"^--solvers (.*?:).*? solver\.(\w+): .*", r"\1\2", line) for line in lines] == [
        "parataa:history",
        "ropa:max_rounds",
        "ropa:warmpu",
        "ropa:warmup",
    ]
    with pytest.raises(GenrunError) as caught:
        with_caches((), ["first_block:threshold=-1", "first_block:treshold=1"], Registries.installed().caches)
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("solvers", "workers", "tolerances", "message"),
    [
        ("rope", "8", (), "--solvers rope: there is no solver 'rope'. Did you mean 'ropa'?"),
        ("ropa:warmpu=2", "8", (), "unknown option. Did you mean 'warmup'?"),
        ("ropa:warmup=x", "8", (), "--solvers ropa:warmup=x: solver.warmup: wanted a whole number, got 'x'"),
        ("ropa:warmup", "8", (), "wanted NAME:OPTION=VALUE"),
        ("ropa:tolerance=1", "8", (), "tolerance is swept"),
        ("ropa,ropa", "8", (), "ropa is given twice"),
        (" , ", "8", (), "names no solver"),
        ("ropa", "0,2", (), "--workers 0,2: wanted whole numbers"),
        ("ropa", "²", (), "wanted whole numbers"),
        ("ropa", "8", ("x",), "wanted numbers that are finite and not negative"),
        ("ropa", "8", ("nan",), "wanted numbers that are finite and not negative"),
        ("ropa", "8", ("0.1", "0.2"), "all solvers given twice"),
        ("ropa", "8", ("paradigms=0.1",), "there is no solver of this bench 'paradigms'"),
    ],
)
def test_what_cannot_be_meant_is_refused(solvers: str, workers: str, tolerances: tuple[str, ...], message: str) -> None:
    with pytest.raises(GenrunError) as caught:
        cells(solvers, workers, *tolerances)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


def test_code_of_a_solver_is_its_module_and_what_that_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "bench_sample"
    package.mkdir()
    texts = {
        "__init__": "",
        "mine": "from bench_sample.shared import step\nimport math",
        "shared": "from . import deep",
        "deep": "",
        "other": "",
    }
    for name, text in texts.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    before = code_of_module("bench_sample.mine")
    assert code_of_module("bench_sample.mine") == before
    (package / "other.py").write_text("changed = 1")
    assert code_of_module("bench_sample.mine") == before
    for name in ("deep", "shared", "mine"):
        (package / f"{name}.py").write_text(texts[name] + "\nchanged = 1")
        after = code_of_module("bench_sample.mine")
        assert after != before
        before = after
    for name in [each for each in sys.modules if each.startswith("bench_sample")]:
        monkeypatch.delitem(sys.modules, name)
