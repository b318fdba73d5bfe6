"""Certificates: settings of a solver that a calibration found to keep a tolerance, and the items that they are for.

    runs/.certificates/3f9c....json

A certificate holds for its subject alone: the conditions that its items were made under, the solver and K, and the version
of genrun. Its file says all that, and is named by a hash of it; a checksum tells what was changed since it was written.

Conditions are all that the error of an item depends on besides its solver, words and seed. The prompts of a cell may have
several sets of them: those with a picture and those without, those with a negative prompt or a sampling of their own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.adapters.files import MIB, TooLargeError, read_bounded
from genrun.adapters.pipeline.additions import identity_of
from genrun.runner.errors import DamagedFileError
from genrun.runner.statistics import allowed_failures
from genrun.runner.strict_json import canonical, read_json

if TYPE_CHECKING:
    from genrun.runner.job.cell import Cell
    from genrun.runner.job.files import Inputs
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.job.prompt_files import Prompt

    Planned = list[tuple[WorkItem, Prompt]]
    """The items of a cell, each with the prompt that it comes from."""

FOLDER = ".certificates"
"""Folder of certificates, among the runs that they are for."""

ENDING = "-calibration"
"""What the name of a calibration's job ends with."""

FORMAT = 1
MAX_BYTES = 32 * MIB
"""Room for the errors of 100,000 samples under every setting that was tried."""

CERTIFIED, EXACT, AIM = "certified", "exact", "aim"
"""States of a tolerance: kept by a certified setting; kept since nothing but exact sampling was certified; aimed at."""

MAX_SAMPLES = 1_000_000_000
"""More than could be measured; as a bound, so that a count is no number too large to reckon with."""

KEY_DIGITS = 20
AGAIN = "Remove it, and run genrun calibrate JOB again."
CHECKSUM = "sha256"


@dataclass(frozen=True)
class Certificate:
    """A setting that keeps a tolerance for new items of its subject.

    Attributes:
        subject: all that its errors depend on, as `subject_of` returns it.
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

    subject: dict[str, Any]
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

    def to_file(self, **beside: Any) -> bytes:
        """Return the content of its file, with what else is to be kept in it, and with a checksum of all that."""
        content = {**self.to_dict(), **beside}
        return json.dumps({**content, CHECKSUM: _checksum(content)}, indent=1, allow_nan=False).encode("ascii")

    @classmethod
    def from_file(cls, content: bytes) -> Certificate:
        """Return the certificate of a file; what else is kept in it is left out.

        Raises:
            ValueError: it is none, or was changed since it was written.
            RecursionError: it is nested too deeply.
        """
        data = read_json(content)
        if not isinstance(data, dict):
            raise ValueError("it is no mapping")
        if (version := data.get("format")) != FORMAT:
            raise ValueError(f"its format is {version!r:.60}, and this version of genrun reads {FORMAT}")
        # The checksum is there against accidents. Whoever wants to deceive himself can reckon it anew.
        if CHECKSUM not in data:
            raise ValueError(f"it has no {CHECKSUM}, so that it cannot be told from a changed one")
        if data.pop(CHECKSUM) != _checksum(data):
            raise ValueError(f"it was changed since it was written, as its {CHECKSUM} tells")
        try:
            found = cls(**{each.name: data[each.name] for each in dataclasses.fields(cls)})
        except KeyError as error:
            raise ValueError(f"it lacks {error}") from error
        numbers = (found.tolerance, found.confidence, found.rounds)
        fine = all(type(each) in (int, float) and 0 <= each < math.inf for each in numbers)
        fine &= type(found.samples) is int and type(found.failures) is int and type(found.exact) is bool
        fine &= type(found.prompts) is str and type(found.run) is str
        fine &= isinstance(found.subject, dict)
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


def identity_of_model(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of an item's model changes the pixels."""
    # Fields that are new since the first version only where they are set, so that ids stay what they were.
    changes = {key: model[key] for key in ("compile", "quantization", "variant") if model.get(key)}
    if (model.get("vae") or {}).get("tiling"):
        changes["tiling"] = True
    return {**{key: model[key] for key in ("adapter", "fingerprint", "dtype")}, **changes, **identity_of(model)}


