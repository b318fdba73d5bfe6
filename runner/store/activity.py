"""Activity files, in which each rank of a run says what it is doing: small files beside the ranks' logs, only for show."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from genrun.adapters.files import TooLargeError, read_bounded
from genrun.runner.strict_json import read_json

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder

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
