"""The plan of a run, plan.jsonl with an item a line, and its resolved job, job.yaml: read, and checked while reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.runner.errors import DamagedFileError
from genrun.runner.store.reading import MENDS, WRONG_CONTENT, read_bytes, reading
from genrun.runner.strict_json import read_json

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem

FILE = "plan.jsonl"

SHAPES: dict[str, Any] = {
    "name": str,
    "model": dict | str,
    "matrix": dict | list,
    **dict.fromkeys(("output", "launch", "sampling", "parallel", "nightly"), dict),
    **dict.fromkeys(("score", "seeds"), list),
    "gates": dict,
}
"""Sections of a stored job."""

DEEPEST = 100
LARGEST = 2_000_000
"""Levels and values of a stored job; those of job files are fewer. More is a file that would fill the memory."""

TOO_DEEP = f"nested deeper than {DEEPEST} levels"


@dataclass(frozen=True)
class PlanFile:
    """A plan as it was read.

    Attributes:
        path: the file.
        items: of the lines that are whole, in order, each id once.
        lines: the number of each item's line.
        wrong: number of a line -> what is wrong with it.
    """

    path: Path
    items: Sequence[WorkItem]
    lines: Sequence[int]
    wrong: dict[int, str]

    def whole(self) -> list[WorkItem]:
        """Return the items of a plan that is whole.

        Raises:
            DamagedFileError: a line is wrong.
        """
        for number, why in self.wrong.items():
            more = f" (and {len(self.wrong) - 1} more lines)" if len(self.wrong) > 1 else ""
            raise DamagedFileError(f"{self.path}:{number}: {why}{more}.", remedy=MENDS)
        return list(self.items)


def read_plan(path: Path) -> PlanFile:
    """Read a plan.

    Raises:
        DamagedFileError: it is not there, or holds no text.
        UnreadableError: it cannot be looked into.
    """
    from genrun.runner.job.plan import WorkItem

    with reading(path):
        text = read_bytes(path).decode("utf-8")
    items: dict[str, WorkItem] = {}
    lines: dict[str, int] = {}
    wrong: dict[int, str] = {}
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        try:
            item = WorkItem.from_dict(read_json(line))
        except WRONG_CONTENT as error:
            wrong[number] = f"is damaged: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
            continue
        if item.id in items:
            wrong[number] = f"the item {item.id} is planned twice: in line {lines[item.id]}, too"
            continue
        items[item.id], lines[item.id] = item, number
    return PlanFile(path, list(items.values()), list(lines.values()), wrong)


def misfits(plan: PlanFile, *, is_ours: bool) -> dict[int, str]:
    """Return the lines whose id is not the hash of what they say, each with what is wrong.

    Args:
        plan: the plan.
        is_ours: whether this version of genrun made it. What an adapter hands to every call is hashed, too, and may have
            changed since another version: such a plan is only judged where some of its lines fit.
    """
    fit = [item.fits() for item in plan.items]
    some_fit = any(fit)
    return {
        number: f"does not fit its id: {item.id} is not the hash of what the line says"
        for number, item, fits in zip(plan.lines, plan.items, fit, strict=True)
        if (fits is False and (some_fit or is_ours)) or (fits is None and some_fit)
    }


def read_job(path: Path) -> dict[str, Any]:
    """Read a stored job.

    Raises:
        StoreError: it cannot be read, or is no job.
    """
    import yaml

    with reading(path):
        try:
            document = _parsed(read_bytes(path).decode("utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"no YAML: {getattr(error, 'problem', None) or type(error).__name__}") from error
        _check_shape(document)
        return document


def _parsed(text: str) -> Any:
    """Parse YAML in C, where PyYAML has that: a job of thousands of prompts takes seconds otherwise."""
    import yaml

    fast = getattr(yaml, "CSafeLoader", None)
    if fast is not None:
        try:
            return _loaded(text, fast)
        except yaml.YAMLError:
            # Halves of surrogate pairs, which prompts may hold, are read and written by the loader in Python alone.
            pass
    return _loaded(text, yaml.SafeLoader)


def _loaded(text: str, loader: Any) -> Any:
    import yaml

    depth = aliases = 0
    # First by its events alone, which bounds what the loader gets to see.
    for event in yaml.parse(text, Loader=loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        aliases += isinstance(event, yaml.AliasEvent)
        if depth > DEEPEST:
            raise ValueError(TOO_DEEP)
    document = yaml.load(text, Loader=loader)
    if aliases:
        _check_unfolded(document)
    return document


def _check_unfolded(document: Any) -> None:
    """Refuse what contains itself, or is larger than any job once its aliases are written out."""
    found, count = [(document, 1)], 0
    while found:
        value, depth = found.pop()
        below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        count += len(below)
        if depth > DEEPEST or count > LARGEST:
            raise ValueError(TOO_DEEP if depth > DEEPEST else f"holds more than {LARGEST:,} values")
        found += [(each, depth + 1) for each in below]


def _check_shape(document: Any) -> None:
    """Refuse a document that is no job; its sections are checked in detail when the job is restored."""
    if not isinstance(document, dict):
        raise TypeError(f"holds {type(document).__name__}, not a job")
    if "name" not in document:
        raise KeyError("name")
    for name, kind in SHAPES.items():
        if document.get(name) is not None and not isinstance(document[name], kind):
            raise TypeError(f"{name} is {document[name]!r:.60}")