def conditions_of_cell(cell: Cell, model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the conditions of a cell's items whose prompts have none of their own.

    Args:
        cell: the cell.
        model: of its items.
    """
    job = cell.job
    return {
        "model": identity_of_model(model),
        "call": dict(cell.adapter.call),
        "sampling": dict(cell.sampling),
        "cache": {} if job.cache.kind == "none" else {"kind": job.cache.kind, **job.cache.options},
        "attention": job.attention,
    }


def own_conditions(cell: Cell, prompt: Prompt, files: Inputs) -> dict[str, Any]:
    """Return what a prompt's items have besides, or in place of, the conditions of their cell; mostly nothing."""
    from genrun.runner.job.cell import sampling_of

    own: dict[str, Any] = {}
    if prompt.row and (sampling := sampling_of(cell.sampling, prompt)) != cell.sampling:
        own["sampling"] = sampling
    # A picture, and a second one, makes another call of the pipeline, or another pipeline.
    if counts := {field: len(each) for field, each in files.items() if each}:
        own["inputs"] = counts
    # Some pipelines evaluate a second branch only where there is a negative prompt.
    if prompt.negative_prompt is not None and "negative_prompt" not in cell.sampling:
        own["negative_prompt"] = True
    return own


def by_conditions(cell: Cell, model: Mapping[str, Any]) -> list[tuple[dict[str, Any], Cell]]:
    """Return each set of conditions that a cell's prompts have, with the cell as if it had those prompts alone."""
    shared, parts = conditions_of_cell(cell, model), {}
    for prompt, files in zip(cell.prompts, cell.inputs, strict=True):
        own = own_conditions(cell, prompt, files)
        _, prompts, inputs = parts.setdefault(canonical(own) if own else b"", (own, [], []))
        prompts.append(prompt)
        inputs.append(files)
    return [
        ({**shared, **own}, dataclasses.replace(cell, prompts=tuple(prompts), inputs=tuple(inputs)))
        for own, prompts, inputs in parts.values()
    ]


def hash_of(prompts: Sequence[str]) -> str:
    """Return what identifies a set of prompts."""
    return hashlib.sha256("\0".join(sorted({*prompts})).encode("utf-8", "surrogatepass")).hexdigest()[:KEY_DIGITS]


def hash_of_prompts(cell: Cell) -> str:
    """Return what identifies the prompts of a cell, their pictures and clips included."""
    files = (file.sha256 for inputs in cell.inputs for each in inputs.values() for file in each)
    negatives = (f"-{prompt.negative_prompt}" for prompt in cell.prompts if prompt.negative_prompt is not None)
    return hash_of([*(prompt.text for prompt in cell.prompts), *negatives, *files])


def subject_of(conditions: Mapping[str, Any], solver: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that a certificate's errors depend on.

    Args:
        conditions: what items share besides their solver, as `conditions_of_cell` and `own_conditions` return it.
        solver: kind and every option, as the job asks for them.
    """
    from genrun.version import __version__

    return {"genrun": __version__, "format": FORMAT, "cell": dict(conditions), "solver": dict(solver)}


def key_of(subject: Mapping[str, Any]) -> str:
    """Return the name of a certificate."""
    return hashlib.sha256(canonical(subject)).hexdigest()[:KEY_DIGITS]


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(content)).hexdigest()


def path_of(runs: Path, key: str) -> Path:
    """Return where a certificate lies."""
    return runs / FOLDER / f"{key}.json"


def has_ended(runs: Path, run: Path) -> bool:
    """Return True for the run of a calibration that has its certificate: it has served its purpose.

    Args:
        runs: the folder of runs, with certificates.
        run: a run in it, or the link to one.
    """
    real = run.resolve()
    if not real.parent.name.endswith(ENDING):
        return False
    for path in (runs / FOLDER).glob("*.json"):
        try:
            named = read_json(read_bounded(path, MAX_BYTES))["run"]
            if (runs / named).resolve() == real:
                return True
        except (OSError, ValueError, TypeError, KeyError, TooLargeError, RecursionError):
            continue
    return False


def find(runs: Path, key: str) -> Certificate | None:
    """Return the certificate of a key, or None where there is none.

    Raises:
        DamagedFileError: there is one, but it cannot be read, is not as it was written, or is not of this key.
    """
    path = path_of(runs, key)
    try:
        found = Certificate.from_file(read_bounded(path, MAX_BYTES))
        if key_of(found.subject) != key:
            raise ValueError(f"it is the one of {key_of(found.subject)} under another name")
        return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, TooLargeError, RecursionError) as error:
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


def settle(
    runs: Path, subject: Mapping[str, Any], solver: Mapping[str, Any], confidence: float | None, prompts: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the setting that a cell runs, and what is promised of it: {} where nothing was asked for or found.

    Args:
        runs: the folder of runs, with its certificates.
        subject: of the items.
        solver: kind and every option, as the job asks for them.
        confidence: as the job asks for it; 0 to run what is written, None to take a certificate where there is one.
        prompts: hash of the job's prompts.

    Raises:
        DamagedFileError: there is a certificate, but it cannot be read.
    """
    plain = dict(solver)
    if confidence == 0 or not can_be_calibrated(solver):
        return plain, {}
    key = key_of(subject)
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
        **({"without": left_out(subject)} if found.exact and left_out(subject) else {}),
    }
    return dict(found.solver), promise if found.prompts == prompts else {**promise, "other_prompts": True}


def left_out(subject: Mapping[str, Any]) -> list[str]:
    """Return what exact items of a subject go without: its cache and its kernel, which err at tolerance 0, too."""
    cell = subject["cell"]
    return [
        name
        for name, is_there in (("cache", cell.get("cache")), ("kernel", cell.get("attention", "native") != "native"))
        if is_there
    ]


def without(promise: Mapping[str, Any]) -> str:
    """Say the same, as the end of a clause."""
    return f", without the {' and '.join(promise['without'])}" if promise.get("without") else ""


def merged(cells: Sequence[Cell], columns: Sequence[Planned]) -> list[Planned]:
    """Leave out what an earlier cell makes, too, where it is a certificate that gave both the same setting."""
    first: dict[str, tuple[WorkItem, tuple[Any, ...]]] = {}
    kept = []
    for cell, column in zip(cells, columns, strict=True):
        asked = (cell.job.solver, cell.job.cache, cell.job.attention)
        found: Planned = []
        for item, prompt in column:
            other, how = first.get(item.id, (item, asked))
            is_settled = any(each.promise.get("state") in (CERTIFIED, EXACT) for each in (item, other))
            # What a job writes twice is a mistake, which is refused.
            if how == asked or not is_settled:
                found.append((item, prompt))
        first |= {item.id: (item, asked) for item, _ in found if item.id not in first}
        kept.append(found)
    return kept


def sentence(kind: str, promise: Mapping[str, Any]) -> str:
    """Say what is promised of a cell's items."""
    tolerance, confidence = promise["tolerance"], 100 * (promise.get("confidence") or 0)
    if promise["state"] == AIM:
        return (
            f"{kind}: tolerance {tolerance:g} is an aim and not a promise, as this was planned without a certificate for "
            "its model, sampling, K and confidence; genrun calibrate JOB makes one"
        )
    if promise["state"] == EXACT:
        return (
            f"{kind}: no faster setting was certified to keep {tolerance:g} for {confidence:g} % of new items with "
            f"{promise['samples']} samples, so that items are sampled exactly{without(promise)}"
        )
    others = "; it was calibrated on other prompts, so that this holds as far as these are like them"
    return (
        f"{kind}: calibrated with {promise['samples']} samples; the error of a new item is within {tolerance:g} with "
        f"probability {confidence:g} %, over calibration and item together{others if promise.get('other_prompts') else ''}"
    )
