"""Files of a launch: the order, its workers' task, written before they start; and what each rank says it is doing.

An activity file lies beside a rank's log, is small, and is only for show.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from genrun.adapters.files import TooLargeError, read_bounded
from genrun.runner.errors import IncompleteError
from genrun.runner.parallel.mesh import Mesh
from genrun.runner.store.environment import ProcessName
from genrun.runner.store.files import atomic_write, read_bytes, reading
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


SUFFIX = ".activity.json"
INTERVAL_S = 1.0
"""Seconds between two writes in one phase."""

MAX_BYTES = 4096
MAX_NUMBER = 2**60
LOADING, SAMPLING, DECODING = "loading", "sampling", "decoding"
PHASES = (LOADING, SAMPLING, DECODING)


@dataclass(frozen=True)
class RankActivity:
    """Work of a rank when it last told.

    Attributes:
        rank: its number in its launch.
        item: the item that it is at; "" before the first.
        phase: "loading" (encoding of prompts included) or "sampling"; "decoding" where only the last item is finished.
        front: final states of the item.
        num_steps: N; 0 before sampling.
        phase_s: seconds that the phase has taken.
        evaluations: model evaluations that this rank has made of the item, one after the other.
        evaluation_s: seconds of one of them; 0 before the first.
        memory_bytes: what the rank holds, of the device's memory or of its own.
        decoding: the item that is decoded and written beside; "" for none.
        at: when it told, in seconds since the epoch.
    """

    rank: int
    item: str = ""
    phase: str = LOADING
    front: int = 0
    num_steps: int = 0
    phase_s: float = 0.0
    evaluations: int = 0
    evaluation_s: float = 0.0
    memory_bytes: int = 0
    decoding: str = ""
    at: float = 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds until the item is sampled at its pace so far; None while nothing tells."""
        if self.phase != SAMPLING or not 0 < self.front <= self.num_steps:
            return None
        return self.phase_s * (self.num_steps - self.front) / self.front


class ActivityFile:
    """The file of one rank, written at each change of phase, and once a second in between.

    Args:
        path: the file.
        rank: the rank's number.
        memory: returns the bytes that the rank holds.
    """

    def __init__(self, path: Path, rank: int, memory: Callable[[], int]) -> None:
        self._path, self._memory = path, memory
        self._now = RankActivity(rank)
        self._began = self._written_at = time.monotonic()
        self._first = 0

    def enter(self, phase: str, item: str) -> None:
        """Begin a phase of an item."""
        self._began = time.monotonic()
        self._now = RankActivity(self._now.rank, item, phase, decoding=self._now.decoding)
        self._write()

    def advance(self, front: int, num_steps: int, evaluations: int) -> None:
        """Note that `front` of `num_steps` states are final after so many evaluations of this rank, one after the other."""
        is_first = self._now.phase != SAMPLING
        if is_first:
            self._began, self._first = time.monotonic(), evaluations
            self._now = RankActivity(self._now.rank, self._now.item, SAMPLING, decoding=self._now.decoding)
        # Seen from the end of the first round: when it began nobody has told.
        later = evaluations - self._first
        each = (time.monotonic() - self._began) / later if later > 0 else 0.0
        self._now = replace(self._now, front=front, num_steps=num_steps, evaluations=evaluations, evaluation_s=each)
        if is_first or time.monotonic() - self._written_at >= INTERVAL_S:
            self._write()

    def decode(self, item: str) -> None:
        """Note which item is decoded beside, "" for none."""
        self._now = replace(self._now, decoding=item)
        self._write()

    def _write(self) -> None:
        self._written_at = time.monotonic()
        phase_s = round(self._written_at - self._began, 3)
        told = replace(self._now, memory_bytes=self._memory(), phase_s=phase_s, at=time.time())
        with contextlib.suppress(OSError):
            self._path.write_text(json.dumps(asdict(told)))


def activity_path(log: Path) -> Path:
    """Return the file of a rank, from its log."""
    return log.with_suffix(SUFFIX)


def activities(folder: RunFolder, held: Collection[str]) -> list[RankActivity]:
    """Return what the ranks are doing that are at the items `held`, by launch and rank, as far as it can be read."""
    found: list[tuple[Path, RankActivity]] = []
    for path in sorted((*folder.logs.glob(f"*/rank-*{SUFFIX}"), *folder.logs.glob(f"*/*/rank-*{SUFFIX}"))):
        with contextlib.suppress(OSError, ValueError, TypeError, TooLargeError):
            told = _parsed(read_bounded(path, MAX_BYTES))
            if told.item in held or told.decoding in held:
                found.append((path.parent, told))
    # Workers that were killed have left their files: of an item, those count that told last.
    newest: dict[str, tuple[float, Path]] = {}
    for launch, told in found:
        newest[told.item] = max(newest.get(told.item, (0.0, launch)), (told.at, launch))
    return [told for launch, told in found if newest[told.item][1] == launch]


def _parsed(data: bytes) -> RankActivity:
    """Return what a file says.

    Raises:
        ValueError: it is not what a rank writes.
        TypeError: the same.
    """
    raw = read_json(data)
    kinds = {"int": int, "float": (int, float), "str": str}
    if not isinstance(raw, dict) or any(
        field.name not in raw or not isinstance(raw[field.name], kinds[str(field.type)])
        for field in fields(RankActivity)
    ):
        raise ValueError("not what a rank writes")
    told = RankActivity(**{field.name: raw[field.name] for field in fields(RankActivity)})
    numbers = (told.rank, told.phase_s, told.evaluations, told.evaluation_s, told.memory_bytes, told.at)
    is_right = told.phase in PHASES and 0 <= told.front <= told.num_steps <= MAX_NUMBER
    if not (is_right and all(0 <= number <= MAX_NUMBER for number in numbers)):
        raise ValueError("not what a rank writes")
    return told
