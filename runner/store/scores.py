"""The score files of a run, `scores/<metric>.jsonl`: each number with the files and options it was measured with.

Files are replaced atomically every few measurements, and what other processes have written meanwhile is kept: several
may score one run at a time, each its shard.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from genrun.adapters.scorers.contract import Described, settings_of
from genrun.runner.errors import DamagedFileError
from genrun.runner.store.files import LOCK, WRONG_CONTENT, atomic_write, locked, read_bytes, reading, write_error
from genrun.runner.store.records import Score
from genrun.runner.strict_json import read_json

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder

# A kill loses at most these; the whole file is written each time, which adds up where metrics are fast.
SAVE_EVERY = 50
"""Measurements after which the files are written."""

SCORE_FIELDS = tuple(field.name for field in fields(Score))
_score_values = itemgetter(*SCORE_FIELDS)

Key = tuple[str, str]
"""Item (or set) and part: the number that is measured by itself, for most metrics its name."""

OnDamage = Callable[[str], None]
"""Callback that gets a message about each line that cannot be read."""

Stamp = tuple[int, int, int]
"""Inode, time of change in ns, size: another whenever a file was replaced."""


@dataclass(frozen=True)
class Measurement:
    """The scores of one part of a metric on one item or set, and what they were measured on.

    Attributes:
        scores: the number and those that come with it; a single row without a value when it could not be measured.
        inputs: SHA-256 of each file it was measured on; "" for one that is not there.
        settings: of the metric, as JSON.
    """

    scores: tuple[Score, ...]
    inputs: tuple[str, ...]
    settings: str = "{}"

    def holds_for(self, metric: Described, inputs: tuple[str, ...]) -> bool:
        """Return True when measuring again would give the same."""
        is_whole = all(score.value is not None for score in self.scores)
        return is_whole and self.inputs == inputs and self.is_of(metric)

    def is_of(self, metric: Described) -> bool:
        """Return True when it was measured by this version of the metric, with these options."""
        return self.settings == settings_text(metric) and all(each.version == metric.version for each in self.scores)

    def lines(self, part: str, entries: int) -> list[str]:
        """Write a JSON object a score; each says how many there are, and of how many entries, so that a cut is seen."""
        about = {"inputs": self.inputs, "settings": json.loads(self.settings), "part": part}
        about |= {"rows": len(self.scores), "entries": entries}
        return [json.dumps({**asdict(score), **about}) + "\n" for score in self.scores]


class ScoreLine(NamedTuple):
    """A line of a score file.

    Attributes:
        score: the number, or the reason for none.
        part: as in `Key`.
        settings: of the metric.
        inputs: as in `Measurement`.
        rows: how many lines the entry has; 0 where it does not say.
        entries: how many entries the file has; 0 where it does not say.
    """

    score: Score
    part: str
    settings: dict[str, Any]
    inputs: tuple[str, ...]
    rows: int
    entries: int


def metrics_of(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the metrics that a run's job names, each with the options it gives, in the job's order."""
    entries = ({"kind": entry} if isinstance(entry, str) else dict(entry) for entry in document.get("score") or ())
    return {str(entry.pop("kind")): entry for entry in entries}


def settings_text(metric: Described) -> str:
    """Return a metric's settings in a form that can be compared."""
    return json.dumps(settings_of(metric), sort_keys=True)


class ScoreStore:
    """The score files of some metrics, in memory.

    Args:
        run: the run folder.
        metrics: whose files.
        order: ids of items and sets, in the order of rows; others are dropped.
        note: told of every line that cannot be read.
    """

    def __init__(self, run: RunFolder, metrics: Sequence[Described], order: Sequence[str], note: OnDamage) -> None:
        self._metrics = {metric.name: metric for metric in metrics}
        self._paths = {metric.name: run.scores_path(metric.name) for metric in metrics}
        self._stamps = {name: _stamp(path) for name, path in self._paths.items()}
        self._entries = {name: self._read(name, note) for name in self._paths}
        self._ours: dict[str, set[Key]] = {name: set() for name in self._paths}
        self._order = {item_id: index for index, item_id in enumerate(order)}
        self._unsaved = 0

    def is_current(self, metric: Described, key: Key, inputs: tuple[str, ...]) -> bool:
        """Return True when what is known still holds, so that nothing has to be measured."""
        known = self._entries[metric.name].get(key)
        return known is not None and known.holds_for(metric, inputs)

    def put(self, metric: Described, key: Key, scores: tuple[Score, ...], inputs: tuple[str, ...]) -> None:
        """Keep a measurement, in place of an older one."""
        self._entries[metric.name][key] = Measurement(scores, inputs, settings_text(metric))
        self._ours[metric.name].add(key)
        self._unsaved += 1
        if self._unsaved >= SAVE_EVERY:
            self.save()

    def drop(self, metric: Described, key: Key) -> None:
        """Forget a measurement."""
        if self._entries[metric.name].pop(key, None) is not None:
            self._ours[metric.name].add(key)
            self._unsaved += 1

    def save(self) -> None:
        """Replace the files in which something has changed."""
        if not self._unsaved:
            return
        for name in (name for name, ours in self._ours.items() if ours):
            path = self._paths[name]
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise write_error(path.parent, error) from error
            with locked(path.parent / LOCK):
                self._merge(name)
                entries = self._in_order(name)
                lines = [line for (_, part), entry in entries for line in entry.lines(part, len(entries))]
                atomic_write(path, "".join(lines).encode())
                self._stamps[name] = _stamp(path)
            # Kept in memory, but another process may measure them again from here on.
            self._ours[name].clear()
        self._unsaved = 0

    def rows(self) -> list[Score]:
        """Return all rows, by metric, then in the order of the plan."""
        return [score for name in self._paths for _, entry in self._in_order(name) for score in entry.scores]

    def values(self, metric: Described, item_id: str, inputs: tuple[str, ...]) -> dict[str, float]:
        """Return the numbers of one item or set that still hold, by part."""
        known = self._entries[metric.name].items()
        held = {part: entry for (item, part), entry in known if item == item_id and entry.holds_for(metric, inputs)}
        values = {part: entry.scores[0].value for part, entry in held.items()}
        return {part: value for part, value in values.items() if value is not None}

    def parts(self, metric: Described, item_id: str) -> list[str]:
        """Return the parts that are known of one item or set."""
        return [part for item, part in self._entries[metric.name] if item == item_id]

    def _merge(self, name: str) -> None:
        """Take over what another process has written since this one read the file, but for what was measured here."""
        ours = self._ours[name]
        if _stamp(self._paths[name]) == self._stamps[name]:
            return
        mine = {key: entry for key, entry in self._entries[name].items() if key in ours}
        theirs = {key: entry for key, entry in self._read(name).items() if key not in ours}
        self._entries[name] = {**theirs, **mine}

    def _read(self, name: str, note: OnDamage = lambda text: None) -> dict[Key, Measurement]:
        """Read a metric's file, without what is to be measured anew: a file that is half new and half old has no mean."""
        metric = self._metrics[name]
        parts = getattr(metric, "parts", (name,))
        found = read(self._paths[name], note)
        return {key: entry for key, entry in found.items() if key[1] not in parts or entry.is_of(metric)}

    def _in_order(self, name: str) -> list[tuple[Key, Measurement]]:
        entries = [(key, entry) for key, entry in self._entries[name].items() if key[0] in self._order]
        return sorted(entries, key=lambda pair: self._order[pair[0][0]])


