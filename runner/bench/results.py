"""Results of a bench: each cell by its samples, the rounds at an equal error, and the folder that keeps them.

bench.json               the settings; a command with others is refused
references/PROBLEM-N.safetensors    final latents of the sequential sampler
cells/KEY.json           one finished cell each, written whole or not at all
results.csv results.json pareto.csv index.html
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from genrun.runner.bench.sweep import SweepPoint
from genrun.runner.errors import MixError, StoreError, UsageError
from genrun.runner.store.files import atomic_write, is_temporary
from genrun.runner.strict_json import canonical

if TYPE_CHECKING:
    from torch import Tensor


# docs/papers.md compares with published speedups at the last two.
TARGETS = (0.01, 0.02, 0.05)
"""Mean latent RMSE at which solvers are compared."""

Point = tuple[float, float]
"""(mean RMSE, mean rounds) of a cell."""


@dataclass(frozen=True)
class SampleResult:
    """A sample under a solver.

    Attributes:
        rounds: parallel model calls.
        nfe: model evaluations.
        skipped: states accepted without ever being evaluated.
        converged_by: "tolerance" or "sequential".
        fronts: the front after each round.
        rmse: of the final latents to the sequential ones, in their standard deviations.
        worst_block: the same of the worst block of 8 x 8 places; None for states without places.
        blocks: evaluations of transformer blocks; 0 where the model has none.
    """

    rounds: int
    nfe: int
    skipped: int
    converged_by: str
    fronts: tuple[int, ...]
    rmse: float
    worst_block: float | None
    blocks: float = 0.0


@dataclass(frozen=True)
class PointResult:
    """A cell that was measured.

    Attributes:
        cell: what was measured.
        code: hash of the solver's source.
        num_steps: N.
        samples: one per prompt and seed; empty when the solver refused the cell or failed on a sample.
        error: why there are no samples, or "".
        elapsed_s: of all pipeline calls.
        calls: parallel model calls in them (with batches fewer than the samples' rounds together).
        evaluation_s: time per model call of the sequential sampler, in the same process.
    """

    cell: SweepPoint
    code: str
    num_steps: int
    samples: tuple[SampleResult, ...]
    error: str = ""
    elapsed_s: float = 0.0
    calls: int = 0
    evaluation_s: float = 0.0

    @property
    def rounds(self) -> float:
        """Mean rounds."""
        return self.mean(lambda sample: sample.rounds)

    @property
    def nfe(self) -> float:
        """Mean model evaluations."""
        return self.mean(lambda sample: sample.nfe)

    @property
    def blocks(self) -> float:
        """Mean evaluations of transformer blocks."""
        return self.mean(lambda sample: sample.blocks)

    @property
    def skipped(self) -> float:
        """Mean states that were accepted without being evaluated."""
        return self.mean(lambda sample: sample.skipped)

    @property
    def speedup(self) -> float:
        """N / mean rounds."""
        return self.num_steps / self.rounds

    @property
    def rmse(self) -> float:
        """Mean latent RMSE."""
        return self.mean(lambda sample: sample.rmse)

    @property
    def rmse_median(self) -> float:
        """Median latent RMSE."""
        return statistics.median(sample.rmse for sample in self.samples)

    @property
    def rmse_max(self) -> float:
        """Largest latent RMSE."""
        return max(sample.rmse for sample in self.samples)

    @property
    def worst_block(self) -> float | None:
        """RMSE of the worst block of any sample."""
        blocks = [sample.worst_block for sample in self.samples if sample.worst_block is not None]
        return max(blocks, default=None)

    @property
    def round_ratio(self) -> float | None:
        """Time per round, in times per evaluation of the sequential sampler; None where neither was timed."""
        if not self.calls or not self.evaluation_s:
            return None
        return self.elapsed_s / self.calls / self.evaluation_s

    def mean(self, value: Callable[[SampleResult], float]) -> float:
        """Return the mean over the samples."""
        return statistics.fmean(map(value, self.samples))

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PointResult:
        """Make a result of what `to_dict` returned. Raises TypeError or KeyError for anything else."""
        samples = (SampleResult(**{**sample, "fronts": tuple(sample["fronts"])}) for sample in data["samples"])
        return cls(**{**data, "cell": SweepPoint(**data["cell"]), "samples": tuple(samples)})


@dataclass(frozen=True)
class Crossing:
    """The rounds at which a sweep meets an error.

    Attributes:
        problem: what was sampled.
        solver: label.
        workers: K.
        error: the target.
        rounds: mean rounds there; None where the sweep does not come down to the target.
        num_steps: N.
        state: "reached" between two points, "at most" where every point of the sweep is better than the target (or the
            next worse point is too far off to interpolate: an error of 0 has no logarithm), "not reached".
    """

    problem: str
    solver: str
    workers: int
    error: float
    rounds: float | None
    num_steps: int
    state: Literal["reached", "at most", "not reached"]

    @property
    def speedup(self) -> float | None:
        """Sequential steps over rounds."""
        return self.num_steps / self.rounds if self.rounds else None


def crossings(results: Iterable[PointResult], targets: Sequence[float] = TARGETS) -> list[Crossing]:
    """Read every sweep at every target, in the order of the results; cells without samples are left out of their sweep."""
    sweeps: dict[tuple[str, str, int], list[PointResult]] = {}
    for result in results:
        sweeps.setdefault((result.cell.problem, result.cell.solver, result.cell.workers), []).append(result)
    found = []
    for key, cells in sweeps.items():
        measured = sorted((cell for cell in cells if cell.samples), key=lambda each: each.cell.tolerance or 0.0)
        points = [(each.rmse, each.rounds) for each in measured]
        for target in targets:
            rounds, is_bound = crossing(points, target)
            state = "not reached" if rounds is None else "at most" if is_bound else "reached"
            found.append(Crossing(*key, target, rounds, cells[0].num_steps, state))
    return found


def crossing(points: Sequence[Point], target: float) -> tuple[float | None, bool]:
    """Find the fewest rounds at which a sweep meets an error, log(error) linear in the rounds between neighbours.

    Nothing is extrapolated beyond the measured points.

    Args:
        points: in the order of their tolerance.
        target: the error, above 0.

    Returns:
        The rounds, and whether they are only a bound from above; (None, False) when no point is as good as the target.
    """
    found = [_between(min(pair), max(pair), target) for pair in pairwise(points) if _brackets(pair, target)]
    if found:
        return min(found)
    good = [rounds for error, rounds in points if error <= target]
    return (min(good), True) if good else (None, False)


def _brackets(pair: tuple[Point, Point], target: float) -> bool:
    (one, _), (other, _) = pair
    return min(one, other) <= target <= max(one, other)


def _between(better: Point, worse: Point, target: float) -> tuple[float, bool]:
    (low, rounds), (high, fewer) = better, worse
    if low == high:
        return min(rounds, fewer), False
    if low == 0:
        return rounds, True
    weight = math.log(target / low) / math.log(high / low)
    return rounds + weight * (fewer - rounds), False


SETTINGS = "bench.json"
VERSION = 1
KEY_DIGITS = 20
CODE_DIGITS = 12
LATENTS = "latents"


@dataclass(frozen=True)
class BenchFolder:
    """A folder of results; the only code that knows its file names."""

    path: Path

    @classmethod
    def open(cls, path: Path, settings: Mapping[str, Any]) -> BenchFolder:
        """Begin a bench in a new folder, or continue the one in an existing folder.

        Args:
            path: the folder.
            settings: everything that decides the numbers, but solvers, workers and tolerances.

        Raises:
            MixError: the bench there was made with other settings.
            UsageError: there are other files.
            StoreError: it cannot be read or written.
        """
        folder, wanted = cls(path), json.loads(canonical({"version": VERSION, **settings}))
        known = folder._read_settings()
        if known is None:
            atomic_write(path / SETTINGS, json.dumps(wanted, indent=2).encode("ascii"))
        elif known != wanted:
            remedy = "Choose another folder with --out, or ask for the same again."
            changes = "\n".join(f"    {line}" for line in _differences(known, wanted))
            raise MixError(f"{path} holds a bench with other settings:\n{changes}", remedy=remedy)
        return folder

    def result(self, cell: SweepPoint, code: str) -> PointResult | None:
        """Return the record of a cell, or None if it is not finished. Raises StoreError for a spoilt one."""
        path = self._cell_path(cell, code)
        try:
            return PointResult.from_dict(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {error.strerror}.") from error
        except (ValueError, TypeError, KeyError) as error:
            raise StoreError(f"{path}: no record of this version.", remedy="Remove it, and run again.") from error

    def write(self, result: PointResult) -> None:
        """Record a finished cell. Raises StoreError."""
        data = json.dumps(result.to_dict(), allow_nan=False).encode("ascii")
        atomic_write(self._cell_path(result.cell, result.code), data)

    def reference(self, problem: str, index: int) -> Tensor | None:
        """Return the sequential latents of a sample, or None if they have not been made."""
        from safetensors.torch import load

        path = self._reference_path(problem, index)
        try:
            return load(path.read_bytes())[LATENTS]
        except FileNotFoundError:
            return None
        except Exception as error:
            remedy = "Remove it, and run again."
            raise StoreError(f"{path}: cannot be read as latents: {error}.", remedy=remedy) from error

    def write_reference(self, problem: str, index: int, latents: Tensor) -> None:
        """Keep the sequential latents of a sample. Raises StoreError."""
        from safetensors.torch import save

        atomic_write(self._reference_path(problem, index), save({LATENTS: latents.contiguous()}))

    def write_file(self, name: str, data: bytes) -> Path:
        """Write a table, a picture or the page; returns its path. Raises StoreError."""
        atomic_write(self.path / name, data)
        return self.path / name

    def _read_settings(self) -> Any:
        path = self.path / SETTINGS
        try:
            if not path.is_file():
                if self.path.is_dir() and not all(is_temporary(path.name) for path in self.path.iterdir()):
                    remedy = "Choose a new folder with --out."
                    raise UsageError(f"{self.path} has other files in it, and no {SETTINGS}.", remedy=remedy)
                return None
            return json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: cannot be read: {error}.", remedy="Choose a new folder with --out.") from error

    def _cell_path(self, cell: SweepPoint, code: str) -> Path:
        decides = {"problem": cell.problem, "kind": cell.kind, "options": cell.options, "code": code}
        decides |= {"cache": cell.cache} if cell.cache else {}
        key = hashlib.sha256(canonical(decides)).hexdigest()[:KEY_DIGITS]
        return self.path / "cells" / f"{key}.json"

    def _reference_path(self, problem: str, index: int) -> Path:
        return self.path / "references" / f"{problem}-{index:04}.safetensors"


def _differences(known: Any, wanted: Any, path: str = "") -> Iterator[str]:
    """Yield what is there and what is wanted, by dotted name, one line each."""
    if isinstance(known, dict) and isinstance(wanted, dict):
        for key in sorted({*known, *wanted}):
            yield from _differences(known.get(key), wanted.get(key), f"{path}.{key}".lstrip("."))
    elif known != wanted:
        yield f"{path or 'settings'}: {json.dumps(known)} there, {json.dumps(wanted)} now"


def code_of(solver: type) -> str:
    """Hash the module that defines a solver, and every module of its package that it imports, directly or not.

    Results of an older version must not stand beside those of a newer one.

    Returns:
        12 hex digits. A comment changes them; a solver that this one does not use does not.
    """
    return code_of_module(solver.__module__)


def code_of_module(name: str) -> str:
    """Hash a module, and every module of its package that it imports, directly or not."""
    package, found, left = name.rpartition(".")[0], dict[str, bytes](), [name]
    while left:
        name = left.pop()
        source = None if name in found else _source(name)
        if source is not None:
            found[name] = source
            left += [each for each in _imports(source, name) if each.startswith(f"{package}.")]
    digest = hashlib.sha256()
    for name, source in sorted(found.items()):
        digest.update(f"{name}\0{len(source)}\0".encode() + source)
    return digest.hexdigest()[:CODE_DIGITS]


def _source(name: str) -> bytes | None:
    """Read a module; None for a name that is no module of Python text."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin).read_bytes()


def _imports(source: bytes, name: str) -> Iterator[str]:
    """Yield every name that a module may import as a module."""
    package = name.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
