"""Calibration: what is promised holds for new items, whatever settings are like; its file, and jobs that take it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrun.adapters.input_files import InputFile
from genrun.runner.api.calibrating import Calibration, _targets, calibrate_tolerance, draw
from genrun.runner.api.candidates import (
    CHAIN,
    MeasuredSetting,
    chain_around,
    failures_along,
    fastest_kept,
    pays,
    variants,
)
from genrun.runner.api.jobs import load_job, plan
from genrun.runner.compare.difference import metric_difference
from genrun.runner.compare.gates import gates_of, judge
from genrun.runner.compare.matching import ComparedItem, Match
from genrun.runner.errors import DamagedFileError, UsageError
from genrun.runner.job import certificates, nearest
from genrun.runner.job.certificates import Certificate
from genrun.runner.job.errors import JobFileError
from genrun.runner.report.sections.gates import collect_promises
from genrun.runner.statistics import allowed_failures, exact_interval, fewest_items, items_without_failure, least_share
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.records import Record, Score
from genrun.runner.store.runs import new_path
from genrun.runner.submit.resume import rebuild
from tests.fakes.certificates import certify

JOB = {"model": "demo-image", "prompts": ["a", "b"], "solver": {"kind": "collocation", "workers": 8, "tolerance": 0.05}}


def test_the_numbers_of_the_promise_are_those_of_the_literature() -> None:
    assert fewest_items(0.95) == 19 and items_without_failure(0.95) == 59
    assert [allowed_failures(n, 0.95) for n in (18, 19, 20, 38, 39, 59)] == [-1, 0, 0, 0, 1, 2]
    assert exact_interval(20, 20) == pytest.approx((0.8316, 1.0), abs=1e-4)
    assert least_share(20, 20) == pytest.approx(0.05 ** (1 / 20))
    assert least_share(0, 20) == 0.0


@pytest.mark.parametrize("kind", ["independent", "nested"])
def test_a_new_item_is_within_with_the_probability_promised(kind: str) -> None:
    # Settings that fail 1 to 30 % of items: in pure chance, or where a looser one fails all that a more careful one fails.
    rng, rates, inside, exact = np.random.default_rng(0), np.linspace(0.01, 0.3, 7), 0, 0
    for _ in range(4000):
        luck = rng.random((7, 21)) if kind == "independent" else np.broadcast_to(rng.random(21), (7, 21))
        errors = np.where(luck < rates[:, None], 1.0, 0.0)
        found = [MeasuredSetting({"k": k}, tuple(row[:20]), (10 - k,) * 20) for k, row in enumerate(errors)]
        place = fastest_kept(found, failures_along([each.errors for each in found], 0.5), 0.95)
        exact += place is None
        inside += place is None or errors[place, 20] <= 0.5
    assert inside / 4000 >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / 4000)
    assert exact < 4000


@pytest.mark.parametrize("rates", [(0.0501, 0.1001), (0.0701, 0.1201)])
def test_what_is_said_of_the_very_setting_is_false_once_in_twenty_at_most(rates: tuple[float, float]) -> None:
    # Settings that fail a little more often than is said where none, and where two of 59 failed: the worst there is.
    rng, said_wrongly = np.random.default_rng(0), 0
    for _ in range(4000):
        errors = (rng.random(59) < np.array(rates)[:, None]).astype(float)
        found = [MeasuredSetting({"kind": "ropa", "k": k}, tuple(row), (2 - k,) * 59) for k, row in enumerate(errors)]
        failures = failures_along([each.errors for each in found], 0.5)
        if (place := fastest_kept(found, failures, 0.95)) is None:
            continue
        subject = {"cell": {}, "solver": {"kind": "ropa"}}
        taken = Certificate(subject, 0.5, 0.95, 59, failures[place], found[place].solver, False, 1, "", "")
        (said,) = [line for line in Calibration("", Path(), 9, taken, (), ()).lines() if "this very setting" in line]
        said_wrongly += 1 - rates[place] < int(said.partition("at least ")[2].partition(" %")[0]) / 100
    assert said_wrongly / 4000 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 4000)


def test_the_fastest_of_the_certified_settings_is_taken_and_nan_fails() -> None:
    found = [
        MeasuredSetting({"k": k}, errors, (rounds,) * 2)
        for k, (errors, rounds) in enumerate(
            [((0.01, 0.02), 9), ((0.02, 0.03), 7), ((0.03, 0.04), 8), ((0.01, float("nan")), 3)]
        )
    ]
    failures = failures_along([each.errors for each in found], 0.05)
    assert failures == [0, 0, 0, 1]
    assert fastest_kept(found, failures, 0.5) == 1


def test_a_setting_of_as_many_rounds_as_steps_pays_only_where_its_rounds_are_cheaper() -> None:
    fast, slow = (MeasuredSetting({}, (0.01,) * 2, (rounds,) * 2) for rounds in (9, 10))
    assert pays(fast, 10, is_accelerated=False) and not pays(slow, 10, is_accelerated=False)
    assert pays(slow, 10, is_accelerated=True)


def test_settings_vary_what_the_job_leaves_open() -> None:
    asked = {"kind": "collocation", "workers": 8, "tolerance": 0.05, "spacing": None, "probes": None, "exact": False}
    asked["max_rounds"] = None
    found = list(variants(asked, [0.1, 0.05]))
    assert {each["probes"] for each in found} == {None, 1, 3, 5} and len(found) == 8
    assert {each["probes"] for each in variants({**asked, "probes": 2}, [0.1])} == {2}
    chain = [each["tolerance"] for each in chain_around(found[0])]
    assert chain == sorted(chain) and chain[:2] == [0.003, 0.0125]
    # One worker alone takes all of the rounds at so small a tolerance.
    assert chain_around({**asked, "workers": 1})[0]["tolerance"] == float(f"{0.05 * CHAIN[0]:.3g}")


def test_items_are_drawn_from_the_jobs_own_and_then_with_new_seeds() -> None:
    cell = load_job({**JOB, "seeds": [3, 4]}).cells[0]
    own = {(text, None, seed, ()) for text in "ab" for seed in (3, 4)}
    assert set(draw(cell, 4, "key")) == own and draw(cell, 4, "key") == draw(cell, 4, "key")
    more = draw(cell, 30, "key")
    assert draw(cell, 20, "key") == more[:20]
    assert set(more[:4]) == own and len(set(more)) == 30 and {text for text, *_ in more} == {"a", "b"}
    # As items say it: the job's own negative prompt where a prompt has none.
    prompts = ["a", {"prompt": "b", "negative_prompt": "c"}]
    cell = load_job({**JOB, "prompts": prompts, "sampling": {"negative_prompt": "d"}}).cells[0]
    assert {(text, negative) for text, negative, *_ in draw(cell, 9, "key")} == {("a", "d"), ("b", "c")}


def test_items_are_drawn_with_their_pictures_and_without_a_sampling_of_their_own(tmp_path: Path) -> None:
    from genrun.runner.api.calibrating import _write_prompts

    cell = load_job({**JOB, "prompts": ["a", "b", {"prompt": "c", "steps": 4}]}).cells[0]
    start, end = (InputFile(tmp_path / name, name[0] * 64, ".png", 8, 8, 1) for name in ("a.png", "b.png"))
    cell = replace(cell, inputs=({"image": (start,)}, {"image": (start, end)}, {}))
    drawn = draw(cell, 9, "key")
    assert {(text, files) for text, _, _, files in drawn} == {
        ("a", (("image", (start,)),)),
        ("b", (("image", (start, end)),)),
    }
    rows = [json.loads(line) for line in _write_prompts(tmp_path, "key", drawn).read_text().splitlines()]
    named = {"a": str(start.path), "b": [str(start.path), str(end.path)]}
    assert all(row["image"] == named[row["prompt"]] for row in rows) and len(rows) == 9
    own = load_job({**JOB, "prompts": [{"prompt": "c", "steps": 4}]}).cells[0]
    with pytest.raises(UsageError, match="every prompt has a sampling of its own"):
        draw(own, 3, "key")


@pytest.mark.parametrize("cache", ["none", {"kind": "first_block", "threshold": 0.1}])
def test_a_calibration_holds_items_like_the_jobs_against_plain_sequential_ones(tmp_path: Path, cache: Any) -> None:
    from genrun.runner.api.calibrating import _document, _write_prompts

    job = {**JOB, "sampling": {"negative_prompt": "no $${braces}"}, "cache": cache, "output": {"dir": str(tmp_path)}}
    loaded = load_job(job)
    (target,) = _targets(loaded)
    key, cell = target.key, target.cell
    drawn = draw(cell, 3, key)
    asked = {"kind": "collocation", **cell.job.solver.options}
    document = _document(loaded, cell, _write_prompts(tmp_path, key, drawn), [asked, {**asked, "tolerance": 0.1}])
    items, own = plan(load_job(document)), plan(loaded)
    references = {item.pair for item in items if item.is_reference}
    assert len(items) == 9 and {item.pair for item in items} == references and len(references) == 3
    assert {item.id for item in own} <= {item.id for item in items}
    assert {(item.prompt, item.negative_prompt, item.seed) for item in items} == {each[:3] for each in drawn}
    assert {item.negative_prompt for item in items} == {"no ${braces}"}


def _certified(folder: Path, **changes: Any) -> Path:
    """Write the certificate of JOB; return its file."""
    loaded = load_job({**JOB, "output": {"dir": str(folder)}})
    solver = {"kind": "collocation", **loaded.cells[0].job.solver.options, "tolerance": 0.035, "probes": 1}
    return certify(folder, loaded, **{"solver": solver, "errors": (0.01, 0.04), **changes})


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({}, True),
        ({"seeds": [5]}, True),
        ({"prompts": ["c"]}, True),
        ({"prompts": ["a", {"prompt": "b", "negative_prompt": "c"}]}, True),
        # A prompt with the steps of the certificate, but with a negative prompt that it was not made with.
        ({"prompts": [{"prompt": "a", "steps": 50}], "sampling": {"steps": 20, "negative_prompt": "c"}}, False),
        ({"solver": {**JOB["solver"], "confidence": 0.9}}, True),
        ({"solver": {**JOB["solver"], "confidence": 0.99}}, False),
        ({"solver": {**JOB["solver"], "confidence": 0}}, False),
        ({"solver": {**JOB["solver"], "workers": 4}}, False),
        ({"solver": {**JOB["solver"], "tolerance": 0.04}}, False),
        ({"sampling": {"steps": 20}}, False),
        ({"cache": "first_block"}, False),
    ],
)
def test_a_job_takes_the_certificate_of_its_own_model_sampling_and_solver(
    tmp_path: Path, changes: dict[str, Any], taken: bool
) -> None:
    _certified(tmp_path)
    item = plan(load_job({**JOB, "output": {"dir": str(tmp_path)}, **changes}))[0]
    assert (item.solver["tolerance"] == 0.035) is taken is (item.promise.get("state") == certificates.CERTIFIED)
    assert item.fits()
    assert item.promise.get("other_prompts", False) is (taken and "prompts" in changes)


def test_a_plan_is_written_again_also_where_its_tolerance_was_calibrated_since(tmp_path: Path) -> None:
    loaded = load_job({**JOB, "output": {"dir": str(tmp_path)}})
    items = plan(loaded)
    folder = RunFolder.create(new_path(tmp_path, "job"), loaded.document, items)
    _certified(tmp_path)
    path = folder.path / "plan.jsonl"
    path.write_text(path.read_text().splitlines()[0] + "\n{")
    (note,) = rebuild(folder)
    assert "Written again from the job" in note and [item.id for item in folder.items()] == [item.id for item in items]


def test_what_was_not_certified_is_sampled_exactly_and_an_aim_is_called_one(tmp_path: Path) -> None:
    job = {**JOB, "solver": {**JOB["solver"], "confidence": 0.95}, "output": {"dir": str(tmp_path)}}
    (aim,) = {json.dumps(item.promise) for item in plan(load_job(job))}
    assert "an aim and not a promise" in certificates.sentence("collocation", json.loads(aim))
    exact = {**plan(load_job(job))[0].solver, "tolerance": 0.0}
    _certified(tmp_path, exact=True, solver=exact)
    item = plan(load_job(job))[0]
    assert item.solver["tolerance"] == 0 and "sampled exactly" in certificates.sentence("collocation", item.promise)


def test_exact_items_have_not_the_cache_that_missed_the_tolerance(tmp_path: Path) -> None:
    # A cache errs at tolerance 0, too: that nothing faster was certified made no promise of it.
    job = {**JOB, "cache": {"kind": "first_block", "threshold": 2.0}, "output": {"dir": str(tmp_path)}}
    loaded = load_job(job)
    solver = {"kind": "collocation", **loaded.cells[0].job.solver.options, "tolerance": 0.0}
    certify(tmp_path, loaded, exact=True, solver=solver)
    items = plan(load_job(job))
    assert all(item.promise["state"] == certificates.EXACT and item.solver["tolerance"] == 0 for item in items)
    assert all(item.cache == {} and item.fits() for item in items)
    assert certificates.sentence("collocation", items[0].promise).endswith("sampled exactly, without the cache")


def test_cells_that_certificates_make_alike_are_made_once_and_those_that_a_job_writes_alike_are_refused(
    tmp_path: Path,
) -> None:
    tolerances = [{**JOB["solver"], "tolerance": tolerance} for tolerance in (0.05, 0.1)]
    job = {**JOB, "matrix": {"solver": tolerances}, "audit": 1, "output": {"dir": str(tmp_path)}}
    del job["solver"]
    loaded = load_job(job)
    assert len(plan(loaded)) == 5 and not nearest.alike(loaded, plan(loaded))
    solver = {"kind": "collocation", **loaded.cells[0].job.solver.options, "tolerance": 0.07}
    certify(tmp_path, loaded, solver=solver, errors=())
    items = plan(loaded)
    assert len(items) == 3 and {item.promise.get("tolerance", 0) for item in items} == {0, 0.05}
    (line,) = nearest.alike(loaded, items)
    assert line.startswith("solver=collocation K=8 tolerance=0.1: its items are those of an earlier cell")
    with pytest.raises(JobFileError, match="make the same items"):
        plan(load_job({**job, "matrix": {"solver": [tolerances[0], {**tolerances[0], "spacing": None}]}}))


def test_the_certificate_of_ten_thousand_samples_can_be_read(tmp_path: Path) -> None:
    errors = [0.05 * k / 10_007 for k in range(10_000)]
    path = _certified(tmp_path, samples=10_000, errors=tuple(errors))
    tried = [{"errors": errors}] * len(CHAIN)
    path.write_bytes(certificates.Certificate.from_file(path.read_bytes()).to_file(tried=tried))
    assert plan(load_job({**JOB, "output": {"dir": str(tmp_path)}}))[0].promise["samples"] == 10_000


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        # Each of these holds for a certificate of some solver: only the checksum, or the name, tells.
        (lambda text: text.replace('"tolerance": 0.035', '"tolerance": 0.07'), "it was changed since it was written"),
        (lambda text: text.replace("0.04", "0.03"), "it was changed since it was written"),
        (lambda text: text.replace('"samples": 20', '"samples": 72'), "it was changed since it was written"),
        (lambda text: json.dumps({**json.loads(text), "errors": []}), "it was changed since it was written"),
        (lambda text: json.dumps({**json.loads(text), "tried": [1]}), "it was changed since it was written"),
        (lambda text: json.dumps({**json.loads(text), "format": 2}), "its format is 2, and .* reads 1"),
        # As versions before the checksum wrote it.
        (lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "sha256"}), "it has no sha256"),
        (lambda text: text[: len(text) // 2], "line .* column"),
        (lambda text: json.dumps(json.loads(text)).replace("0.04", "NaN"), "holds NaN"),
    ],
)
def test_a_certificate_that_was_changed_is_named_and_not_believed(tmp_path: Path, edit: Any, why: str) -> None:
    path = _certified(tmp_path)
    path.write_text(edit(path.read_text()))
    with pytest.raises(DamagedFileError, match=f"{path.name}: is no certificate: .*{why}") as caught:
        plan(load_job({**JOB, "output": {"dir": str(tmp_path)}}))
    assert "genrun calibrate JOB" in caught.value.remedy


def test_a_certificate_under_the_name_of_another_is_refused_and_one_that_is_written_anew_is_not(tmp_path: Path) -> None:
    path = _certified(tmp_path)
    job = {**JOB, "output": {"dir": str(tmp_path)}}
    path.write_text(json.dumps(json.loads(path.read_text())))
    assert plan(load_job(job))[0].promise["state"] == certificates.CERTIFIED
    others = load_job({**job, "sampling": {"steps": 20}})
    (other,) = _targets(others)
    shutil.copy(path, certificates.path_of(tmp_path, other.key))
    with pytest.raises(DamagedFileError, match=f"{other.key}.json: is no certificate: it is the one of {path.stem}"):
        plan(others)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"format": 1}', '{"format": 2}', "[" * 100_000])
def test_a_damaged_certificate_is_named_and_not_believed(tmp_path: Path, content: str) -> None:
    path = _certified(tmp_path)
    path.write_text(content)
    with pytest.raises(DamagedFileError, match=path.name):
        plan(load_job({**JOB, "output": {"dir": str(tmp_path)}}))


@pytest.mark.parametrize(
    "changes",
    [
        {"tolerance": 0.5},
        {"confidence": 1},
        {"samples": 0},
        {"exact": True},
        {"failures": 1},
        {"solver": {"kind": "collocation", "workers": 8, "tolerance": 0.0}},
        {"solver": {"kind": "ropa", "workers": 8}},
        {"solver": {"kind": "collocation", "workers": 4}},
        {"solver": {"kind": "collocation", "workers": 8, "probes": "many"}},
        {"solver": {"kind": "collocation", "workers": 8, "probes": 9}},
        {"solver": {"kind": "collocation", "workers": 8, "tolerance": 0.035}},
        {"confidence": 0},
        {"confidence": 10**400},
        {"samples": 10**400},
        {"failures": -1},
        {"errors": (0.01, 0.06)},
        {"solver": {"kind": "collocation", "workers": 8, "weights": "x"}},
    ],
)
def test_a_certificate_of_something_else_is_refused_before_anything_is_loaded(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    path = _certified(tmp_path, **changes)
    with pytest.raises(DamagedFileError, match=path.name):
        plan(load_job({**JOB, "output": {"dir": str(tmp_path)}}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"solver": {"kind": "sequential", "confidence": 0.95}}, "sequential has no tolerance to keep"),
        ({"solver": {"kind": "ropa", "confidence": 1}}, "solver.confidence"),
        ({"cache": {"kind": "first_block", "confidence": 0.9}}, "unknown option"),
        ({"audit": 0}, "wanted a whole number"),
        ({"audit": "101%"}, "at most 100%"),
        ({"audit": float("inf")}, "wanted a number"),
        ({"audit": float("nan")}, "wanted a number"),
        ({"audit": 1, "solver": "sequential"}, "audit: no solver of this job has a tolerance"),
        ({"gates": {"audit": {"min": "95%"}}}, "audits nothing"),
        ({"audit": 1, "gates": {"audit": {"min": 2}}}, "could not pass"),
    ],
)
def test_a_confidence_or_an_audit_that_cannot_be_meant_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(JobFileError, match=message):
        plan(load_job({**JOB, **change}))


def test_every_cell_is_looked_at_before_the_first_is_sampled(tmp_path: Path) -> None:
    solver = [{"kind": "collocation", "tolerance": 0.05, "confidence": 0.5}, {"kind": "ropa", "tolerance": 0.05}]
    job = {**JOB, "solver": {}, "matrix": {"solver": solver}, "output": {"dir": str(tmp_path)}}
    with pytest.raises(UsageError, match="ropa: 3 samples say nothing of 95 %"):
        calibrate_tolerance({key: value for key, value in job.items() if value}, samples=3)
    assert not list(tmp_path.iterdir())


def test_a_confidence_that_no_number_of_samples_reaches_is_told_with_a_smaller_one() -> None:
    with pytest.raises(UsageError, match=r"20 samples say nothing of 99\.999999 % of new items") as caught:
        calibrate_tolerance(JOB, confidence=0.99999999)
    assert caught.value.remedy == "Ask for a smaller confidence, such as 0.99."


def test_an_audit_adds_the_sequential_items_of_those_it_drew() -> None:
    prompts = [f"prompt {k}" for k in range(40)]
    solver = [{"kind": "ropa", "workers": 4}, {"kind": "collocation", "workers": 4}]
    alone = plan(load_job({**JOB, "prompts": prompts, "audit": "5%"}))
    both = plan(load_job({**JOB, "prompts": prompts, "audit": 2, "matrix": {"solver": solver}}))
    whole = plan(load_job({**JOB, "prompts": prompts, "audit": 2, "matrix": {"solver": ["sequential", *solver]}}))
    for items, count in ((alone, 42), (both, 82), (whole, 120)):
        drawn = [item for item in items if item.audit and not item.is_reference]
        held_against = {item.pair for item in items if item.audit and item.is_reference}
        assert len(items) == count and {item.pair for item in drawn} == held_against and len(held_against) == 2
        assert all(item.fits() for item in items) and len({item.id for item in items}) == count
    assert {tuple(item.axes.values()) for item in alone} == {("collocation",), ("sequential",)}
    # Whether it is audited changes no item.
    plain = {item.id for item in plan(load_job({**JOB, "prompts": prompts}))}
    assert plain == {item.id for item in alone if not item.is_reference}


def test_a_report_says_which_items_of_a_cell_are_promised_and_what_an_audit_found(tmp_path: Path) -> None:
    _certified(tmp_path)
    solver = {**JOB["solver"], "confidence": 0.95}
    prompts = ["a", *({"prompt": f"b {k}", "steps": 20} for k in range(29))]
    items = plan(load_job({**JOB, "solver": solver, "prompts": prompts, "audit": 20, "output": {"dir": str(tmp_path)}}))
    audited = [item for item in items if item.audit and not item.is_reference]
    scores = [Score(item.id, "latent_rmse", 0.04, False, None) for item in audited]
    (row,) = collect_promises(items, scores, {})
    assert not row.kept and row.text.startswith("1 of 30 items: collocation: calibrated with 20 samples")
    assert "29 of 30 items: collocation: tolerance 0.05 is an aim and not a promise" in row.text
    assert row.audit.startswith(
        "20 of 30 items were also sampled sequentially, 20 of them within 0.05: between 83 and 100 %"
    )
    assert row.errors is not None and len(row.errors.series[0].marks) == 20
    (whole,) = collect_promises([item for item in items if item.prompt == "a"], (), {})
    assert whole.kept and whole.text.startswith("collocation: calibrated")


@pytest.mark.parametrize(
    ("within", "unscored", "state"), [(20, 0, "passed"), (18, 0, "passed"), (14, 0, "failed"), (19, 1, "incomplete")]
)
def test_a_gate_on_an_audit_fails_when_its_exact_interval_lies_below(within: int, unscored: int, state: str) -> None:
    prompts = [f"prompt {k}" for k in range(30)]
    items = plan(load_job({**JOB, "prompts": prompts, "audit": 20}))
    errors = iter([0.04] * within + [0.06] * (20 - within - unscored))
    compared = []
    for item in (each for each in items if not each.is_reference):
        error = next(errors, None) if item.audit else None
        score = Score(item.id, "latent_rmse", error, False, None if error else "no latents")
        compared.append(
            ComparedItem(item, Record(item.id, "done"), {"latent_rmse": score}, None, RunFolder(Path("run")))
        )
    found = metric_difference("audit", True, Match("collocation", (), tuple(compared)), [], 0.95)
    (gate,) = gates_of({"gates": {"audit": {"min": "95%"}}})
    assert judge(gate, found).state == state
    assert (found.own.low, found.own.high) == exact_interval(within, 20 - unscored)
