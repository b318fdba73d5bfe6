"""What a calibrated tolerance is worth: calibrate with 20 samples in every cell, then look at 100 fresh ones.

The certificates come from the code of `genrun calibrate`. Of n samples of which none may fail, a certified setting keeps the
tolerance for a share of new items that follows Beta(n, 1) at worst: the mean over cells is n / (n + 1), and single cells
scatter about it. A picture sets the measured shares beside that law. Every cell is kept in a file, and is not made again.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genrun.runner.api.calibrating import PILOTS
from genrun.runner.api.candidates import (
    GRID,
    MeasuredSetting,
    chain_around,
    failures_along,
    fastest_kept,
    most_promising,
    pays,
    variants,
)
from genrun.runner.statistics import allowed_failures
from genrun.solvers import registry
from genrun.solvers.contract import Solution
from genrun.solvers.sequential import Sequential

from .models import MODELS
from .sampling import Sampler, rmse

SAMPLES, FRESH, CONFIDENCE = 20, 100, 0.95
REPORTED = tuple(name for name, model in MODELS.items() if not model.tuned)
STEPS, GUIDANCE, WORKERS = (50, 28, 20, 100), (5.0, 1.0, 12.0, 3.0, 7.5), (1, 8, 4)


def cover(
    models: Sequence[str],
    steps: Sequence[int],
    guidance: Sequence[float],
    workers: Sequence[int],
    root: Path,
    out: Path,
    tolerance: float = 0.05,
    kind: str = "collocation",
    until: float = float("inf"),
    hindsight: bool = False,
) -> None:
    """Measure every cell that has no file yet, until the clock says `until` (seconds since the epoch).

    With `hindsight`, other settings than the certified one are made with the fresh samples too.
    """
    for count in steps:
        for scale in guidance:
            for name in models:
                left = [k for k in workers if not _file(out, name, count, scale, k, tolerance, kind).exists()]
                if left and time.time() < until:
                    _cells(name, count, scale, left, root, out, tolerance, kind, until, hindsight)


def _cells(
    name: str,
    steps: int,
    scale: float,
    workers: Sequence[int],
    root: Path,
    out: Path,
    tolerance: float,
    kind: str,
    until: float,
    hindsight: bool,
) -> None:
    sampler = Sampler(name, root, steps, scale)
    pairs = sampler.draw(PILOTS + SAMPLES + FRESH, seed=hash_of(name, steps, scale))
    references = sampler.sample(pairs, Sequential())
    for k in workers:
        if time.time() >= until:
            return
        started = time.monotonic()

        def measure(settings: Sequence[dict[str, Any]], chosen: slice) -> list[MeasuredSetting]:
            return [
                _measured(each, sampler.sample(pairs[chosen], _solver(each)), references[chosen]) for each in settings
            ]

        asked = _settings(kind, k, tolerance)
        pilot = measure(list(variants(asked, [tolerance * share for share in GRID])), slice(PILOTS))
        chain: list[MeasuredSetting] = []
        failures: list[int] = []
        for setting in chain_around(most_promising(pilot, tolerance)):
            chain += measure([setting], slice(PILOTS, PILOTS + SAMPLES))
            failures = failures_along([each.errors for each in chain], tolerance)
            if failures[-1] > allowed_failures(SAMPLES, CONFIDENCE):
                break  # and so does every looser one
        place = fastest_kept(chain, failures, CONFIDENCE)
        if place is not None and not pays(chain[place], steps, is_accelerated=False):
            place = None
        # Hindsight: of the job's own setting and the chain's, the fastest that kept what was promised. From the certified
        # one it is looked for among looser ones until one does not keep it, and where the certified one does not either,
        # among the more careful ones until one does.
        certified = chain[0] if place is None else chain[place]
        around = chain_around(most_promising(pilot, tolerance))
        at = next(number for number, each in enumerate(around) if each == certified.solver)
        fresh, plain = measure([certified.solver, asked], slice(PILOTS + SAMPLES, None))
        tried = [plain, fresh]
        looser = share_of(fresh, tolerance) >= CONFIDENCE
        others = around[at + 1 :] if looser else around[:at][::-1]
        for other in others if hindsight else []:
            tried += [plain] if other == asked else measure([other], slice(PILOTS + SAMPLES, None))
            if (share_of(tried[-1], tolerance) >= CONFIDENCE) is not looser:
                break
        good = [each for each in tried if share_of(each, tolerance) >= CONFIDENCE]
        best = min((each.mean_rounds for each in good), default=float(steps))
        cell = {
            "model": name,
            "steps": steps,
            "guidance": scale,
            "workers": k,
            "kind": kind,
            "tolerance": tolerance,
            "setting": None if place is None else chain[place].solver,
            "within": None if place is None else share_of(fresh, tolerance),
            "errors": [] if place is None else list(fresh.errors),
            "rounds": float(steps) if place is None else fresh.mean_rounds,
            "hindsight_rounds": min(best, float(steps)),
            "others_tried": hindsight,
            "uncalibrated": {"within": share_of(plain, tolerance), "rounds": plain.mean_rounds},
            "seconds": time.monotonic() - started,
        }
        path = _file(out, name, steps, scale, k, tolerance, kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(cell, indent=1))
        print(line_of(cell), flush=True)


def _settings(kind: str, workers: int, tolerance: float) -> dict[str, Any]:
    return {"kind": kind, **vars(registry.get(kind)(workers=workers, tolerance=tolerance))}


def _solver(setting: dict[str, Any]) -> Any:
    return registry.get(setting["kind"])(**{key: value for key, value in setting.items() if key != "kind"})


def _measured(setting: dict[str, Any], found: Sequence[Solution], references: Sequence[Solution]) -> MeasuredSetting:
    errors = tuple(rmse(one.x, other.x) for one, other in zip(found, references, strict=True))
    return MeasuredSetting(setting, errors, tuple(each.rounds for each in found))


def share_of(measured: MeasuredSetting, tolerance: float) -> float:
    """Share of items within a tolerance."""
    return sum(error <= tolerance for error in measured.errors) / len(measured.errors)


def hash_of(*of: object) -> int:
    """A seed that depends on what a cell is, and on nothing else."""
    import zlib

    return zlib.crc32(repr(of).encode())


def _file(out: Path, name: str, steps: int, scale: float, workers: int, tolerance: float, kind: str) -> Path:
    return out / name / f"{kind}-{tolerance:g}-N{steps}-g{scale:g}-K{workers}.json"


def line_of(cell: dict[str, Any]) -> str:
    """A cell in a line."""
    within = "exact    " if cell["within"] is None else f"{100 * cell['within']:5.0f} %  "
    plain, setting = cell["uncalibrated"], cell["setting"] or {}
    return (
        f"{cell['model']:10} N {cell['steps']:3} guidance {cell['guidance']:4g} K {cell['workers']}  within {within}"
        f"rounds {cell['rounds']:5.1f} (hindsight {cell['hindsight_rounds']:5.1f})  without calibration "
        f"{100 * plain['within']:3.0f} % in {plain['rounds']:5.1f}  "
        f"tolerance {setting.get('tolerance', 0):g} probes {setting.get('probes')}  {cell['seconds']:.0f} s"
    )


def cells_in(out: Path) -> Iterator[dict[str, Any]]:
    """Every cell that was measured."""
    return (json.loads(path.read_text()) for path in sorted(out.glob("*/*.json")))


def summarize(out: Path, picture: Path | None = None) -> None:
    """Print what the cells say, cell by cell and model by model, and draw the shares beside the law of such calibrations."""
    cells = list(cells_in(out))
    for name in dict.fromkeys(cell["model"] for cell in cells):
        own = [cell for cell in cells if cell["model"] == name]
        print(*_table(name, own), "", sep="\n")
        certified = [cell["within"] for cell in own if cell["within"] is not None]
        mean = f"{100 * statistics.fmean(certified):.1f} %" if certified else "-"
        plain = ", ".join(
            f"K = {k} {100 * statistics.fmean(kept):.0f} % (least {100 * min(kept):.0f} %)"
            for k in sorted({cell["workers"] for cell in own})
            if (kept := [cell["uncalibrated"]["within"] for cell in own if cell["workers"] == k])
        )
        # What missed its tolerance in hindsight was too fast, and makes up for nothing.
        dear = [max(cell["rounds"] / cell["hindsight_rounds"], 1.0) - 1 for cell in own]
        print(
            f"{name}: {len(own)} cells, {len(certified)} certified: {mean} within on average, least "
            f"{100 * min(certified, default=0):.0f} %; {100 * statistics.fmean(dear):.1f} % more rounds than the best in "
            f"hindsight, at most 5 % more in {sum(each <= 0.05 for each in dear)} cells; "
            f"without calibration within: {plain}\n"
        )
    shares = [cell["within"] for cell in cells if cell["within"] is not None]
    law = _law()
    for least in (0.95, 0.9, 0.85, 0.8):
        below = sum(share < least for share in shares)
        print(f"below {least:.0%}: {below} of {len(shares)} cells; by the law {len(shares) * np.mean(law < least):.1f}")
    if picture is not None:
        _draw(shares, picture)


def _table(name: str, cells: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of a table: a row for N and guidance scale, a column for K."""
    workers = sorted({cell["workers"] for cell in cells})
    yield f"| {name} | " + " | ".join(f"K = {k}" for k in workers) + " |"
    yield "|---|" + "---|" * len(workers)
    for steps, scale in sorted({(cell["steps"], cell["guidance"]) for cell in cells}):
        row = {cell["workers"]: cell for cell in cells if (cell["steps"], cell["guidance"]) == (steps, scale)}
        yield f"| N = {steps}, {scale:g} | " + " | ".join(_entry(row[k]) if k in row else "" for k in workers) + " |"


