"""The order of a launch: its workers' task, written before they start and read by each; and the paths of their logs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from genrun.runner.errors import IncompleteError
from genrun.runner.parallel.mesh import Mesh
from genrun.runner.store.files import atomic_write
from genrun.runner.store.processes import ProcessName
from genrun.runner.store.reading import read_bytes, reading
from genrun.runner.strict_json import read_json

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.records import Record


STOPPED = 3
"""Exit code of a worker that was told to stop before its work was done."""


@dataclass(frozen=True)
class RankError:
    """A rank's reason for not going on, in `rank-N.error.json`.

    Attributes:
        time: seconds since 1970; the first of several reports is the cause.
        rank: the rank.
        kind: class of the exception.
        message: what it says.
        is_store: whether the run folder could not be read or written.
    """

    time: float
    rank: int
    kind: str
    message: str
    is_store: bool


@dataclass(frozen=True)
class Order:
    """The work of a launch of workers on a run.

    Attributes:
        job: the launch's id, unique in its run.
        data: groups of ranks that make items side by side.
        time: slots of a group, which share the points of one item.
        threads: CPU threads of a rank.
        max_attempts: tries of an item within this launch.
        items: ids of the items to make, or None for all.
        spent: attempts made before this launch, by item id.
        launcher: the process whose end ends the workers, or None.
        cfg: ranks of a slot that share the guidance branches of an evaluation.
        ring: ranks of a slot that share its tokens, passing keys and values around.
        ulysses: ranks of a slot that share its tokens, exchanging heads.
        elastic: whether groups that run out of items join the others.
        backend: what shares an evaluation's tokens out: diffusers or xfuser.
        decoded: ids of the items that are not sampled again while their saved latents are whole.
    """

    job: str
    data: int = 1
    time: int = 1
    threads: int = 1
    max_attempts: int = 2
    items: tuple[str, ...] | None = None
    spent: Mapping[str, int] = field(default_factory=dict)
    launcher: ProcessName | None = None
    cfg: int = 1
    ring: int = 1
    ulysses: int = 1
    elastic: bool = False
    backend: str = "diffusers"
    decoded: tuple[str, ...] = ()

    @property
    def mesh(self) -> Mesh:
        """The ranks of the launch, or of each task of its array."""
        return Mesh(self.data, self.time, self.cfg, self.ring, self.ulysses)

    def is_settled(self, item_id: str, record: Record | None) -> bool:
        """Return True when an item needs no more work: done, cancelled, or its attempts in this launch used up."""
        if record is None:
            return False
        attempts = record.attempt - self.spent.get(item_id, 0)
        return record.status == "done" or attempts >= self.max_attempts or (attempts > 0 and record.is_cancelled)

    def save(self, folder: RunFolder) -> None:
        """Write the order into the run.

        Raises:
            StoreError: the folder cannot be written.
        """
        atomic_write(_path(folder, self.job), json.dumps(dataclasses.asdict(self), indent=1).encode())

    @classmethod
    def load(cls, folder: RunFolder, job: str) -> Order:
        """Read an order.

        Raises:
            StoreError: there is no such order, or it is damaged.
        """
        path = _path(folder, job)
        with reading(path, remedy="Start another launch: genrun submit, genrun retry."):
            fields = read_json(read_bytes(path))
            # Fields of another version are ignored.
            fields = {name: value for name, value in fields.items() if name in cls.__dataclass_fields__}
            items, launcher = fields.pop("items"), fields.pop("launcher")
            order = cls(
                items=None if items is None else tuple(items),
                decoded=tuple(fields.pop("decoded", ())),
                launcher=None if launcher is None else ProcessName(**launcher),
                **fields,
            )
            order._check(job)
            return order

    def _check(self, job: str) -> None:
        """Refuse values that no launch writes."""
        counts = (*self.mesh.shape, self.threads, self.max_attempts)
        if self.job != job or not all(type(count) is int and count > 0 for count in counts):
            raise ValueError("holds no order of this launch")
        if not all(isinstance(each, str) for each in self.items or ()) or not isinstance(self.spent, Mapping):
            raise ValueError("holds no items")
        if not all(isinstance(each, str) for each in self.decoded):
            raise ValueError("holds no items to decode")
        if not all(type(spent) is int for spent in self.spent.values()):
            raise ValueError("holds no attempts")
        if self.launcher is not None and type(self.launcher.pid) is not int:
            raise ValueError("holds no launcher")


def check_file(folder: RunFolder, path: Path) -> None:
    """Read an order's file as `genrun verify` does.

    Raises:
        StoreError: it is damaged, or may not be looked into.
    """
    Order.load(folder, path.parent.name)


def open_items(folder: RunFolder, order: Order) -> list[str]:
    """Return the ids of the items that an order still has to make."""
    wanted = [item.id for item in folder.items()] if order.items is None else order.items
    records = folder.records(check_files=True)
    return [item_id for item_id in wanted if not order.is_settled(item_id, records.get(item_id))]


def incomplete(folder: RunFolder, why: str, kind: type[IncompleteError] = IncompleteError) -> IncompleteError:
    """Return the error of a run that is not complete, with the command that continues it."""
    tally = folder.tally()
    return kind(
        f"{folder.path}: {why}: {tally.done} of {tally.items} items are done.",
        remedy="To go on, run the same command again; finished items are kept.",
    )


def log_folder(folder: RunFolder, job: str, task: int | None = None) -> Path:
    """Return the folder of the logs of a launch, or of one task of its array, absolute."""
    return folder.logs / job if task is None else folder.logs / job / f"task-{task}"


def rank_log(folder: RunFolder, job: str, rank: int, task: int | None = None) -> Path:
    """Return the log of one rank of a launch, absolute."""
    return log_folder(folder, job, task) / f"rank-{rank}.log"


def _path(folder: RunFolder, job: str) -> Path:
    return log_folder(folder, job) / "order.json"
