"""What `verify` and `status` of a large run take, beside reading and hashing its files alone.

    python -m tests.bench.verify_scale --items 50000 --bytes 100000

Each measurement is made once before it counts, so that the files are in memory: the worst case for what is not hashing.
Not a test: times belong to the machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from click.testing import CliRunner

from genrun.runner.cli import main as genrun
from genrun.runner.store.files import sha256_of
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.records import format_record
from genrun.runner.store.verify import verify
from tests.large_run import make_large_run


def give_media(run: RunFolder, size: int) -> list[Path]:
    """Write a file of its own for every item, and its hash and size into its record."""
    paths = []
    for item in run.items():
        record = run.record(item.id)
        assert record is not None
        content = os.urandom(size)
        path = run.media_path(item, ".mp4")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        run.record_path(item.id).write_bytes(format_record(replace(record, sha256=sha256, media_bytes=size)))
        paths.append(path)
    return paths


def measured(work: Callable[[], object]) -> dict[str, float]:
    """Do it twice; return what the second time took."""
    work()
    start, cpu = time.monotonic(), time.process_time()
    work()
    return {"wall_s": round(time.monotonic() - start, 2), "own_s": round(time.process_time() - cpu, 2)}


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--bytes", type=int, default=100_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        run = make_large_run(Path(name) / "demo" / "run", items=args.items)
        paths = give_media(run, args.bytes)
        found = {
            "hashing": measured(lambda: [sha256_of(path) for path in paths]),
            "verify": measured(lambda: verify(run)),
            "status": measured(lambda: CliRunner().invoke(genrun, ["status", str(run.path)])),
        }
        flaws = len(verify(run))
    ratios = {unit: round(found["verify"][unit] / found["hashing"][unit], 2) for unit in ("wall_s", "own_s")}
    print(json.dumps({"items": args.items, "bytes": args.bytes, **found, "ratios": ratios, "flaws": flaws}))


if __name__ == "__main__":
    main()