def _entry(cell: dict[str, Any]) -> str:
    plain = f"{100 * cell['uncalibrated']['within']:.0f} %, {cell['uncalibrated']['rounds']:.1f}"
    within = "exact" if cell["within"] is None else f"{100 * cell['within']:.0f} %"
    return f"{within}, {cell['rounds']:.1f} ({cell['hindsight_rounds']:.1f}); {plain}"


def _law() -> Any:
    """Return shares, sorted, as the law has them at worst: Beta(n, 1), of which 100 fresh items show binomial noise."""
    rng = np.random.default_rng(0)
    return np.sort(rng.binomial(FRESH, rng.beta(SAMPLES, 1, size=100_000)) / FRESH)


def _draw(shares: Sequence[float], picture: Path) -> None:
    from matplotlib.figure import Figure

    law = _law()
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(law, np.linspace(0, 1, len(law)), color="0.5", label=f"law of {SAMPLES} samples, worst case")
    axes.step(np.sort(shares), np.arange(1, len(shares) + 1) / len(shares), where="post", label=f"{len(shares)} cells")
    axes.axvline(CONFIDENCE, color="0.8", linewidth=1)
    axes.set(xlabel=f"share of {FRESH} fresh items within the tolerance", ylabel="share of cells", xlim=(0.6, 1.01))
    axes.legend(frameon=False)
    figure.savefig(picture, dpi=120)
