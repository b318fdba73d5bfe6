"""A run folder: the only code that knows its file names.

    runs/NAME/2026-01-31T02-00-00-3f9c/      latest -> the run that was submitted last
        job.yaml plan.jsonl env.json         the resolved job, its items, the machine and versions
        items/3f/3f9c....json                one Record per item, written last
        media/3f/3f9c....mp4                 latents/3f/3f9c....safetensors
        prompts/a0/a07e....safetensors       encodings of a prompt, made once
        inputs/5b/5bd2....png                pictures and clips that prompts name, by the hash of their bytes
        previews/3f9c....safetensors         of a model, how its latents are drawn before they are decoded
        leases/  logs/  scores/  report/
        night.json                           of nightly runs: when, how it went, what was measured

A record is the only proof that an item is done: its files are on the disk under their final names before it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.runner.errors import DamagedFileError, StoreError, UnreadableError
from genrun.runner.store import planfile
from genrun.runner.store.environment import describe
from genrun.runner.store.files import (
    LOCK,
    atomic_write,
    is_temporary,
    left_behind_in,
    locked,
    read_bytes,
    read_error,
    reading,
    remove_left_behind,
    sync,
    temporary_name,
    write_error,
)
from genrun.runner.store.planfile import PlanFile, read_job, read_plan
from genrun.runner.store.records import Record, format_record
from genrun.runner.store.results import (
    Survey,
    Tally,
    damaged_record,
    place_files,
    read_record,
    record_names,
    remove_replaced,
    result_path,
    survey,
)
from genrun.runner.strict_json import read_json
from genrun.version import __version__

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem

RESULTS = ("items", "media", "latents", "prompts")
"""Folders that only the holders of leases write into."""

FOLDERS = (*RESULTS, "inputs", "previews", "leases", "logs", "scores", "report")
"""All folders of a run."""

HASHED = ("job.yaml", "plan.jsonl")
"""Files whose hashes env.json holds."""


@dataclass(frozen=True)
class RunFolder:
    """A run on disk.

    Attributes:
        path: the folder, absolute.
    """

    path: Path

    @classmethod
    def create(
        cls,
        path: Path,
        document: Mapping[str, Any],
        items: Sequence[WorkItem],
        fill: Callable[[RunFolder], None] = lambda new: None,
    ) -> RunFolder:
        """Make the folder `path`, whole or not at all.

        Args:
            path: the folder, which must not be there yet.
            document: the resolved job.
            items: the plan.
            fill: puts results into the new folder before anybody can see it.

        Raises:
            StoreError: the folder is there already, or cannot be written.
        """
        building = temporary_name(path)
        try:
            building.mkdir(parents=True)
            new = cls(building)
            new.write_plan(document, items)
            fill(new)
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
        if not is_run(path):
            raise StoreError(f"{path}: not a run folder: it has no plan.jsonl.", remedy="genrun runs lists runs.")
        return cls(path.resolve())

    def write_plan(self, document: Mapping[str, Any], items: Sequence[WorkItem]) -> None:
        """Write job.yaml and plan.jsonl."""
        import yaml

        job = yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True)
        atomic_write(self.path / "job.yaml", job.encode())
        atomic_write(self.path / "plan.jsonl", "".join(f"{item.to_json()}\n" for item in items).encode())
        try:
            self.write_environment(self.environment())
        except DamagedFileError:
            self.write_environment()

    def items(self) -> list[WorkItem]:
        """Read the plan: every item, in order.

        Raises:
            StoreError: the plan cannot be read.
        """
        return self.plan().whole()

    def plan(self) -> PlanFile:
        """Read the plan, also one that is damaged in part.

        Raises:
            StoreError: nothing of it can be read.
        """
        return read_plan(self.path / planfile.FILE)

    def job_document(self) -> dict[str, Any]:
        """Read the resolved job.

        Raises:
            StoreError: job.yaml cannot be read, or is no job.
        """
        return read_job(self.path / "job.yaml")

    def environment(self) -> dict[str, Any]:
        """Read versions, git commit and machine, as they were when the run was made.

        Raises:
            StoreError: env.json cannot be read.
        """
        env = self.path / "env.json"
        with reading(env):
            found = read_json(read_bytes(env))
            if not isinstance(found, dict) or not isinstance(found.get("versions"), dict):
                raise TypeError("holds no environment")
            return found

    def write_environment(self, found: Mapping[str, Any] | None = None) -> None:
        """Write versions, git commit and machine, as they are now where none are given, and the hashes of job and plan."""
        sums = {name: hashlib.sha256(read_bytes(self.path / name)).hexdigest() for name in HASHED}
        atomic_write(self.path / "env.json", json.dumps({**(found or describe()), "sha256": sums}, indent=1).encode())

    def is_as_written(self, name: str) -> bool:
        """Tell whether job.yaml or plan.jsonl is what was written, byte for byte, as far as env.json tells."""
        try:
            noted = self.environment().get("sha256") or {}
        except DamagedFileError:
            return True
        return noted.get(name) in (None, hashlib.sha256(read_bytes(self.path / name)).hexdigest())

    def is_of_this_version(self) -> bool:
        """Tell whether this version of genrun made the run, as far as env.json tells."""
        try:
            return self.environment()["versions"].get("genrun") == __version__
        except DamagedFileError:
            return False

    def record_path(self, item_id: str) -> Path:
        """Return where the record of an item lies, absolute."""
        return self.path / "items" / item_id[:2] / f"{item_id}.json"

    def media_path(self, item: WorkItem, suffix: str) -> Path:
        """Return where the picture or clip of an item lies, absolute. `suffix` is ".mp4" or ".png"."""
        return result_path(self.path, "media", item.id, suffix)

    def latents_path(self, item_id: str) -> Path:
        """Return where the final latents of an item lie if they were saved, absolute."""
        return result_path(self.path, "latents", item_id, ".safetensors")

    def encodings_path(self, key: str) -> Path:
        """Return where the encodings of a prompt lie, absolute; `key` is a hash of all that they depend on."""
        return self.path / "prompts" / key[:2] / f"{key}.safetensors"

    @property
    def encodings_lock(self) -> Path:
        """The lock of whoever encodes prompts: the text encoders are loaded by one process."""
        return self.path / "prompts" / LOCK

    def scores_path(self, metric: str) -> Path:
        """Return where the scores of one metric lie, absolute: one JSON object per line."""
        return self.path / "scores" / f"{metric}.jsonl"

    def scores_workspace(self, metric: str) -> Path:
        """Return a folder in which a metric may keep what it wants to find again, absolute; perhaps not there."""
        return self.path / "scores" / f".{metric}"

    @property
    def leases(self) -> Path:
        """The folder of leases: one file per item in work."""
        return self.path / "leases"

    def progress_path(self, item_id: str) -> Path:
        """Return where the worker notes how far an item in work is: [front, steps] as JSON. Only for show."""
        return self.leases / f".{item_id}.progress"

    @property
    def logs(self) -> Path:
        """The folder of logs: one folder per launch."""
        return self.path / "logs"

    @property
    def night_path(self) -> Path:
        """The file in which a nightly run tells what came of its night."""
        return self.path / "night.json"

    @property
    def report_dir(self) -> Path:
        """The folder of the report."""
        return self.path / "report"

    def relative(self, path: Path) -> str:
        """Return `path` relative to the run folder, with forward slashes, as records store it."""
        return path.relative_to(self.path).as_posix()

    def record(self, item_id: str, *, check_files: bool = False) -> Record | None:
        """Read the record of an item, or None when it has none; one that is damaged says that its item failed.

        Args:
            item_id: the item.
            check_files: whether an item whose files are lost counts as failed, so that it is made again.

        Raises:
            UnreadableError: there is a record, but it cannot be looked into.
        """
        try:
            return read_record(self.path, str(self.record_path(item_id)), item_id, check_files=check_files)
        except FileNotFoundError:
            return None
        except DamagedFileError as error:
            return damaged_record(item_id, error)

    def records(self, *, check_files: bool = False) -> dict[str, Record]:
        """Read every record by item id, as `record` does; also of items that are in no plan.

        Raises:
            UnreadableError: a record cannot be looked into, so that nobody knows whether its item is done.
        """
        found = self.survey(check_files=check_files)
        if found.unreadable:
            raise next(iter(found.unreadable.values()))
        return found.records

    def survey(self, *, check_files: bool = False) -> Survey:
        """Read every record, and tell what is wrong with those that do not count."""
        return survey(self.path, check_files=check_files)

    def recorded(self) -> Iterator[str]:
        """Yield the ids of the items that have a record."""
        return (Path(name).stem for name in record_names(self.path))

    def record_files(self) -> list[Path]:
        """List the files of the records, sorted."""
        return sorted(path for path in self.path.glob("items/*/*.json") if not is_temporary(path.name))

    def result_files(self) -> list[Path]:
        """List every media and latents file under its final name, sorted; absolute."""
        found = (path for room in ("media", "latents") for path in self.path.glob(f"{room}/*/*"))
        return sorted(path for path in found if not is_temporary(path.name))

    def write_record(self, record: Record) -> bool:
        """Write a record that names no files; see `publish`."""
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
            before = self.record(record.item_id, check_files=True)
            if before is not None and before.status == "done":
                return False
            try:
                record = place_files(self.path, record, before, staged_files)
                self.replace_record(record)
            except StoreError:
                # On a disk that fills up just here, files without a record would be results of nothing.
                known = () if before is None else (before.media, before.latents)
                for final in staged_files.values():
                    if self.relative(final) not in known:
                        final.unlink(missing_ok=True)
                raise
            remove_replaced(self.path, record, before)
        return True

    def replace_record(self, record: Record) -> None:
        """Write a record, replacing any other. Call while holding the run's lock.

        Raises:
            StoreError: the disk is full, or the folder cannot be written.
        """
        atomic_write(self.record_path(record.item_id), format_record(record))

    @contextlib.contextmanager
    def staged(self, path: Path) -> Iterator[Path]:
        """Lend a temporary name for `path`; remove the file after the block unless `publish` has moved it.

        Raises:
            StoreError: instead of any OSError in the block.
        """
        temporary = temporary_name(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_left_behind(path.parent, f".{path.name}.")
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
        """List temporary files of one item's results; or of all results, and all that was left behind elsewhere in the run.

        Results are written by the holder of their item's lease; elsewhere a file is left alone while its process may live.
        """
        if not item_id:
            return sorted(left_behind_in(self.path, RESULTS))
        found = (path for room in RESULTS for path in self.path.glob(f"{room}/{item_id[:2]}/.{item_id}*"))
        return sorted(path for path in found if is_temporary(path.name))

    def tally(self) -> Tally:
        """Count the planned items by the state of their records; those whose files are lost have failed."""
        records, items = self.records(check_files=True), self.items()
        statuses = [records[item.id].status for item in items if item.id in records]
        return Tally(len(items), statuses.count("done"), statuses.count("failed"))


def is_run(path: Path) -> bool:
    """Tell whether a folder is a run: it has a plan, or what else a run has that has lost its plan.

    Raises:
        UnreadableError: the folder may not be looked into.
    """
    try:
        names = {entry.name for entry in path.iterdir()}
    except OSError as error:
        if isinstance(told := read_error(path, error), UnreadableError):
            raise told from error
        return False
    return planfile.FILE in names or ("job.yaml" in names and "env.json" in names) or {"items", "leases"} <= names
