"""Calibration: the fastest setting of a job's solver that keeps its tolerance, certified on items of the job's own.

Two runs, which are resumed, shared among ranks and queued as any are. In the first, a few items under a grid of settings
tell which of them promises most. In the second, n items are sampled sequentially and under a chain of settings around it,
of which `candidates` says the one that is certified.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.runner.api import submitting
from genrun.runner.api.arranging import arrange
from genrun.runner.api.calls import QUIET, Listener, checked
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
from genrun.runner.api.jobs import AnyJob, with_runs
from genrun.runner.errors import RunError, UsageError
from genrun.runner.job import certificates
from genrun.runner.job.certificates import Certificate, by_conditions, conditions_of_cell, hash_of_prompts
from genrun.runner.statistics import allowed_failures, fewest_items, items_without_failure, least_share

if TYPE_CHECKING:
    from genrun.adapters.input_files import InputFile
    from genrun.runner.job import Cell, LoadedJob

Files = tuple[tuple[str, tuple["InputFile", ...]], ...]
"""The pictures and clips of a prompt: field and files."""
Pair = tuple[str, str | None, int, Files]
"""A prompt, its negative one, a seed and files: what an item is of, besides how it is sampled."""

SAMPLES, MOST_SAMPLES = 20, 100_000
CONFIDENCE = 0.95
PILOTS = 4
"""Items that choose the chain, and are no part of what certifies it."""

BESIDE = 0.975
"""Confidence of each of two statements that are to hold together with 95 %."""

LATENT_RMSE = "latent_rmse"
MAX_NAME = 80
"""Letters of a job's name."""


@dataclass(frozen=True)
class Calibration:
    """Outcome of a calibration.

    Attributes:
        key: of the cell.
        path: file of the certificate.
        steps: rounds of the sequential sampler: N, or fewer where a strength leaves steps out.
        certificate: the setting.
        chain: all settings that were tried with all items, the most careful first.
        failures: of each of them, how many items it or a more careful one failed.
    """

    key: str
    path: Path
    steps: int
    certificate: Certificate
    chain: tuple[MeasuredSetting, ...]
    failures: tuple[int, ...]

    def lines(self) -> list[str]:
        """Say what is promised, and what more samples would buy."""
        found, kind = self.certificate, _named(self.certificate.subject)
        n, share = found.samples, f"{100 * found.confidence:g} %"
        allowed = allowed_failures(n, found.confidence)
        if found.exact:
            few = f"all {n} samples" if allowed == 0 else f"all but {allowed} of {n} samples"
            yet = f"nothing faster kept {found.tolerance:g} for {few}, so that items are sampled exactly"
            yet += certificates.without({"without": certificates.left_out(found.subject)})
            return [f"{kind}: {yet}. A larger tolerance, or more samples, may do."]
        varied = {key: value for key, value in found.solver.items() if key in ("tolerance", "probes", "spacing")}
        setting = ", ".join(f"{key} {value:.3g}" for key, value in varied.items() if value is not None)
        lines = [
            f"{kind}: {setting}: {found.rounds:.1f} rounds instead of {self.steps}.",
            f"With {n} samples, {found.failures} of which failed, the error of a new item is within {found.tolerance:g} "
            f"with probability {share}, over calibration and item together.",
        ]
        # Where a few may fail, one of two things is said, whichever comes out: each has half the risk of being wrong.
        level = BESIDE if allowed else 0.95
        itself = least_share(n - (allowed if found.failures else 0), n, level)
        kept = f"this very setting keeps it for at least {math.floor(100 * itself)} % of new items"
        lines.append(f"With 95 % confidence, {kept}.")
        if n < (needed := items_without_failure(found.confidence, BESIDE)):
            more = f"{needed} samples without a failure would certify {share} with that confidence"
            lines.append(f"{more}: --samples {needed}.")
        return lines


