"""The sections `gates` and `nightly`: what they may say, and what is wrong with them, with its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from genrun.runner.compare import gates_of
from genrun.runner.job import load, restore
from tests.fakes.jobs import BASE, load_text, problems_of
from tests.fakes.registries import FakeMetric, FakeRegistry, fake_registries


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_gates_reach_the_stored_job_and_come_back() -> None:
    loaded = load_text(
        f"{BASE}gates: {{psnr: {{min: 30, max_drop: 0.5%}}, drift.ssim: {{min: 0.9}}, rounds: {{max: 12}}}}\n"
    )
    assert [gate.text for gate in gates_of(loaded.document)] == [
        "psnr min 30",
        "psnr max_drop 0.5%",
        "drift.ssim min 0.9",
        "rounds max 12",
    ]
    assert restore(loaded.document, {}, fake_registries()).gates == loaded.job.gates


def test_parts_of_a_metric_have_gates_whatever_their_direction() -> None:
    metrics = FakeRegistry({"vbench": FakeMetric(higher_is_better=True, compares=False)})
    Path("job.yaml").write_text(f"{BASE}score: [vbench]\ngates: {{vbench.quality: {{max_rise: 1, max_drop: 0.5%}}}}\n")
    loaded = load("job.yaml", (), {}, replace(fake_registries(), metrics=metrics))
    assert [gate.metric for gate in gates_of(loaded.document)] == ["vbench.quality"] * 2


def test_set_reaches_a_metric_whose_name_has_dots() -> None:
    loaded = load_text(BASE, "gates.drift.psnr.min=30", "gates.ssim={max_drop: 1%}")
    assert [gate.text for gate in gates_of(loaded.document)] == ["ssim max_drop 1%", "drift.psnr min 30"]


def test_gates_do_not_change_the_items() -> None:
    from genrun.runner.job.plan import plan

    assert plan(load_text(BASE)) == plan(load_text(f"{BASE}gates: {{psnr: {{min: 30}}}}\nnightly: {{keep: 3}}\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "gates: {psn: {min: 3}}",
            "3:9: gates.psn: there is no metric 'psn'. Did you mean 'psnr'? There are: psnr, ssim,",
        ),
        ("gates: {psnr: {mni: 3}}", "3:16: gates.psnr.mni: unknown option. Did you mean 'min'?"),
        ("gates: {psnr: 3}", "3:15: gates.psnr: wanted a mapping, got 3."),
        (
            "gates: {psnr: {}}",
            "3:9: gates.psnr: no limit. Write one of max, min, max_drop, max_rise, such as max: 0.06.",
        ),
        (
            "gates: {psnr: {min: high}}",
            "3:21: gates.psnr.min: wanted a number, or a percentage such as 0.5%, got 'high'.",
        ),
        ("gates: {psnr: {min: .nan}}", "3:21: gates.psnr.min: wanted a number, or a percentage such as 0.5%, got nan."),
        (
            "gates: {psnr: {min: true}}",
            "3:21: gates.psnr.min: wanted a number, or a percentage such as 0.5%, got true.",
        ),
        (
            "gates: {psnr: {max_drop: -1}}",
            "3:26: gates.psnr.max_drop: wanted at least 0, or a percentage such as 0.5%, got -1.",
        ),
        (
            "gates: {psnr: {max_rise: 1}}",
            "3:16: gates.psnr.max_rise: psnr is better when it is higher: this limits getting better. Write max_drop.",
        ),
        (
            "gates: {rounds: {max_drop: 1}}",
            "3:18: gates.rounds.max_drop: rounds is better when it is lower: this limits getting better. Write max_rise.",
        ),
        (
            "gates: {drift.psn: {min: 1}}",
            "3:9: gates.drift.psn: there is no metric of drift 'psn'. Did you mean 'psnr'? There are: psnr, ssim.",
        ),
        (
            "score: [ssim]\ngates: {psnr: {min: 1}}",
            "4:9: gates.psnr: psnr is not scored, so this would stay open for ever. Add it to `score`.",
        ),
        (
            "audit: 1\ngates: {audit: {max_drop: 5%}}",
            "4:17: gates.audit.max_drop: an audit has no baseline, so this would stay open for ever. Write min,",
        ),
        ("nightly: {basline: x}", "3:11: nightly.basline: unknown option. Did you mean 'baseline'?"),
        ("nightly: {at: 2am}", "3:15: nightly.at: wanted a time of the day in quotes such as \"02:00\", got '2am'."),
        ("nightly: {keep: 0}", "3:17: nightly.keep: wanted at least 1, got 0."),
        ("nightly: {notify: {}}", "3:19: nightly.notify.command: missing."),
        ("nightly: {notify: {command: []}}", "3:29: nightly.notify.command: wanted a list that is not empty,"),
        ("nightly: {notify: {comand: [x]}}", "3:20: nightly.notify.comand: unknown option. Did you mean 'command'?"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, message: str) -> None:
    assert any(line.startswith(f"job.yaml:{message}") for line in problems_of(f"{BASE}{text}\n"))


def test_a_gate_on_the_drift_of_latents_keeps_them() -> None:
    from genrun.runner.store.planfile import wants_latents

    assert wants_latents({"score": ["psnr"], "gates": {"drift.latent_rmse": {"max": 0.1}}})
    assert not wants_latents({"score": ["psnr"], "gates": {"drift.psnr": {"min": 30}}})
