"""A run folder: the only code that knows its file names.

    runs/NAME/2026-01-31T02-00-00-3f9c/      latest -> the run that was submitted last
        job.yaml plan.jsonl env.json         the resolved job, its items, the machine and versions
        items/3f/3f9c....json                one Record per item, written last
        media/3f/3f9c....mp4                 latents/3f/3f9c....safetensors
        prompts/a0/a07e....safetensors       encodings of a prompt, made once
        leases/  logs/  scores/  report/
        night.json                           of nightly runs: when, how it went, what was measured

A record is the only proof that an item is done: its files are on the disk under their final names before it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.runner.errors import StoreError
from genrun.runner.store.files import LOCK, atomic_write, is_temporary, locked, sync, temporary_name, write_error
from genrun.runner.store.records import Record, SamplerStats

if TYPE_CHECKING:
    from genrun.runner.plan import WorkItem


@dataclass(frozen=True)
class Tally:
    """How far a run is: counts of items. `pending` items have no record yet."""

    items: int
    done: int
    failed: int

    @property
    def pending(self) -> int:
        """Items without a record."""
        return self.items - self.done - self.failed


@dataclass(frozen=True)
class RunFolder:
    """One run on disk.

    Attributes:
        path: the folder, absolute.
    """

    path: Path

    @classmethod
    def create(cls, path: Path, document: Mapping[str, Any], items: Sequence[WorkItem]) -> RunFolder:
        """Make the folder `path`, whole or not at all.

        Args:
            path: the folder, which must not be there yet.
            document: the resolved job.
            items: the plan.

        Raises:
            StoreError: the folder is there already, or cannot be written.
        """
        from genrun.runner.store.environment import describe

        building = temporary_name(path)
        try:
            building.mkdir(parents=True)
            new = cls(building)
            atomic_write(new.path / "env.json", json.dumps(describe(), indent=1).encode())
            new.write_plan(document, items)
            building.rename(path)
            sync(path.parent)
        except OSError as error:
            raise write_error(path, error) from error
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open the run in `path`.

        Raises:
            StoreError: there is no run in that folder.
        """
        if not (path / "plan.jsonl").is_file():
            raise StoreError(f"{path}: not a run folder: it has no plan.jsonl.", remedy="genrun status lists runs.")
        return cls(path.resolve())

    def write_plan(self, document: Mapping[str, Any], items: Sequence[WorkItem]) -> None:
        """Write job.yaml and plan.jsonl."""
        import yaml

        job = yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True)
        atomic_write(self.path / "job.yaml", job.encode())
        atomic_write(self.path / "plan.jsonl", "".join(f"{item.to_json()}\n" for item in items).encode())

    def items(self) -> list[WorkItem]:
        """Read the plan: every item, in order.

        Raises:
            StoreError: the plan cannot be read.
        """
        from genrun.runner.plan import WorkItem

        plan = self.path / "plan.jsonl"
        with _reading(plan):
            return [WorkItem.from_json(line) for line in plan.read_text(encoding="utf-8").splitlines()]

    def job_document(self) -> dict[str, Any]:
        """Read the resolved job.

        Raises:
            StoreError: job.yaml cannot be read.
        """
        import yaml

        job = self.path / "job.yaml"
        with _reading(job):
            return yaml.safe_load(job.read_text(encoding="utf-8"))

    def environment(self) -> dict[str, Any]:
        """Read versions, git commit and machine, as they were when the run was made."""
        env = self.path / "env.json"
        with _reading(env):
            return json.loads(env.read_text(encoding="utf-8"))

    def record_path(self, item_id: str) -> Path:
        """Where the record of an item lies, absolute."""
        return self.path / "items" / item_id[:2] / f"{item_id}.json"

    def media_path(self, item: WorkItem, suffix: str) -> Path:
        """Where the picture or clip of an item lies, absolute. `suffix` is ".mp4" or ".png"."""
        return self.path / "media" / item.id[:2] / f"{item.id}{suffix}"

    def latents_path(self, item_id: str) -> Path:
        """Where the final latents of an item lie if they were saved, absolute."""
        return self.path / "latents" / item_id[:2] / f"{item_id}.safetensors"

    def encodings_path(self, key: str) -> Path:
        """Where the encodings of a prompt lie, absolute; `key` is that of `runner.work.prompts`."""
        return self.path / "prompts" / key[:2] / f"{key}.safetensors"

    @property
    def encodings_lock(self) -> Path:
        """The lock of whoever encodes prompts: the text encoders are loaded by one process."""
        return self.path / "prompts" / LOCK

    def scores_path(self, metric: str) -> Path:
        """Where the scores of one metric lie, absolute: one JSON object per line."""
        return self.path / "scores" / f"{metric}.jsonl"

    def scores_workspace(self, metric: str) -> Path:
        """A folder in which a metric may keep what it wants to find again, absolute; perhaps not there."""
        return self.path / "scores" / f".{metric}"

    @property
    def leases(self) -> Path:
        """The folder of leases: one file per item in work."""
        return self.path / "leases"

    def progress_path(self, item_id: str) -> Path:
        """Where the worker notes how far an item in work is: [front, steps] as JSON. Only for show."""
        return self.leases / f".{item_id}.progress"

    @property
    def logs(self) -> Path:
        """The folder of logs: one folder per launch."""
        return self.path / "logs"

    @property
    def night_path(self) -> Path:
        """Where a nightly run tells what came of its night."""
        return self.path / "night.json"

    @property
    def report_dir(self) -> Path:
        """The folder of the report."""
        return self.path / "report"

    def relative(self, path: Path) -> str:
        """Return `path` relative to the run folder, with forward slashes, as records store it."""
        return path.relative_to(self.path).as_posix()

    def record(self, item_id: str) -> Record | None:
        """Read the record of an item, or None when it has none.

        Raises:
            StoreError: there is a record, but it cannot be read.
        """
        path = self.record_path(item_id)
        try:
            return parse_record(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise _unreadable(path, error) from error

    def records(self) -> dict[str, Record]:
        """Read every record, by item id; also of items that are in no plan.

        Raises:
            StoreError: a record cannot be read.
        """
        # Without pathlib, which takes longer than reading: `status` does this for every record of a run.
        records: dict[str, Record] = {}
        for name in _files_in_folders(self.path / "items", ".json"):
            try:
                record = parse_record(_whole(name))
            except FileNotFoundError:
                continue
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise _unreadable(Path(name), error) from error
            records[record.item_id] = record
        return records

    def record_files(self) -> list[Path]:
        """The files of the records, sorted."""
        return sorted(path for path in self.path.glob("items/*/*.json") if not is_temporary(path.name))

    def result_files(self) -> list[Path]:
        """Every media and latents file under its final name, sorted; absolute."""
        found = (path for room in ("media", "latents") for path in self.path.glob(f"{room}/*/*"))
        return sorted(path for path in found if not is_temporary(path.name))

    def write_record(self, record: Record) -> bool:
        """Write a record that has no files beside it; see `publish`."""
        return self.publish(record, {})

    def publish(self, record: Record, staged_files: Mapping[Path, Path]) -> bool:
        """Give an item's files their final names, then write its record; unless the item is done already.

        Two workers that finish one item at the same time come here one after the other, so that a record always
        belongs to the files beside it.

        Args:
            record: the outcome.
            staged_files: temporary file -> final file, both absolute.

        Returns:
            Whether the record was written. False: another worker was first, and this result is to be dropped.

        Raises:
            StoreError: the disk is full, or the folder cannot be written.
        """
        with self.lock():
            present = self.record(record.item_id)
            if present is not None and present.status == "done":
                return False
            if present is not None and present.latents and not record.latents:
                record = self._inherit_latents(record, present)
            for temporary, final in staged_files.items():
                _move(temporary, final)
            atomic_write(self.record_path(record.item_id), format_record(record))
        return True

    def _inherit_latents(self, record: Record, before: Record) -> Record:
        """Keep the latents of an attempt whose decoding failed while the item fails, and remove them once it is done."""
        if record.status != "done":
            return dataclasses.replace(record, latents=before.latents, latents_sha256=before.latents_sha256)
        # Before the record is written: a worker that is killed here comes back to this item.
        (self.path / str(before.latents)).unlink(missing_ok=True)
        return record

    @contextlib.contextmanager
    def staged(self, path: Path) -> Iterator[Path]:
        """Lend a temporary name for `path`; remove the file after the block unless `publish` has moved it.

        Raises:
            StoreError: instead of any OSError in the block.
        """
        temporary = temporary_name(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
        except OSError as error:
            raise write_error(path, error) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run's lock: for the moment in which leases and records change hands."""
        try:
            self.leases.mkdir(exist_ok=True)
        except OSError as error:
            raise write_error(self.leases, error) from error
        with locked(self.leases / LOCK):
            yield

    def temporary_files(self, item_id: str = "") -> list[Path]:
        """Temporary files of results, of one item or of all; of all, those of prompts too."""
        pattern = f"{item_id[:2] or '*'}/.{item_id}*"
        names = ("items", "media", "latents", *(() if item_id else ("prompts",)))
        rooms = (self.path / name for name in names)
        return sorted(path for room in rooms for path in room.glob(pattern) if is_temporary(path.name))

    def tally(self) -> Tally:
        """Count the planned items by the state of their records."""
        records = self.records()
        statuses = [records[item.id].status for item in self.items() if item.id in records]
        return Tally(len(self.items()), statuses.count("done"), statuses.count("failed"))


def format_record(record: Record) -> bytes:
    """Return a record as JSON."""
    return (json.dumps(dataclasses.asdict(record), indent=1, allow_nan=False) + "\n").encode()


def parse_record(data: bytes) -> Record:
    """Read a record from JSON.

    Raises:
        ValueError, TypeError: it is not one.
    """
    fields = json.loads(data)
    sampler = fields.get("sampler")
    if sampler is not None:
        fields["sampler"] = SamplerStats(**{**sampler, "fronts": tuple(sampler["fronts"])})
    lists = {name: tuple(fields[name]) for name in ("memory_bytes", "saving") if name in fields}
    return Record(**{**fields, **lists})


def _files_in_folders(room: Path, suffix: str) -> Iterator[str]:
    """The files of that suffix in the folders of `room`, but for temporary ones."""
    try:
        with os.scandir(room) as folders:
            names = [folder.path for folder in folders]
        for name in names:
            with os.scandir(name) as files:
                yield from (file.path for file in files if file.name.endswith(suffix) and file.name[0] != ".")
    except (FileNotFoundError, NotADirectoryError):
        return


def _whole(name: str) -> bytes:
    descriptor = os.open(name, os.O_RDONLY)
    try:
        return b"".join(iter(lambda: os.read(descriptor, 1 << 20), b""))
    finally:
        os.close(descriptor)


def _move(temporary: Path, final: Path) -> None:
    try:
        sync(temporary)
        temporary.replace(final)
        sync(final.parent)
    except OSError as error:
        raise write_error(final, error) from error


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> StoreError:
    remedy = "Delete that file and run the same command again, or restore it from a copy."
    return StoreError(f"{path}: cannot be read: {type(error).__name__}: {error}.", remedy=remedy)
