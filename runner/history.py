"""The history of nights: `history.sqlite3` beside the runs, an index of the `night.json` of every run.

The file holds nothing that the run folders do not: it can be deleted, and `rebuild` makes it again. Nights whose runs were
removed to make room are read from the small files that they leave in `NAME/.nights/`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from genrun.runner.errors import StoreError
from genrun.runner.store.files import remove_left_behind, temporary_name
from genrun.runner.store.nights import GateResult, Night, read_night

FILE = "history.sqlite3"
SCHEMA_VERSION = 1

# Nights write a few rows each, in milliseconds; whoever holds the file longer than this is stuck, not busy.
WAIT_S = 30.0
"""Seconds to wait for a program that holds the file."""

REMEDY = "To make it again: genrun history --rebuild."
NO_ROOM = f"The disk is full, or at fault. Free some space, then run the same command again. {REMEDY}"
UNWRITABLE = ("SQLITE_FULL", "SQLITE_IOERR")
"""Beginnings of SQLite's names of errors that the disk is to blame for: it writes beside a file even to read it."""

LEFT = ".nights"
"""Folder of a job in which removed runs leave their night."""

SCHEMA = """
CREATE TABLE nights (
    job TEXT NOT NULL, run TEXT NOT NULL, night TEXT NOT NULL, scheduled_at TEXT NOT NULL,
    started_at TEXT NOT NULL, ended_at TEXT NOT NULL, state TEXT NOT NULL, late_s REAL NOT NULL,
    attempts INTEGER NOT NULL, doubled INTEGER NOT NULL, interrupted INTEGER NOT NULL,
    items INTEGER NOT NULL, done INTEGER NOT NULL, failed INTEGER NOT NULL, git_commit TEXT, baseline TEXT,
    summary TEXT NOT NULL, is_removed INTEGER NOT NULL, document TEXT NOT NULL, PRIMARY KEY (job, run)
) STRICT;
CREATE TABLE measures (
    job TEXT NOT NULL, run TEXT NOT NULL, cell TEXT NOT NULL, metric TEXT NOT NULL,
    n INTEGER NOT NULL, value REAL, low REAL, high REAL, PRIMARY KEY (job, run, cell, metric)
) STRICT;
CREATE TABLE gates (
    job TEXT NOT NULL, run TEXT NOT NULL, cell TEXT NOT NULL, metric TEXT NOT NULL, rule TEXT NOT NULL,
    written TEXT NOT NULL, threshold REAL, value REAL, low REAL, high REAL, state TEXT NOT NULL,
    PRIMARY KEY (job, run, cell, metric, rule)
) STRICT;
"""


def read(base: Path, job: str | None = None) -> list[Night]:
    """Return the nights under a folder of runs, oldest first; none where there is no history.

    Calls that were cut off since are told as interrupted.

    Raises:
        StoreError: the file is damaged, or of a newer version.
    """
    if not (base / FILE).is_file():
        return []
    # What no text can hold, such as bytes of a command line that are no UTF-8, is in no name of a job: nor is "?".
    name = None if job is None else job.encode("utf-8", "replace").decode()
    with _opened(base / FILE) as database:
        rows = database.execute(
            "SELECT document FROM nights WHERE ?1 IS NULL OR job = ?1 ORDER BY night, run", (name,)
        ).fetchall()
    return [Night.from_dict(json.loads(document)).observed() for (document,) in rows]


def record(base: Path, night: Night) -> None:
    """Enter a night, in place of what was known of its run. A file that is missing or damaged is made again.

    Raises:
        StoreError: the file cannot be written.
    """
    try:
        if (base / FILE).is_file():
            with _opened(base / FILE) as database:
                _enter(database, night)
            return
    except DamagedError:
        pass
    rebuild(base)