@checked
def calibrate_tolerance(
    job: AnyJob,
    *,
    sets: Sequence[str] = (),
    samples: int = SAMPLES,
    confidence: float | None = None,
    runs: str | os.PathLike[str] | None = None,
    listener: Listener = QUIET,
) -> list[Calibration]:
    """Find and certify the fastest setting that keeps a job's tolerance; one for each cell whose solver has one.

    Args:
        job: as of `submit`.
        sets: changes of the job, as texts `a.b=value`.
        samples: items that certify, besides the few that choose what is tried.
        confidence: share of new items that are to be within; the job's own, or 0.95.
        runs: the folder of runs, in place of the job's `output.dir`.
        listener: hears what is done, and how far it is.

    Raises:
        UsageError: too few samples for the confidence, or no solver with a tolerance.
        JobFileError: with every problem of the job.
        RunError: items failed.
        IncompleteError: items are left.
    """
    # As submitting it does, so that K is that of the job's items.
    loaded = arrange(job, with_runs(sets, runs)).loaded
    asked = {each.key: each for each in _targets(loaded) if each.cell.job.solver.confidence != 0}
    if not asked:
        raise UsageError(
            "the job has no solver with a tolerance to calibrate.", remedy="Such as: solver: {kind: collocation}."
        )
    # Each cell is looked at before the first is sampled, which may take hours.
    shares = {key: confidence or each.cell.job.solver.confidence or CONFIDENCE for key, each in asked.items()}
    for key, wanted in shares.items():
        if not 0 < wanted < 1:
            raise UsageError(f"a confidence of {wanted:g}: wanted a share between 0 and 1, such as 0.95.")
        if samples < (fewest := fewest_items(wanted)):
            more = f"Take {fewest} or more: --samples {fewest}."
            raise UsageError(
                f"{asked[key].cell.job.solver.kind}: {samples} samples say nothing of {100 * wanted:.12g} % of new items.",
                remedy=more if fewest <= MOST_SAMPLES else "Ask for a smaller confidence, such as 0.99.",
            )
    return [_calibrate(loaded, each, samples, shares[key], listener) for key, each in asked.items()]


@dataclass(frozen=True)
class _Target:
    """What one certificate is for.

    Attributes:
        subject: all that its errors depend on.
        cell: with the prompts that are sampled under these conditions.
        prompts: hash of all prompts of the job's cell.
    """

    subject: dict[str, Any]
    cell: Cell
    prompts: str

    @property
    def key(self) -> str:
        """Name of the certificate."""
        return certificates.key_of(self.subject)


def _targets(loaded: LoadedJob) -> Iterator[_Target]:
    """Yield what can be calibrated: each set of conditions of each cell; of those of one key the last one counts.

    Prompts with a sampling of their own are left out: a certificate for each of them would cost more than it saves.
    """
    from genrun.runner.job.plan import models_of

    for cell, model in zip(loaded.cells, models_of(loaded), strict=True):
        solver = {"kind": cell.job.solver.kind, **cell.job.solver.options}
        if certificates.can_be_calibrated(solver):
            parts = [pair for pair in by_conditions(cell, model) if pair[0]["sampling"] == dict(cell.sampling)]
            for conditions, part in parts or [(conditions_of_cell(cell, model), cell)]:
                yield _Target(certificates.subject_of(conditions, solver), part, hash_of_prompts(cell))


