"""Certificates: settings of a solver that a calibration found to keep a tolerance, and the items that they are for.

    runs/.certificates/3f9c....json

A certificate holds for the cell that it was made on: the weights, what is called with what, the solver and K, the cache and
the kernel, and this version of genrun. Its file is named by a hash of all that, so that nobody can take it for another cell.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrun.adapters.files import MIB, TooLargeError, parse_json, read_bounded
from genrun.runner.errors import DamagedFileError
from genrun.runner.statistics import allowed_failures

FOLDER = ".certificates"
"""Folder of certificates, among the runs that they are for."""

FORMAT = 1
MAX_BYTES = 32 * MIB
"""Room for the errors of 100,000 samples under every setting that was tried."""

CERTIFIED, EXACT, AIM = "certified", "exact", "aim"
"""States of a tolerance: kept by a certified setting; kept since nothing but exact sampling was certified; aimed at."""

MAX_SAMPLES = 1_000_000_000
"""More than could be measured; as a bound, so that a count is no number too large to reckon with."""

KEY_DIGITS = 20
AGAIN = "Remove it, and run genrun calibrate JOB again."


@dataclass(frozen=True)
class Certificate:
    """A setting that keeps a tolerance for new items of one cell.

    Attributes:
        tolerance: latent RMSE to the sequential sampler's, in standard deviations of its latents.
        confidence: probability with which a new item is within it, over calibration and item together.
        samples: n, items that it was certified with.
        failures: how many of them were beyond the tolerance, under this setting or a more careful one.
        solver: kind and every option of the setting.
        exact: True where nothing but exact sampling was certified.
        rounds: of the setting, mean over the items.
        prompts: hash of the prompts that items were drawn from.
        run: the calibration's run, relative to the folder of runs.
        errors: of the setting, sorted.
    """

    tolerance: float
    confidence: float
    samples: int
    failures: int
    solver: dict[str, Any]
    exact: bool
    rounds: float
    prompts: str
    run: str
    errors: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with the version of the format."""
        return {"format": FORMAT, **dataclasses.asdict(self), "errors": list(self.errors)}

    @classmethod
    def from_dict(cls, data: Any) -> Certificate:
        """Return the certificate of plain data; other keys are left out.

        Raises:
            ValueError: it is none.
        """
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError("no certificate of this version")
        try:
            found = cls(**{each.name: data[each.name] for each in dataclasses.fields(cls)})
        except KeyError as error:
            raise ValueError(f"it lacks {error}") from error
        numbers = (found.tolerance, found.confidence, found.rounds)
        fine = all(type(each) in (int, float) and 0 <= each < math.inf for each in numbers)
        fine &= type(found.samples) is int and type(found.failures) is int and type(found.exact) is bool
        fine &= type(found.prompts) is str and type(found.run) is str
        fine &= isinstance(found.solver, dict) and isinstance(found.solver.get("kind"), str)
        fine &= isinstance(found.errors, list) and all(type(each) in (int, float) for each in found.errors)
        if not fine:
            raise ValueError("a value of another type than it has")
        if not 0 <= found.failures <= found.samples <= MAX_SAMPLES:
            raise ValueError("so many samples, or failures among them, cannot be")
        return dataclasses.replace(found, errors=tuple(found.errors))


def can_be_calibrated(solver: Mapping[str, Any]) -> bool:
    """Return True for a solver that stops at a tolerance above 0: with `exact: true` alone, too."""
    tolerance = solver.get("tolerance")
    return isinstance(tolerance, int | float) and tolerance > 0


def key_of(cell: Mapping[str, Any], solver: Mapping[str, Any]) -> str:
    """Return the name of a certificate.

    Args:
        cell: what the items of a cell share besides their solver, as `plan.shared_by` returns it.
        solver: kind and every option, as the job asks for them.
    """
    from genrun.version import __version__

    asked = {"genrun": __version__, "format": FORMAT, "cell": cell, "solver": dict(solver)}
    text = json.dumps(asked, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:KEY_DIGITS]


def path_of(runs: Path, key: str) -> Path:
    """Return where a certificate lies."""
    return runs / FOLDER / f"{key}.json"