def rebuild(base: Path) -> int:
    """Make the file from the run folders, in place of what is there; return how many nights it holds.

    Raises:
        StoreError: the file cannot be written.
    """
    if base.is_dir() and not os.access(base, os.W_OK):
        raise StoreError(f"{base / FILE}: cannot be written: its folder is read-only.")
    nights = list(_nights(base))
    remove_left_behind(base, f".{FILE}.")
    building = temporary_name(base / FILE)
    try:
        with _opened(building, create=True) as database:
            for night in nights:
                _enter(database, night)
        # What a crash left of the old file must not be replayed into the new one.
        for leftover in ("-wal", "-shm"):
            (base / f"{FILE}{leftover}").unlink(missing_ok=True)
        building.replace(base / FILE)
    except OSError as error:
        raise StoreError(f"{base / FILE}: cannot be written: {error.strerror}.") from error
    finally:
        for leftover in ("", "-wal", "-shm"):
            building.with_name(building.name + leftover).unlink(missing_ok=True)
    return len(nights)


class DamagedError(StoreError):
    """A history that is no database, or has other tables."""


def _nights(base: Path) -> Iterator[Night]:
    for pattern in ("*/*/night.json", f"*/{LEFT}/*.json"):
        for path in sorted(base.glob(pattern)):
            night = None if path.parent.is_symlink() else read_night(path)
            if night is not None:
                yield night


@contextlib.contextmanager
def _opened(path: Path, *, create: bool = False) -> Iterator[sqlite3.Connection]:
    """Open the database for one transaction."""
    try:
        with contextlib.closing(_connect(path)) as database:
            if create:
                # Where the file system cannot share memory (NFS), SQLite stays with its rollback journal.
                database.execute("PRAGMA journal_mode = WAL").fetchone()
                database.executescript(f"{SCHEMA}PRAGMA user_version = {SCHEMA_VERSION};")
            _check_version(path, database)
            with database:
                yield database
    except sqlite3.Error as error:
        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            raise StoreError(f"{path}: another program has held it for {WAIT_S:.0f} s.") from error
        if str(getattr(error, "sqlite_errorname", "")).startswith(UNWRITABLE):
            raise StoreError(f"{path}: {error}.", remedy=NO_ROOM) from error
        raise DamagedError(f"{path}: cannot be read: {error}.", remedy=REMEDY) from error


def _connect(path: Path) -> sqlite3.Connection:
    """Open the file, also where its folder may not be written, as on an archive; SQLite reads none there by itself."""
    wal = path.with_name(f"{path.name}-wal")
    # Who writes at this moment has something in that file.
    if path.is_file() and not os.access(path.parent, os.W_OK) and not (wal.is_file() and wal.stat().st_size):
        return sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)
    return sqlite3.connect(path, timeout=WAIT_S)


def _check_version(path: Path, database: sqlite3.Connection) -> None:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        remedy = "Use that version, or make the file again: genrun history --rebuild."
        raise StoreError(f"{path}: written by a newer genrun (version {version}).", remedy=remedy)
    if version != SCHEMA_VERSION:
        raise DamagedError(f"{path}: not a history.", remedy=REMEDY)


def _enter(database: sqlite3.Connection, night: Night) -> None:
    key = (night.job, night.run)
    for table in ("nights", "measures", "gates"):
        database.execute(f"DELETE FROM {table} WHERE job = ? AND run = ?", key)
    started = night.attempts[0].started_at if night.attempts else night.scheduled_at
    ended = max((attempt.ended_at for attempt in night.attempts if attempt.end == "finished"), default="")
    counts = (len(night.attempts), night.doubled, night.interrupted, night.items, night.done, night.failed)
    row = (*key, night.night, night.scheduled_at, started, ended, night.state, night.late_s, *counts)
    row += (night.commit, night.baseline, night.summary, night.is_removed, json.dumps(night.to_dict()))
    database.execute(f"INSERT INTO nights VALUES ({', '.join('?' * len(row))})", row)
    database.executemany(
        "INSERT OR REPLACE INTO measures VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [(*key, each.cell, each.metric, each.n, each.value, each.low, each.high) for each in night.measures],
    )
    database.executemany(
        "INSERT OR REPLACE INTO gates VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [(*key, each.cell, *_gate_row(each.gate)) for each in night.gates],
    )


def _gate_row(gate: GateResult) -> tuple[str | float | None, ...]:
    name = (gate.metric, gate.rule, str(gate.limit))
    return (*name, gate.threshold, gate.value, gate.low, gate.high, gate.state)