def _calibrate(loaded: LoadedJob, target: _Target, samples: int, confidence: float, listener: Listener) -> Calibration:
    from genrun.runner.job.plan import HOW
    from genrun.runner.store.files import atomic_write

    cell, key = target.cell, target.key
    asked = {"kind": cell.job.solver.kind, **cell.job.solver.options}
    tolerance, runs = float(asked["tolerance"]), Path(cell.job.output.dir)
    path, before = certificates.path_of(runs, key), certificates.find(runs, key)
    if before is not None and before.confidence > confidence:
        listener.say(f"{path}: holds for {100 * before.confidence:g} %, and will be replaced.")
    # The same for every solver, K, cache and kernel, so that sequential items are made once for all of them.
    how = {name: each for name, each in target.subject["cell"].items() if name not in HOW}
    pairs = draw(cell, PILOTS + samples, certificates.key_of(how))
    grid = list(variants(asked, [tolerance * share for share in GRID]))
    named = f"{_named(target.subject)}, tolerance {tolerance:g}"
    listener.say(f"{named}: {len(grid)} settings on {PILOTS} items.")
    _, _, pilot = _measure(loaded, cell, key, pairs[:PILOTS], grid, listener)
    best = most_promising(pilot, tolerance)
    chain = chain_around(best)
    listener.say(f"{named}: {len(chain)} settings on {samples} items.")
    run, steps, measured = _measure(loaded, cell, key, pairs[PILOTS:], chain, listener)
    failures = failures_along([each.errors for each in measured], tolerance)
    fastest = fastest_kept(measured, failures, confidence)
    is_accelerated = bool(certificates.left_out(target.subject))
    exact = fastest is None or not pays(measured[fastest], steps, is_accelerated=is_accelerated)
    setting = {**asked, "tolerance": 0.0} if fastest is None or exact else measured[fastest].solver
    certificate = Certificate(
        subject=target.subject,
        tolerance=tolerance,
        confidence=confidence,
        samples=samples,
        failures=0 if fastest is None else failures[fastest],
        solver=setting,
        exact=exact,
        rounds=float(steps) if fastest is None or exact else measured[fastest].mean_rounds,
        prompts=target.prompts,
        run=os.path.relpath(run, runs),
        errors=() if fastest is None or exact else tuple(sorted(measured[fastest].errors)),
    )
    tried = [
        {"solver": each.solver, "rounds": each.mean_rounds, "failures": count, "errors": sorted(each.errors)}
        for each, count in zip(measured, failures, strict=True)
    ]
    atomic_write(path, certificate.to_file(tried=tried))
    return Calibration(key, path, steps, certificate, tuple(measured), tuple(failures))


def _named(subject: Mapping[str, Any]) -> str:
    """Return what messages call a subject: its solver, and what its prompts have besides words."""
    own = subject["cell"]
    beside = [*own.get("inputs", ()), *(["negative_prompt"] if "negative_prompt" in own else [])]
    return str(subject["solver"]["kind"]) + (f", prompts with {' and '.join(beside)}" if beside else "")


def draw(cell: Cell, count: int, by: str) -> list[Pair]:
    """Draw pairs from a cell's own, and with seeds of no item when those run out.

    Drawn at random, so that these items and any other of the job's are exchangeable. A prompt with a sampling of its own
    is left out: no certificate of the cell's is for it.

    Args:
        cell: with the prompts that are drawn from.
        count: how many pairs.
        by: text that decides the draw; of a larger count with the same text they are the first.

    Raises:
        UsageError: every prompt has a sampling of its own.
    """
    from genrun.runner.job.cell import sampling_of

    generator, sampling, usual = random.Random(by), dict(cell.sampling), cell.sampling.get("negative_prompt")
    prompts = [
        (text, usual if negative is None else negative, prompt.seed, tuple(files.items()))
        for prompt, files in zip(cell.prompts, cell.inputs, strict=True)
        for text, negative in [(prompt.text, prompt.negative_prompt)]
        if sampling_of(sampling, prompt) == sampling
    ]
    if not prompts:
        raise UsageError(
            "every prompt has a sampling of its own, such as steps or a strength, and a certificate holds for one alone.",
            remedy="Write it into the job's sampling.",
        )
    own = [
        (text, negative, seed, files)
        for text, negative, alone, files in prompts
        for seed in (cell.job.seeds if alone is None else (alone,))
    ]
    generator.shuffle(own)
    taken = {seed for _, _, seed, _ in own}
    while len(own) < count:
        (text, negative, _, files), seed = generator.choice(prompts), generator.randrange(2**31)
        if seed not in taken:
            taken.add(seed)
            own.append((text, negative, seed, files))
    return own[:count]