def find(runs: Path, key: str) -> Certificate | None:
    """Return the certificate of a key, or None where there is none.

    Raises:
        DamagedFileError: there is one, but it cannot be read.
    """
    path = path_of(runs, key)
    try:
        return Certificate.from_dict(parse_json(read_bounded(path, MAX_BYTES)))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, TooLargeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DamagedFileError(f"{path}: is no certificate: {reason}.", remedy=AGAIN) from error


def _unfit(found: Certificate, solver: Mapping[str, Any]) -> str:
    """Return why a certificate cannot be of a solver, although its file has the name for it; or ""."""
    from genrun.runner.job.options import Registries, typed

    for key in ("kind", "workers"):
        if found.solver.get(key) != solver.get(key):
            return f"its {key} is {found.solver.get(key)!r:.60}, and wanted is {solver.get(key)!r:.60}"
    if found.tolerance != solver["tolerance"] or not 0 < found.confidence < 1 or found.samples < 1:
        return "its promise is another than that of its name"
    if found.exact is not (found.solver.get("tolerance") == 0):
        whether = "exact" if found.exact else "not exact"
        return f"its tolerance is {found.solver.get('tolerance')!r:.60}, and its items are called {whether}"
    if found.failures > allowed_failures(found.samples, found.confidence) and not found.exact:
        return f"{found.failures} of {found.samples} samples failed, which is too many for its confidence"
    if sum(not error <= found.tolerance for error in found.errors) > found.failures:
        return f"more of its errors are beyond its tolerance than the {found.failures} samples that failed"
    options = {name: value for name, value in found.solver.items() if name != "kind"}
    wrong = typed(Registries.installed().solvers.get(str(solver["kind"])), options)[1]
    missing = ", ".join(sorted(solver.keys() - found.solver.keys()))
    return wrong or (f"its solver lacks {missing}" if missing else "")


def hash_of(prompts: Sequence[str]) -> str:
    """Return what identifies a set of prompts."""
    return hashlib.sha256("\0".join(sorted({*prompts})).encode("utf-8", "surrogatepass")).hexdigest()[:KEY_DIGITS]


def settle(
    runs: Path, key: str, solver: Mapping[str, Any], confidence: float | None, prompts: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the setting that a cell runs, and what is promised of it: {} where nothing was asked for or found.

    Args:
        runs: the folder of runs, with its certificates.
        key: of the cell and its solver.
        solver: kind and every option, as the job asks for them.
        confidence: as the job asks for it; 0 to run what is written, None to take a certificate where there is one.
        prompts: hash of the job's prompts.

    Raises:
        DamagedFileError: there is a certificate, but it cannot be read.
    """
    plain = dict(solver)
    if confidence == 0 or not can_be_calibrated(solver):
        return plain, {}
    found = find(runs, key)
    asked = {"tolerance": solver["tolerance"], "confidence": confidence}
    if found is not None and (wrong := _unfit(found, solver)):
        path = path_of(runs, key)
        raise DamagedFileError(f"{path}: is no certificate: {wrong}.", remedy=AGAIN)
    if found is None or found.confidence < (confidence or 0.0):
        return plain, {} if confidence is None else {"state": AIM, **asked}
    promise = {
        "state": EXACT if found.exact else CERTIFIED,
        "tolerance": found.tolerance,
        "confidence": found.confidence,
        "samples": found.samples,
        "certificate": key,
    }
    return dict(found.solver), promise if found.prompts == prompts else {**promise, "other_prompts": True}


def sentence(kind: str, promise: Mapping[str, Any]) -> str:
    """Say what is promised of a cell's items."""
    tolerance, confidence = promise["tolerance"], 100 * (promise.get("confidence") or 0)
    if promise["state"] == AIM:
        return (
            f"{kind}: tolerance {tolerance:g} is an aim and not a promise, since nothing was calibrated for this model, "
            "sampling and K; genrun calibrate JOB does that"
        )
    if promise["state"] == EXACT:
        return (
            f"{kind}: no faster setting was certified to keep {tolerance:g} for {confidence:g} % of new items with "
            f"{promise['samples']} samples, so that items are sampled exactly"
        )
    others = "; it was calibrated on other prompts, so that this holds as far as these are like them"
    return (
        f"{kind}: calibrated with {promise['samples']} samples; the error of a new item is within {tolerance:g} with "
        f"probability {confidence:g} %, over calibration and item together{others if promise.get('other_prompts') else ''}"
    )
