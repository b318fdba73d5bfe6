"""plan.jsonl: one item a line. What is wrong with a line is told by its number; the others still count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from genrun.runner.errors import DamagedFileError
from genrun.runner.store.reading import MENDS, WRONG_CONTENT, read_bytes, read_json, reading

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem

FILE = "plan.jsonl"


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