def _measure(
    loaded: LoadedJob,
    cell: Cell,
    key: str,
    pairs: Sequence[Pair],
    settings: Sequence[Mapping[str, Any]],
    listener: Listener,
) -> tuple[Path, int, list[MeasuredSetting]]:
    """Run items sequentially and under settings; return the run, the sequential rounds and what was measured of each."""
    from genrun.runner.job.files import identity
    from genrun.runner.score.metrics import wanted_metrics
    from genrun.runner.score.scoring import score_run

    document = _document(loaded, cell, _write_prompts(Path(cell.job.output.dir), key, pairs), settings)
    made = submitting.submit(document, wait=True, listener=listener)
    failed = made.failures()
    if failed:
        raise RunError(
            f"{made.folder.path}: {failed[0].items} items failed: {failed[0].message}", remedy=failed[0].remedy
        )
    items, records = made.folder.items(), made.folder.records()
    rows = score_run(made.folder, wanted_metrics(made.folder))
    errors = {row.item_id: row.value for row in rows if row.metric == LATENT_RMSE}
    found = []
    for setting in settings:
        own = {
            (item.prompt, item.negative_prompt, item.seed, str(identity(item.inputs))): item.id
            for item in items
            if item.solver == dict(setting)
        }
        ids = [own[text, negative, seed, str(_hashes(files))] for text, negative, seed, files in pairs]
        unknown = [item_id for item_id in ids if errors.get(item_id) is None]
        if unknown:
            raise RunError(f"{made.folder.path}: {unknown[0]} could not be measured.", remedy="Why: genrun score.")
        stats = [records[item_id].sampler for item_id in ids]
        rounds = tuple(stat.rounds for stat in stats if stat is not None)
        found.append(MeasuredSetting(dict(setting), tuple(errors[item_id] or 0.0 for item_id in ids), rounds))
    sequential = (records[item.id].sampler for item in items if item.is_reference)
    return made.folder.path, max(stat.rounds for stat in sequential if stat is not None), found


def _write_prompts(runs: Path, key: str, pairs: Sequence[Pair]) -> Path:
    """Write the pairs as a prompt file, named by the key and what it holds."""
    from genrun.runner.store.files import atomic_write

    rows = [
        {"prompt": text, "seed": seed, **({} if negative is None else {"negative_prompt": negative}), **_paths(files)}
        for text, negative, seed, files in pairs
    ]
    text = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    # Two calibrations of one key, with other prompts or so many samples, may be at work side by side.
    path = (runs / certificates.FOLDER / f"{key}-{hashlib.sha256(text).hexdigest()[:12]}.jsonl").absolute()
    atomic_write(path, text)
    return path


def _paths(files: Files) -> dict[str, str | list[str]]:
    """Return what a line of a prompt file says of its pictures and clips."""
    named = {field: [str(file.path) for file in each] for field, each in files}
    return {field: paths[0] if len(paths) == 1 else paths for field, paths in named.items()}


def _hashes(files: Files) -> dict[str, list[str]]:
    return {field: [file.sha256 for file in each] for field, each in files}


def _document(loaded: LoadedJob, cell: Cell, prompts: Path, settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the job of a calibration: the cell's, without what is judged of it."""
    from genrun.runner.job.layers import escape_all

    document, job = loaded.document, cell.job.model_dump(mode="json", exclude_none=True)
    launch = {name: value for name, value in (document.get("launch") or {}).items() if name != "then"}
    kept = {name: document[name] for name in ("parallel", "objective") if name in document}
    return {
        **kept,
        "name": f"{str(document['name'])[: MAX_NAME - len(certificates.ENDING)]}{certificates.ENDING}",
        # By absolute paths: this document lies nowhere, and those of the job are relative to its file.
        "model": escape_all({**job["model"], **cell.additions.model, "checkpoint": cell.checkpoint.name}),
        "prompts": escape_all({"file": str(prompts)}),
        "sampling": escape_all(cell.sampling),
        "cache": escape_all(job["cache"]),
        "attention": job["attention"],
        "launch": launch,
        "output": {**(document.get("output") or {}), "save_latents": True},
        "score": [LATENT_RMSE],
        "matrix": {"solver": [escape_all({**each, "confidence": 0}) for each in settings]},
        # Every item is held against the sequential one, which has neither the cache nor the kernel.
        "audit": "100%",
    }
