"""The tables: what is measured for each, and how it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrun.solvers import drive, registry
from genrun.solvers.analytic import WORLDS, evaluator
from genrun.solvers.sequential import Sequential
from tests.bench.papers import peers
from tests.bench.papers.measure import Lab, Measured, Setting
from tests.bench.zoo.sampling import rmse

OPTIONS = Mapping[str, Any]
STEP: OPTIONS = {"scale": "step"}
"""The unit of Turbo's, ParaSolver's and ParaDiGMS's tolerances."""
EPSILON = "unet-eps"
"""The model in place of Stable Diffusion 2: the zoo's Stable Diffusion, epsilon-prediction."""


@dataclass(frozen=True)
class Asked:
    """What the command line asks for.

    Attributes:
        lab: the models.
        samples: of each setting; a quarter of them with 1000 steps, twice as many in ROPA's tables 1 and 2.
        clone: of ParaSolver's repository, or None.
    """

    lab: Lab
    samples: int
    clone: Path | None


def turbo_ddpm(asked: Asked) -> str:
    """Turbo's table 1 with DDPM and 1000 steps."""
    setting = Setting(EPSILON, 1000, 7.5, max(1, asked.samples // 4), "DDPMScheduler")
    rows = [
        ("ParaDiGMS, .5", "65 / 2024", "paradigms", {"workers": 32, "tolerance": 0.5}),
        ("ParaSolver, .55", "32 / 1065", "parasolver", {"workers": 32, "tolerance": 0.55}),
        ("ParaSolver-Turbo, .5", "32 / 195", "parasolver-turbo", turbo(8, 0.5, 100)),
    ]
    measured = [
        (name, paper, asked.lab.measure(setting, kind, **STEP, **options)) for name, paper, kind, options in rows
    ]
    return compared(measured, setting)


def turbo_ddim(asked: Asked) -> str:
    """Turbo's table 1 with DDIM and DPM-Solver, 50 and 25 steps, and its authors' and ParaDiGMS's own code beside."""
    paper = {
        ("DDIMScheduler", 50): ("21 / 132", "13 / 83", "13 / 73"),
        ("DDIMScheduler", 25): ("18 / 53", "11 / 49", "11 / 42"),
        ("DPMSolverMultistepScheduler", 50): ("25 / 132", "15 / 96", "14 / 93"),
        ("DPMSolverMultistepScheduler", 25): ("15 / 81", "11 / 58", "10 / 55"),
    }
    parts = []
    for (scheduler, steps), theirs in paper.items():
        setting = Setting(EPSILON, steps, 7.5, asked.samples, scheduler)
        rows = [
            ("ParaDiGMS, .01", theirs[0], asked.lab.measure(setting, "paradigms", workers=8, tolerance=0.01, **STEP)),
            ("ParaSolver, .05", theirs[1], asked.lab.measure(setting, "parasolver", workers=8, tolerance=0.05, **STEP)),
        ]
        if scheduler == "DDIMScheduler":
            rows.insert(1, ("... its authors' code, in diffusers", "", peers.paradigms(asked.lab, setting, 8, 0.01)))
            if asked.clone is not None:
                own = peers.parasolver(asked.lab, setting, asked.clone, 8, 0.05)
                rows.append(("... its authors' code, from GitHub", "", own))
        found = asked.lab.measure(setting, "parasolver-turbo", **STEP, **turbo(8, 0.03, steps))
        rows.append(("ParaSolver-Turbo, .03", theirs[2], found))
        parts.append(compared(rows, setting, f"{scheduler.removesuffix('Scheduler')}, N = {steps}: "))
    return "\n\n".join(parts)


def turbo_rho(asked: Asked) -> str:
    """Turbo's table 4: the number of evaluated states, 50 steps of DPM-Solver, whose first order is DDIM."""
    paper = {
        5: "18 / 82",
        10: "12 / 101",
        15: "11 / 123",
        20: "12 / 160",
        25: "12 / 202",
        30: "12 / 223",
        35: "12 / 245",
        40: "12 / 264",
        45: "12 / 275",
        50: "12 / 284",
    }
    setting = Setting(EPSILON, 50, 7.5, asked.samples)
    rows = [
        (f"rho {rho}", theirs, asked.lab.measure(setting, "parasolver-turbo", **STEP, **turbo(rho, 0.03, 50)))
        for rho, theirs in paper.items()
    ]
    return compared(rows, setting)


def turbo(rho: int, tolerance: float, window: int) -> OPTIONS:
    """The options of the paper's own call."""
    return {"workers": rho, "tolerance": tolerance, "window": max(rho, window), "mode": "skip", "warmup": 1}


def compared(rows: Sequence[tuple[str, str, Measured]], setting: Setting, title: str = "") -> str:
    """A table of rounds / NFE beside the paper's, with the deviation of the rounds."""
    lines = [
        f"{title}{_said(setting)}; rounds / NFE.",
        "",
        "| | the paper | ours | rounds | latent RMSE |",
        "|---|---|---|---|---|",
    ]
    for name, paper, found in rows:
        off = f"{100 * (found.rounds / float(paper.split(' / ')[0]) - 1):+.0f} %" if paper else ""
        lines.append(f"| {name} | {paper} | {found} | {off} | {found.error:.3f} |")
    return "\n".join(lines)


METHODS = (
    ("ParaDiGMS", "paradigms", (0.01, 0.05, 0.2)),
    ("ParaTAA", "parataa", (0.01, 0.05, 0.2)),
    ("ParaSolver", "parasolver", (0.01, 0.05, 0.2)),
    ("CHORDS", "chords", (0.02, 0.1, 0.5)),
    ("ParaSolver-Turbo", "parasolver-turbo", (0.01, 0.04, 0.12)),
    ("ROPA", "ropa", (0.01, 0.04, 0.12)),
    ("`collocation` (ours), not calibrated", "collocation", (0.01, 0.03, 0.1, 0.3)),
)
"""Names, kinds, and tolerances in each solver's own default unit, on both sides of the error that is read off."""
PUBLISHED = {
    "ParaDiGMS": ("1.2 / 1.3 / 1.4 at .19 / .18 / .19", "1.4 / 1.3 / 1.5 at .44 / .35 / .34"),
    "ParaTAA": ("1.2 / 1.8 / 2.4 at .055", ""),
    "ParaSolver": ("1.3 / 1.8 / 2.3 at .051 / .049 / .052", "1.5 / 1.1 / 1.8 at .23 / .29 / .32"),
    "CHORDS": ("1.3 / 2.0 / 2.4 at .19 / .18 / .19", ""),
    "ROPA": ("1.6 / 2.1 / 2.9 at .054 / .053 / .055", "1.6 / 1.8 / 2.0 at .14 / .22 / .22"),
}
"""ROPA's tables 1 and 2: speedups of HunyuanVideo and SD3.5-Large with K = 2 / 4 / 8, and the latent RMSE of each."""
MODELS = ("video-dit", "dit-flow")
ERROR = 0.02
"""At 0.05 every window of neighbouring steps moves by all of its states a round on these models: methods are alike."""


def ropa(asked: Asked) -> str:
    """ROPA's tables 1 and 2: speedup at equal error."""
    found: dict[tuple[str, str], str] = {}
    samples = 2 * asked.samples  # of which one that takes another way weighs less
    for model in MODELS:
        setting = Setting(model, 50, 5.0, samples)
        for name, kind, tolerances in METHODS:
            cells = [asked.lab.speedup(setting, kind, tolerances, ERROR, {"workers": k}) for k in (2, 4, 8)]
            found[name, model] = " / ".join(cells)
    lines = [
        f"K = 2 / 4 / 8, N = 50, guidance 5, {samples} samples of each; ours at a mean latent RMSE of {ERROR}.",
        "",
        "| | HunyuanVideo, the paper | `video-dit` | SD3.5-Large, the paper | `dit-flow` |",
        "|---|---|---|---|---|",
    ]
    for name, _, _ in METHODS:
        video, image = PUBLISHED.get(name, ("", ""))
        lines.append(f"| {name} | {video} | {found[name, 'video-dit']} | {image} | {found[name, 'dit-flow']} |")
    return "\n".join(lines)


OFF: OPTIONS = {"adaptive_bandwidth": False, "damping": False, "curvature": False}
PARTS: Sequence[tuple[str, float, OPTIONS]] = (
    ("none of them: the sweep", 1.0, OFF),
    ("... at 0.4 of the tolerance", 0.4, OFF),
    ("... at 2.5 of the tolerance", 2.5, OFF),
    ("adaptive bandwidth", 1.0, {**OFF, "adaptive_bandwidth": True}),
    ("... from w = 1, the text's", 1.0, {**OFF, "adaptive_bandwidth": True, "initial_width": 1, "max_width": 8}),
    ("damping from 0 or .001, the text's", 1.0, {**OFF, "damping": True, "initial_damping": 1e-3}),
    ("damping from .3", 1.0, {**OFF, "damping": True, "initial_damping": 0.3}),
    ("... for each state", 1.0, {**OFF, "damping": True, "initial_damping": 0.3, "damping_scope": "state"}),
    ("damping until a step is < .3, the text's", 1.0, {**OFF, "damping": True, "damping_rule": "step"}),
    ("curvature, by secants", 1.0, {**OFF, "curvature": True}),
    ("curvature, eq. (15), the text's", 1.0, {**OFF, "curvature": True, "curvature_rule": "score"}),
    ("all, as shipped", 1.0, {}),
)
"""Name, share of the tolerance, options."""
PLACES: Sequence[tuple[str, float, int]] = (
    ("video-dit", 5.0, 8),
    ("dit-flow", 5.0, 8),
    ("dit-flow", 12.0, 16),
    (EPSILON, 5.0, 16),
)
"""Model, guidance and K of a column."""


def ropa_parts(asked: Asked) -> str:
    """ROPA's table 3 part by part, in the unit of the latent RMSE, and on a stiff problem."""
    columns: list[tuple[str, float, Callable[[OPTIONS], Measured]]] = []
    for model, guidance, workers in PLACES:
        setting = Setting(model, 50, guidance, asked.samples)

        def on_model(options: OPTIONS, at: Setting = setting, k: int = workers) -> Measured:
            return asked.lab.measure(at, "ropa", workers=k, **options)

        columns.append((f"`{model}`, guidance {guidance:g}, K = {workers}", 0.01, on_model))
    columns.append(
        ("stiff Gaussian, K = 8", 0.005, lambda options: _on_stiff({"workers": 8, **options}, 4 * asked.samples))
    )
    cells: dict[str, list[str]] = {name: [] for name, _, _ in PARTS}
    for _, tolerance, measure in columns:
        for name, share, part in PARTS:
            found = measure({"tolerance": share * tolerance, "scale": "rmse", **part})
            cells[name].append(f"{found.rounds:.1f} at {found.error:.3f}")
    lines = [
        f"N = 50, {asked.samples} samples of each model, tolerance .01 (.005 on the Gaussian); rounds at latent RMSE.",
        "",
        f"| | {' | '.join(title for title, _, _ in columns)} |",
        f"|---|{'---|' * len(columns)}",
        *(f"| {name} | {' | '.join(each)} |" for name, each in cells.items()),
    ]
    return "\n".join(lines)


def _on_stiff(options: OPTIONS, samples: int) -> Measured:
    """Measure `ropa` on the closed-form problem that is stiff at small noise levels."""
    world, found = WORLDS["stiff"], []
    for seed in range(samples):
        problem = world.problem(50, seed=seed)
        evaluate = evaluator(problem, world.denoiser())
        solution = drive(registry.get("ropa")(**options), problem, evaluate)
        error = rmse(solution.x, drive(Sequential(), problem, evaluate).x)
        found.append((solution.rounds, solution.nfe, error))
    return Measured(*(sum(each) / samples for each in zip(*found, strict=True)))


def _said(setting: Setting) -> str:
    samples = f"{setting.samples} sample{'s' if setting.samples > 1 else ''}"
    return f"`{setting.model}`, guidance {setting.guidance:g}, {samples}"


TABLES: Mapping[str, Callable[[Asked], str]] = {
    "turbo-rho": turbo_rho,
    "turbo-ddim": turbo_ddim,
    "ropa-parts": ropa_parts,
    "ropa": ropa,
    "turbo-ddpm": turbo_ddpm,
}
"""Name of a table in the page -> what measures it; the longest last."""
