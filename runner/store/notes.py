"""The small files of a run beside its plan and records: job, environment, night, launches, scores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from genrun.runner.errors import DamagedFileError, StoreError
from genrun.runner.store.reading import MENDS, read_bytes, read_json, reading

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder

SCORE_AGAIN = "genrun score measures it again."


def damaged_notes(folder: RunFolder) -> Iterator[tuple[Path, StoreError]]:
    """Yield the files that are damaged or may not be looked into, and what is wrong with each."""
    from genrun.runner.store.folder import HASHED

    for name, read in (
        ("job.yaml", folder.job_document),
        ("env.json", folder.environment),
    ):
        try:
            read()
            if name in HASHED and not folder.is_as_written(name):
                why = "is not the file that was written: its SHA-256 differs from that in env.json"
                yield folder.path / name, DamagedFileError(f"{folder.path / name}: {why}.", remedy=MENDS)
        except StoreError as error:
            yield folder.path / name, error
    yield from damaged_extras(folder)


def damaged_extras(folder: RunFolder) -> Iterator[tuple[Path, StoreError]]:
    """Yield of these only the files that a run need not have: night.json, notes of launches, scores."""
    for path in (
        folder.night_path,
        *sorted(folder.logs.glob("*/order.json")),
        *sorted(folder.logs.glob("*/slurm.json")),
    ):
        try:
            _check(folder, path)
        except StoreError as error:
            yield path, error
    for path in sorted(folder.scores_path("any").parent.glob("*.jsonl")):
        found = _scores(path)
        if found is not None:
            yield path, found


def damaged_encodings(folder: RunFolder, most_bytes: int | None = None) -> Iterator[tuple[Path, StoreError]]:
    """Yield the encodings of prompts that are damaged, or may not be looked into.

    Args:
        folder: the run.
        most_bytes: of more than that in all, only headers and lengths are looked at.
    """
    from genrun.adapters.sealed import check

    paths = [path for path in sorted(folder.path.glob("prompts/*/*")) if not path.name.startswith(".")]
    is_whole = most_bytes is None or sum(path.stat().st_size for path in paths if path.is_file()) <= most_bytes
    for path in paths:
        try:
            with reading(path):
                check(path, whole=is_whole)
        except StoreError as error:
            yield path, error


def _check(folder: RunFolder, path: Path) -> None:
    """Read one of them as its readers do."""
    from genrun.runner.launch.order import Order
    from genrun.runner.launch.submissions import parse
    from genrun.runner.store.nights import Night

    try:
        path.lstat()
    except FileNotFoundError:
        return
    except OSError:
        pass
    with reading(path):
        if path.name == "order.json":
            Order.load(folder, path.parent.name)
        elif path.name == "slurm.json":
            parse(path.parent.name, read_json(read_bytes(path)))
        else:
            Night.from_dict(read_json(read_bytes(path)))


def _scores(path: Path) -> StoreError | None:
    from genrun.runner.store.scores import read

    told: list[str] = []
    try:
        read(path, told.append)
    except StoreError as error:
        return error
    return (
        DamagedFileError(f"{path}: {told[0].removeprefix(str(path)).lstrip(':')}", remedy=SCORE_AGAIN) if told else None
    )
