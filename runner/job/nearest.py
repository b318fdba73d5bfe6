"""Certificates that are not taken, and what the nearest one differs in; those that make cells alike."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.adapters.files import MIB
from genrun.runner.errors import DamagedFileError
from genrun.runner.job import certificates
from genrun.runner.job.certificates import Certificate
from genrun.runner.strict_json import canonical, read_json

if TYPE_CHECKING:
    from genrun.runner.job.cell import Cell
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.job.resolve import LoadedJob

SHOWN = 5
"""Differences that a message has room for; of such messages, twice as many are shown."""

MAX_LOOKED_AT, MAX_SIZE_LOOKED_AT = 100, 4 * MIB
"""Certificates among which the nearest one is looked for, the newest first; larger ones are left out."""


def unmatched(loaded: LoadedJob, models: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say why the certificates that are there are not for items of a job.

    Args:
        loaded: the job.
        models: of its cells, as `plan.models_of` returns them.
    """
    lines: list[str] = []
    known: dict[Path, list[Certificate]] = {}
    for cell, model in zip(loaded.cells, models, strict=True):
        solver, runs = {"kind": cell.job.solver.kind, **cell.job.solver.options}, Path(cell.job.output.dir)
        if certificates.can_be_calibrated(solver) and cell.job.solver.confidence != 0:
            found = known[runs] if runs in known else known.setdefault(runs, _all_of(runs))
            lines += _why_not(cell, model, solver, found) if found else ()
    lines = list(dict.fromkeys(lines))
    return lines if len(lines) <= 2 * SHOWN else [*lines[: 2 * SHOWN], f"and {len(lines) - 2 * SHOWN} more such lines"]


def alike(loaded: LoadedJob, items: Iterable[WorkItem]) -> list[str]:
    """Say how many items of a cell are left out of a plan, as certificates gave it and an earlier one the same setting."""
    if len(loaded.cells) == 1:
        return []
    planned = Counter(tuple(item.axes.values()) for item in items)
    lines = []
    for cell in loaded.cells:
        wanted = sum(len(cell.job.seeds) if prompt.seed is None else 1 for prompt in cell.prompts)
        if (count := wanted - planned[tuple(cell.axes.values())]) > 0:
            label = ", ".join(f"{axis}={value}" for axis, value in cell.axes.items())
            of = f"{count} of its {wanted} items are" if count < wanted else "its items are"
            lines.append(f"{label}: {of} those of an earlier cell, as by their certificates both have the same setting")
    return lines


def _why_not(
    cell: Cell, model: Mapping[str, Any], solver: Mapping[str, Any], known: Sequence[Certificate]
) -> Iterator[str]:
    """Yield what keeps the nearest certificate from being taken, for each set of a cell's conditions that has none."""
    asked = cell.job.solver.confidence
    for conditions, _ in certificates.by_conditions(cell, model):
        # As a file has it: with lists for tuples.
        subject = read_json(canonical(certificates.subject_of(conditions, solver)))
        own = next((each for each in known if each.subject == subject), None)
        if own is not None:
            if own.confidence < (asked or 0.0):
                least = f"{100 * own.confidence:g} %, and {100 * (asked or 0.0):g} % are asked for"
                yield f"{solver['kind']}: certificate {certificates.key_of(subject)} is for {least}"
            continue
        apart = [(each, [*differences(subject, each.subject)]) for each in known]
        apart = [pair for pair in apart if ("solver", "kind") not in [path for path, _ in pair[1]]]
        if not apart:
            continue
        nearest, found = min(apart, key=lambda pair: len(pair[1]))
        # Without a confidence nobody asked for a promise: what differs in more than one section is another job's.
        if asked is None and len({path[:2] if path[0] == "cell" else path[:1] for path, _ in found}) > 1:
            continue
        told = ", ".join(text for _, text in found[:SHOWN]) + (" ..." if len(found) > SHOWN else "")
        yield f"{solver['kind']}: certificate {certificates.key_of(nearest.subject)} is not for these items: {told}"


def _all_of(runs: Path) -> list[Certificate]:
    """Return the certificates of a folder of runs, the newest first; those that cannot be read are left out."""
    paths = [path for path in (runs / certificates.FOLDER).glob("*.json") if re.fullmatch(r"[0-9a-f]{20}", path.stem)]
    times: dict[str, int] = {}
    for path in paths:
        with contextlib.suppress(OSError):
            status = path.stat()
            times |= {path.stem: status.st_mtime_ns} if status.st_size <= MAX_SIZE_LOOKED_AT else {}
    found = []
    for key in sorted(times, key=times.__getitem__, reverse=True)[:MAX_LOOKED_AT]:
        with contextlib.suppress(DamagedFileError):
            found.append(certificates.find(runs, key))
    return [each for each in found if each is not None]


def differences(asked: Any, held: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield where two subjects differ: a path, and what the one that is asked for has there and the other has not."""
    asked, held = ({} if each is None else each for each in (asked, held))
    are_sections = isinstance(asked, Mapping) and isinstance(held, Mapping)
    # A kind that only one of them has is told alone, without its options.
    if are_sections and ("kind" in asked) == ("kind" in held):
        for key in sorted({*asked, *held}):
            yield from differences(asked.get(key), held.get(key), (*at, str(key)))
    elif asked != held:
        name = _shown(".".join(at[1:] if at[0] == "cell" else at)) or "another field"
        one, other = _shown(asked), _shown(held)
        yield at, f"{name} differs" if "" in (one, other) else f"{name} is {one} and not {other}"


def _shown(value: Any) -> str:
    """Return a value in a few letters; "" for a hash, what has no such form, and what a terminal would not just print."""
    if value == {}:
        return "none"
    text = str(value.get("kind", "") if isinstance(value, Mapping) else "" if isinstance(value, list) else value)
    return "" if len(text) > 60 or not text.isprintable() or re.search("[0-9a-f]{16,}", text) else text