def read(path: Path, note: OnDamage = lambda text: None) -> dict[Key, Measurement]:
    """Read a score file; lines that are broken or belong to an entry that is cut off are named and left out.

    Raises:
        StoreError: it may not be looked into, or is no file.
    """
    if not os.path.lexists(path):
        return {}
    with reading(path, remedy="Move it out of the way; genrun score then measures again."):
        text = read_bytes(path).decode("utf-8", errors="replace")
    grouped: dict[Key, list[ScoreLine]] = {}
    metric = path.stem
    for number, line in enumerate(text.split("\n"), start=1):
        if not line:
            continue
        row = _parsed(line, metric)
        if row is None:
            note(f"{path}:{number}: this line is cut off or broken; what it said is measured again.")
        else:
            grouped.setdefault((row.score.item_id, row.part), []).append(row)
    return _whole(grouped, path, note)


def _whole(grouped: Mapping[Key, Sequence[ScoreLine]], path: Path, note: OnDamage) -> dict[Key, Measurement]:
    """Return the complete entries, and report those with missing rows."""
    whole: dict[Key, Measurement] = {}
    for key, rows in grouped.items():
        if len(rows) == (rows[0].rows or len(rows)):
            settings = json.dumps(rows[0].settings, sort_keys=True) if rows[0].settings else "{}"
            whole[key] = Measurement(tuple(row.score for row in rows), rows[0].inputs, settings)
        else:
            note(f"{path}: {len(rows)} of {rows[0].rows} rows of {key[0]} are there; it is measured again.")
    listed = max((rows[0].entries for rows in grouped.values()), default=0)
    if len(grouped) < listed:
        note(f"{path}: cut off: {len(grouped)} of {listed} entries are there; the others are measured again.")
    return whole


def check_file(folder: RunFolder, path: Path) -> None:
    """Read a score file as `genrun verify` does.

    Raises:
        StoreError: a line of it is broken, or it may not be looked into.
    """
    del folder
    told: list[str] = []
    read(path, told.append)
    if told:
        message = f"{path}: {told[0].removeprefix(str(path)).lstrip(':')}"
        raise DamagedFileError(message, remedy="genrun score measures it again.")


def score_files(run: RunFolder) -> list[Path]:
    """Return the score files of a run, sorted, without those that are being written or were left half written."""
    found = run.scores_path("any").parent.glob("*.jsonl")
    return sorted(path for path in found if not path.name.startswith("."))


def read_scores(run: RunFolder, note: OnDamage = lambda text: None) -> list[Score]:
    """Return all rows that earlier scoring left in a run folder."""
    return [score for file in score_files(run) for entry in read(file, note).values() for score in entry.scores]


def whole_lines(path: Path) -> str:
    """Return the entries of a score file that are whole, as they would be written."""
    entries = read(path)
    return "".join(line for (_, part), entry in entries.items() for line in entry.lines(part, len(entries)))


def _parsed(line: str, metric: str) -> ScoreLine | None:
    """Parse a line; None when it was cut off, or an editor broke it."""
    try:
        found = read_json(line)
        score = Score(*_score_values(found))
        inputs = found["inputs"]
        get = found.get
        row = ScoreLine(
            score, get("part", metric), get("settings", {}), tuple(inputs), get("rows", 0), get("entries", 0)
        )
    except WRONG_CONTENT:
        return None
    is_right = (
        (score.value is None or type(score.value) in (int, float))
        and isinstance(score.item_id, str)
        and isinstance(score.metric, str)
        and isinstance(score.higher_is_better, bool)
        and isinstance(score.reason, str | None)
        and type(score.version) is int
        and isinstance(row.part, str)
        and isinstance(row.settings, dict)
        and type(row.rows) is int
        and type(row.entries) is int
        and isinstance(inputs, list)
        and all(isinstance(each, str) for each in inputs)
    )
    return row if is_right else None


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_size)
