"""Items and runs without a model."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from genrun.runner.job.plan import WorkItem
from genrun.runner.store.environment import ProcessName, current
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.records import Record, SamplerStats

HOSTILE = 'a "cat"\n; rm -rf / \t<script>alert(1)</script> ../../etc 🐱 \\ \x1b[31m ' + "long " * 2000


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def make_item(number: int, **changes: Any) -> WorkItem:
    fields: dict[str, Any] = {
        "id": digest(f"item {number}"),
        "pair": digest(f"pair {number}"),
        "prompt": f"prompt {number}",
        "negative_prompt": None,
        "seed": number,
        "model": {"adapter": "auto", "checkpoint": "test/fake"},
        "sampling": {"steps": 4},
        "solver": {"kind": "sequential"},
        "axes": {"solver": "sequential"},
    }
    return WorkItem(**{**fields, **changes})


def genuine(item: WorkItem) -> WorkItem:
    """The item under the id of what it says."""
    pair, item_id = item.hashes() or ("", "")
    return replace(item, pair=pair, id=item_id)


def document(**changes: Any) -> dict[str, Any]:
    base = {"name": "fake", "model": {"checkpoint": "test/fake"}, "sampling": {"steps": 4}, "seeds": [0]}
    return {**base, **changes}


def make_folder(path: Path, count: int = 3, **changes: Any) -> RunFolder:
    return RunFolder.create(path, document(**changes), [make_item(number) for number in range(count)])


def done(folder: RunFolder, item: WorkItem, content: bytes = b"picture", attempt: int = 1) -> bool:
    """Finish an item as a worker does; returns whether its record was written."""
    media = folder.media_path(item, ".png")
    with folder.staged(media) as temporary:
        temporary.write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        stats = SamplerStats(4, 2, 6, (2, 4))
        record = Record(item.id, "done", attempt, folder.relative(media), sha256, sampler=stats, elapsed_s=0.5)
        record = replace(record, media_bytes=len(content))
        return folder.publish(record, {temporary: media})


def failed(folder: RunFolder, item: WorkItem, kind: str = "out_of_memory", attempt: int = 1) -> bool:
    error = {"kind": kind, "message": "no memory", "remedy": "less", "rank": 0, "log": "logs/x/rank-0.log"}
    return folder.write_record(Record(item.id, "failed", attempt, error=error))


def dead_process() -> ProcessName:
    """A process that ran on this machine under this process's number, and is gone."""
    now = current()
    return ProcessName(now.host, now.boot, now.pid, "1")


def process_elsewhere() -> ProcessName:
    return ProcessName("node7", "another-boot", 4242, "77")
