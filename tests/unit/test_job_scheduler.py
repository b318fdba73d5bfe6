"""Schedulers of a job, before anything is loaded: grids with a step too many, and predictions of another kind."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrun.adapters.scheduler.compatibility import Description, grid_problem, mismatch, trailing_steps
from genrun.runner.job.checkpoint import Checkpoint
from genrun.runner.job.checks.scheduler import (
    own_scheduler,
    read_class,
    scheduler_names,
    scheduler_problems,
    steps_problem,
)
from genrun.runner.job.errors import Origin
from genrun.runner.job.tree import dress
from tests.fakes.jobs import problems_of
from tests.tiny.checkpoints import save
from tests.tiny.loops import MATRIX

# Diffusers' own, on numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")

# Untyped on purpose: its exports are lazy.
df: Any = import_module("diffusers")

EPSILON = {"_class_name": "DDIMScheduler", "beta_schedule": "linear"}
V = {**EPSILON, "prediction_type": "v_prediction"}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
UNIPC_FLOW = {
    "_class_name": "UniPCMultistepScheduler",
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
    "flow_shift": 5.0,
}
TRAILING = {**V, "timestep_spacing": "trailing"}


def folder_of(tmp_path: Path, config: Any) -> Checkpoint:
    path = tmp_path / "scheduler" / "scheduler_config.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    return Checkpoint(str(tmp_path), tmp_path)


def found(checkpoint: Checkpoint, revision: str | None = None, **sampling: Any) -> list[str]:
    root = dress({"sampling": sampling}, Origin("job.yaml", 1, 1))
    problems = scheduler_problems(root, sampling, checkpoint, revision)
    return [f"{problem.path}: {problem.message}" for problem in problems]


def test_a_trailing_grid_is_as_long_as_numpy_makes_it() -> None:
    for trained in (1000, 999, 100, 50, 2000):
        for steps in range(1, trained + 1):
            assert trailing_steps(trained, steps) == len(np.arange(trained, 0, -trained / steps))
    assert sum(trailing_steps(1000, steps) != steps for steps in range(1, 1001)) == 62


@pytest.mark.parametrize("name", [name for name in scheduler_names() if (known := read_class(name)) and known.trailing])
def test_each_scheduler_makes_the_grid_that_is_foreseen(name: str) -> None:
    if importable(name) is None:
        return
    scheduler = getattr(df, name)(timestep_spacing="trailing")
    description = Description(name, dict(scheduler.config))
    every = name in ("DDIMScheduler", "CogVideoXDPMScheduler", "UniPCMultistepScheduler")
    for steps in range(1, 1001) if every else (10, 50, 60, 61, 62, 103, 104, 122):
        scheduler.set_timesteps(steps)
        assert bool((scheduler.timesteps < 0).any()) == (grid_problem(description, steps) is not None), steps


def importable(name: str) -> Any:
    """The class, or None where what it needs is not installed."""
    known = read_class(name)
    return None if known is None or "torchsde" in known.needs else getattr(df, name)


@pytest.mark.parametrize("name", MATRIX)
def test_the_numbers_of_steps_that_a_scheduler_raises_for_are_refused(name: str) -> None:
    for steps in (1, 3, 4, 50, 51, 1001):
        scheduler = MATRIX[name]()
        known = read_class(type(scheduler).__name__)
        assert known is not None
        config = {key: value for key, value in scheduler.config.items() if key in known.defaults}
        try:
            scheduler.set_timesteps(steps)
            raises = False
        except ValueError:
            raises = True
        wrong = steps_problem(Description(type(scheduler).__name__, config), {"steps": steps})
        assert (wrong is not None) == raises, (steps, wrong)


def test_a_prompts_own_steps_are_checked_at_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = save("sd2", tmp_path)
    path = checkpoint / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "timestep_spacing": "trailing"}))
    prompts = [{"prompt": "a", "steps": 61}, {"prompt": "b", "steps": 60}, {"prompt": "c", "steps": 1001}]
    job = {"model": {"checkpoint": str(checkpoint)}, "prompts": prompts, "sampling": {"steps": 4}}
    first, last = problems_of(json.dumps(job))
    assert "prompts[0].steps: " in first and first.endswith("The nearest that work are 60 and 62.")
    assert "prompts[2].steps: " in last and last.endswith("Write steps: 1000, or fewer.")


@pytest.mark.parametrize("switch", ["use_karras_sigmas", "use_exponential_sigmas", "use_flow_sigmas"])
def test_grids_by_noise_level_have_no_step_too_many(switch: str) -> None:
    prediction = "flow_prediction" if switch == "use_flow_sigmas" else "epsilon"
    config = {"timestep_spacing": "trailing", switch: True, "prediction_type": prediction}
    scheduler = df.UniPCMultistepScheduler(**config)
    scheduler.set_timesteps(61)
    assert len(scheduler.timesteps) == 61
    assert bool((scheduler.timesteps >= 0).all())
    assert grid_problem(Description("UniPCMultistepScheduler", dict(scheduler.config)), 61) is None


@pytest.mark.parametrize(("steps", "near"), [(61, "60 and 62"), (121, "120 and 123"), (122, "120 and 123")])
def test_steps_that_do_not_fit_are_refused_with_the_nearest(tmp_path: Path, steps: int, near: str) -> None:
    message = f"DDIMScheduler with timestep_spacing: trailing makes {steps + 1} steps of {steps}, the last at t = -1, "
    message += f"which ruins the picture. The nearest that work are {near}."
    assert found(folder_of(tmp_path, TRAILING), steps=steps) == [f"sampling.steps: {message}"]
    below, above = near.split(" and ")
    assert not found(folder_of(tmp_path, TRAILING), steps=int(below))
    assert not found(folder_of(tmp_path, TRAILING), steps=int(above))


def test_the_grid_is_that_of_the_jobs_scheduler(tmp_path: Path) -> None:
    trailing, leading = folder_of(tmp_path, TRAILING), {"timestep_spacing": "leading"}
    assert not found(trailing, steps=61, scheduler={"kind": "DDIMScheduler", **leading})
    assert not found(trailing, steps=61, scheduler={"kind": "LCMScheduler", "original_inference_steps": 100})
    assert not found(trailing, steps=61, options={"timesteps": [999, 500, 1]})
    (inherited,) = found(trailing, steps=61, scheduler={"kind": "DPMSolverMultistepScheduler"})
    assert inherited.startswith("sampling.steps: DPMSolverMultistepScheduler with timestep_spacing: trailing")
    own = {"kind": "DDIMScheduler", "timestep_spacing": "trailing"}
    assert len(found(folder_of(tmp_path, V), steps=103, scheduler=own)) == 1


@pytest.mark.parametrize(
    ("config", "scheduler", "said"),
    [
        (
            FLOW,
            {"kind": "UniPCMultistepScheduler"},
            "kind: the checkpoint's FlowMatchEulerDiscreteScheduler says flow matching, flow_prediction, and "
            "UniPCMultistepScheduler as given here says diffusion, epsilon: the pictures would be noise. Write "
            "{kind: UniPCMultistepScheduler, prediction_type: flow_prediction, use_flow_sigmas: true, flow_shift: 3.0}.",
        ),
        (FLOW, {"kind": "EulerAncestralDiscreteScheduler"}, "Write {kind: FlowMatchEulerDiscreteScheduler}, or {kind"),
        (FLOW, {"kind": "UniPCMultistepScheduler", "prediction_type": "flow_prediction"}, "flow_shift: 3.0}."),
        (UNIPC_FLOW, {"kind": "DDIMScheduler"}, "flow_shift: 5.0}."),
        (
            UNIPC_FLOW,
            {"kind": "DPMSolverMultistepScheduler", "use_flow_sigmas": False},
            "use_flow_sigmas: the checkpoint",
        ),
        (V, {"kind": "DDIMScheduler", "prediction_type": "epsilon"}, "prediction_type: v_prediction}; or correct"),
        (EPSILON, {"kind": "EulerDiscreteScheduler", "prediction_type": "v_prediction"}, "prediction_type: epsilon}"),
        (EPSILON, {"kind": "FlowMatchEulerDiscreteScheduler"}, "or write {kind: DDIMScheduler}"),
        (EPSILON, {"kind": "EDMEulerScheduler"}, "says EDM, epsilon"),
        (EPSILON, {"kind": "SCMScheduler"}, "or write {kind: DDIMScheduler}"),
        (V, {"kind": "EulerDiscreteScheduler", "timestep_type": "continuous"}, "timestep_type: discrete}"),
        (V, {"kind": "DDIMInverseScheduler"}, "DDIMInverseScheduler turns pictures into noise."),
        ({**FLOW, "invert_sigmas": True}, {"kind": "UniPCMultistepScheduler", **UNIPC_FLOW}, "invert_sigmas"),
    ],
)
def test_a_scheduler_for_another_kind_of_model_is_refused(
    tmp_path: Path, config: dict[str, Any], scheduler: dict[str, Any], said: str
) -> None:
    scheduler = {key: value for key, value in scheduler.items() if key != "_class_name"}
    (message,) = found(folder_of(tmp_path, config), steps=20, scheduler=scheduler)
    assert said in message


@pytest.mark.parametrize(
    ("config", "scheduler"),
    [
        (V, {"kind": "DPMSolverMultistepScheduler"}),
        (V, {"kind": "PNDMScheduler"}),
        (EPSILON, {"kind": "EulerAncestralDiscreteScheduler"}),
        (FLOW, {"kind": "FlowMatchHeunDiscreteScheduler"}),
        (FLOW, {"kind": "FlowMatchEulerDiscreteScheduler", "shift": 7.0, "stochastic_sampling": True}),
        (FLOW, {"kind": "UniPCMultistepScheduler", "prediction_type": "flow_prediction", "use_flow_sigmas": True}),
        (UNIPC_FLOW, {"kind": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++"}),
        (UNIPC_FLOW, {"kind": "FlowMatchEulerDiscreteScheduler", "shift": 5.0}),
        ({**FLOW, "invert_sigmas": True}, {"kind": "FlowMatchEulerDiscreteScheduler", "shift": 2.0}),
    ],
)
def test_a_scheduler_that_inherits_or_names_the_right_kind_is_taken(
    tmp_path: Path, config: dict[str, Any], scheduler: dict[str, Any]
) -> None:
    assert not found(folder_of(tmp_path, config), steps=20, scheduler=scheduler)


def test_defaults_of_the_checkpoints_class_are_not_inherited(tmp_path: Path) -> None:
    """As `from_config` does it: only what the file says."""
    checkpoint = folder_of(tmp_path, {"_class_name": "CosineDPMSolverMultistepScheduler"})
    (message,) = found(checkpoint, steps=20, scheduler={"kind": "EDMDPMSolverMultistepScheduler"})
    assert "says EDM, v_prediction, and EDMDPMSolverMultistepScheduler as given here says EDM, epsilon" in message


def test_steps_that_no_solver_follows_are_refused(tmp_path: Path) -> None:
    checkpoint = folder_of(tmp_path, FLOW)
    given = {"kind": "FlowMatchLCMScheduler", "scale_factors": [0.5, 0.75]}
    (message,) = found(checkpoint, steps=3, scheduler=given)
    assert message.startswith(
        "sampling.scheduler.scale_factors: FlowMatchLCMScheduler with scale_factors changes the size"
    )
    (message,) = found(folder_of(tmp_path, {"_class_name": "AmusedScheduler"}), steps=12)
    assert message.startswith("model.checkpoint: AmusedScheduler samples tokens")
    assert message.endswith("call the pipeline without genrun.")


def test_what_to_write_is_taken(tmp_path: Path) -> None:
    """Every remedy that names a mapping, followed, is right."""
    import yaml

    checkpoint = folder_of(tmp_path, FLOW)
    for name in scheduler_names():
        wrong = found(checkpoint, steps=20, scheduler={"kind": name})
        for part in wrong[0].split("Write ")[1:] if wrong and "needs" not in wrong[0] else ():
            for text in part.rstrip(".").split("; or correct")[0].split(", or "):
                assert not found(checkpoint, steps=20, scheduler=yaml.safe_load(text)), (name, text)


def test_keys_that_a_scheduler_does_not_have_are_refused(tmp_path: Path) -> None:
    checkpoint = folder_of(tmp_path, EPSILON)
    given = {"kind": "DDIMScheduler", "timestep_spacng": "trailing"}
    (message,) = found(checkpoint, scheduler=given)
    assert message == "sampling.scheduler.timestep_spacng: unknown option. Did you mean 'timestep_spacing'?"
    (message,) = found(checkpoint, scheduler={"kind": "DDIMScheduler", "timestep_spacing": "trailling"})
    assert message == (
        "sampling.scheduler.timestep_spacing: must be one of leading, trailing, linspace, got 'trailling'."
    )


@pytest.mark.parametrize("text", ["", "[]", "{", '{"_class_name": 3}', '{"_class_name": "Nobody"}', '{"_class_name":'])
def test_a_config_that_says_nothing_refuses_nothing(tmp_path: Path, text: str) -> None:
    checkpoint = folder_of(tmp_path, text)
    assert own_scheduler(checkpoint, None) is None
    assert not found(checkpoint, steps=61, scheduler={"kind": "UniPCMultistepScheduler"})


def test_a_hub_id_is_looked_up_among_what_was_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--org--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots" / "abc").mkdir(parents=True)
    folder_of(repository / "snapshots" / "abc", TRAILING)
    hub = Checkpoint("org/name", None)
    assert len(found(hub, steps=61)) == 1
    assert len(found(hub, "abc", steps=61)) == 1
    assert not found(hub, "other", steps=61)
    assert not found(Checkpoint("org/other", None), steps=61)


def test_defaults_read_from_source_are_those_of_the_class() -> None:
    for make in MATRIX.values():
        if not isinstance(make, type):
            continue
        scheduler, known = make(), read_class(make.__name__)
        assert known is not None
        for key, default in known.defaults.items():
            if default is not None:
                assert scheduler.config[key] == default, (make.__name__, key)


def test_one_kind_has_no_mismatch() -> None:
    """Each class beside itself."""
    for name in scheduler_names():
        known = read_class(name)
        assert known is not None
        own = Description(name, known.defaults)
        assert mismatch(own, own) is None
