"""Ways in which a file of a run is damaged, and a small run that has every kind of file."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from genrun.adapters.sampling.embeddings import pack
from genrun.runner.store.files import atomic_write, sha256_of
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.lease import Leases, Owner
from genrun.runner.store.nights import write_night
from genrun.runner.store.records import format_record
from tests.fakes.items import dead_process
from tests.fakes.nights import night

Damage = Callable[[Path], None]


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


TELLING = (b'"sha256": "', b'"platform": "')
"""What stands before a byte that may be another, and the file is still what it was: a record, or env.json."""


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    ends = [at + len(mark) for mark in TELLING if (at := content.find(mark)) >= 0]
    content[min(ends, default=len(content) // 2)] ^= 0x11
    path.write_bytes(content)


def listed(path: Path) -> None:
    path.write_text('[1, {"a": [2]}]\n')


def nulled(path: Path) -> None:
    path.write_text("null\n")


def infinite(path: Path) -> None:
    path.write_text('{"items": NaN, "status": 1e999}\n')


def nested(path: Path) -> None:
    path.write_text("[" * 100_000)


def deleted(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def a_folder(path: Path) -> None:
    deleted(path)
    path.mkdir()
    (path / "note").write_text("?")


def a_file(path: Path) -> None:
    deleted(path)
    path.write_text("?")


def no_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\xc3(" * 40)


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def a_loop(path: Path) -> None:
    deleted(path)
    path.symlink_to(path.name)


def dangling(path: Path) -> None:
    deleted(path)
    path.symlink_to("nowhere")


DAMAGES: tuple[Damage, ...] = (
    truncated,
    emptied,
    flipped,
    listed,
    nulled,
    infinite,
    nested,
    deleted,
    a_folder,
    no_text,
    zeros,
    a_loop,
    dangling,
)


@contextmanager
def denied(path: Path) -> Iterator[None]:
    """Refuse to open a file or to list a folder, as the system does for a user who is not root."""

    def refusing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(name: object, *args: Any, **kwargs: Any) -> Any:
            if isinstance(name, str | os.PathLike) and os.fspath(name) == os.fspath(path):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
            return real(name, *args, **kwargs)

        return call

    with (
        mock.patch("os.open", refusing(os.open)),
        mock.patch("io.open", refusing(open)),
        mock.patch("builtins.open", refusing(open)),
        mock.patch("os.scandir", refusing(os.scandir)),
        mock.patch("os.listdir", refusing(os.listdir)),
    ):
        yield


def furnish(folder: RunFolder) -> dict[str, Path]:
    """Give a finished run every other kind of file, and name one of each kind, relative to the run."""
    item = folder.items()[0]
    latents = folder.latents_path(item.id)
    atomic_write(latents, b"latents" * 9)
    record = folder.record(item.id)
    assert record is not None and record.media is not None
    fields = {"latents": folder.relative(latents), "latents_sha256": sha256_of(latents), "latents_bytes": 63}
    whole = json.loads(format_record(record)) | fields
    folder.record_path(item.id).write_text(json.dumps(whole))
    (order,) = folder.logs.glob("*/order.json")
    # Else `genrun cancel` would stop the process that runs the tests.
    order.write_text(json.dumps(json.loads(order.read_text()) | {"launcher": asdict(dead_process())}))
    (order.parent / "rank-0.log").write_text(f"2026-01-31 12:00:00 {item.id}: attempt 1\n")
    entry = {"name": "fake.1", "id": "7", "tasks": 1}
    (order.parent / "slurm.json").write_text(json.dumps({"user": "0", "jobs": {"items": entry}}))
    atomic_write(folder.encodings_path("ab" * 16), pack({"prompt_embeds": torch.ones(2, 3)}))
    write_night(folder.night_path, replace(night(1, 0.5), run=folder.path.name, items=2, done=2))
    lease = Leases(folder, Owner(dead_process(), f"{order.parent.name}.0")).claim(item.id)
    assert lease is not None
    lease._released.set()
    paths = {
        "job.yaml": folder.path / "job.yaml",
        "plan.jsonl": folder.path / "plan.jsonl",
        "env.json": folder.path / "env.json",
        "record": folder.record_path(item.id),
        "media": folder.path / record.media,
        "latents": latents,
        "encodings": folder.encodings_path("ab" * 16),
        "lease": folder.leases / item.id,
        "order.json": order,
        "slurm.json": order.parent / "slurm.json",
        "log": order.parent / "rank-0.log",
        "scores": folder.scores_path("psnr"),
        "night.json": folder.night_path,
        "report": folder.report_dir / "index.html",
    }
    return {kind: path.relative_to(folder.path) for kind, path in paths.items()}
