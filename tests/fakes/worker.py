"""A worker whose pictures are a function of the item, made without torch; started by a launcher like the real one."""

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrun.runner.job.plan import WorkItem
from genrun.runner.parallel.team import Team
from genrun.runner.store import results
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.records import Note, SamplerStats
from genrun.runner.worker.main import main
from genrun.runner.worker.rank import GIB, MemoryUsage
from tests.fakes import faults

NAP = "GENRUN_TEST_NAP"
"""Seconds that every item takes."""
HOLD = "GENRUN_TEST_HOLD"
"""A number and a file, "1 /tmp/go": a worker samples so many items, and the next when the file is there."""
STEPS = 4
STATS = SamplerStats(STEPS, 2, 6, (2, 4))


def picture(item: WorkItem) -> bytes:
    """Return what the fake makes of an item."""
    return hashlib.sha256(item.id.encode()).digest() * 1000


@dataclass(frozen=True)
class FakeSample:
    item: WorkItem
    meet: Callable[[str, str], None]
    stats: SamplerStats = STATS
    can_overlap: bool = True
    notes: tuple[Note, ...] = ()

    def decode(self) -> bytes:
        self.meet("decoding", self.item.id)
        return picture(self.item)

    def decode_saving_memory(self) -> tuple[bytes, tuple[str, ...]]:
        self.meet("decoding in tiles", self.item.id)
        return picture(self.item), ("tiling", "slicing")

    def save_latents(self, path: Path) -> None:
        with path.open("wb") as file:
            file.write(b"latents ")
            file.flush()
            self.meet("latents", self.item.id)
            file.write(picture(self.item)[:100])


class FakeProducer:
    """Sleeps, then writes the item's picture in two halves."""

    device = "fake"
    memory = MemoryUsage(3 * GIB, 4 * GIB, is_device=True)
    evaluations = 6

    def __init__(self, document: Mapping[str, Any], team: Team, local_rank: int, launcher: int | None = None) -> None:
        self.launcher = launcher
        self.output = document.get("output") or {}
        self.made: list[str] = []
        self.meet("starting")

    def meet(self, moment: str, item: str = "") -> None:
        faults.meet(moment, self.launcher, item)

    def begin(self, folder: RunFolder, items: Sequence[WorkItem]) -> None:
        pass

    def is_ready(self, item: WorkItem) -> bool:
        return True

    def prepare(self, item: WorkItem) -> None:
        self.meet("loading", item.id)

    def suffix(self, item: WorkItem, frames: bytes) -> str:
        return ".mp4" if self.output.get("format") == "mp4" else ".png"

    def notes(self, item: WorkItem, frames: bytes) -> tuple[Note, ...]:
        return ()

    def sound(self, frames: bytes) -> dict[str, int]:
        return {}

    def sample(self, item: WorkItem, on_round: Callable[[int, int], None]) -> FakeSample:
        on_round(2, STEPS)
        time.sleep(float(os.environ.get(NAP, "0")))
        free, _, gate = os.environ.get(HOLD, "").partition(" ")
        while gate and len(self.made) >= int(free) and not Path(gate).exists():
            time.sleep(0.05)
        self.meet("sampling", item.id)
        on_round(STEPS, STEPS)
        self.made.append(item.id)
        return FakeSample(item, self.meet)

    def restore(self, item: WorkItem, latents: Path, stats: SamplerStats) -> FakeSample:
        if latents.read_bytes() != b"latents " + picture(item)[:100]:
            raise ValueError(f"{latents}: not a file of latents")
        self.meet("restoring", item.id)
        return FakeSample(item, self.meet, stats, can_overlap=False)

    def write(self, path: Path, frames: bytes, metadata: dict[str, Any]) -> None:
        json.dumps(metadata)
        if path.suffix == ".mp4":
            frames += f"crf {self.output.get('crf')}".encode()
        half = len(frames) // 2
        with path.open("wb") as file:
            file.write(frames[:half])
            file.flush()
            self.meet("half-written")
            file.write(frames[half:])


def run() -> int:
    """Run a worker that knows its launcher's process, and meets faults between a file's move and its record."""
    folder = RunFolder.open(Path(sys.argv[1]))
    order = json.loads((folder.logs / sys.argv[sys.argv.index("--job") + 1] / "order.json").read_text())
    launcher = order["launcher"] and order["launcher"]["pid"]
    move, publish = results.move_into_place, RunFolder.publish

    def move_and_meet(temporary: Path, final: Path) -> None:
        move(temporary, final)
        faults.meet("moved", launcher)

    def publish_and_meet(*args: Any) -> bool:
        written = publish(*args)
        faults.meet("recorded", launcher)
        return written

    for owner, name, replacement in (
        (results, "move_into_place", move_and_meet),
        (RunFolder, "publish", publish_and_meet),
    ):
        setattr(owner, name, replacement)
    return main(make_producer=lambda *args: FakeProducer(*args, launcher=launcher))


if __name__ == "__main__":
    sys.exit(run())
