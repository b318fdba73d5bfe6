"""Export the results of a run to a folder of its own: media by name and format, contact sheets, a table."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.adapters.media import CLIPS_ONLY, FORMATS, convert
from genrun.runner.errors import StoreError, UnreadableError, UsageError
from genrun.runner.export.filenames import DEFAULT, name_items
from genrun.runner.store.files import atomic_write, staged
from genrun.runner.store.folder import is_run
from genrun.runner.store.results import file_of, is_as_recorded, lost_file

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.records import Record, Score

AS_IS, FRAMES = "as-is", "frames"
ALL_FORMATS = (AS_IS, *FORMATS, FRAMES)
LIST = "export.json"
"""Lists what exports to a folder wrote: only those files are ever replaced."""

TABLE = "results.csv"
_SHEET = re.compile(r"sheet(-\d+)?\.png", re.IGNORECASE)
OUTCOME = ("status", "steps", "rounds", "nfe", "skipped", "elapsed_s", "device", "error")
"""Columns of the table that come from an item's record."""


@dataclass(frozen=True)
class ExportOptions:
    """The choices of an export.

    Attributes:
        name: template of file names, as of `filenames.name_items`.
        formats: of `ALL_FORMATS`; empty for no media.
        sheet: whether to draw contact sheets.
        csv: whether to write a table of everything known.
    """

    name: str = DEFAULT
    formats: Sequence[str] = (AS_IS,)
    sheet: bool = False
    csv: bool = False


@dataclass
class Exported:
    """The result of an export.

    Attributes:
        folder: where it lies.
        files: item id -> its files, relative to `folder`.
        others: contact sheets and the table.
        left_out: item id -> why it was not exported.
    """

    folder: Path
    files: dict[str, list[str]] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def export(
    run: RunFolder, to: Path, options: ExportOptions, progress: Callable[[int, int], None] = lambda done, total: None
) -> Exported:
    """Export a run. The same export again replaces what it wrote before, and nothing else.

    Args:
        run: the run; it is only read.
        to: the folder, made when it is missing.
        options: what to export.
        progress: told (items looked at, items in all).

    Raises:
        UsageError: names that cannot be, a format for another kind of media, a folder in a run, or files in the way that
            no export wrote.
        StoreError: a file cannot be read or written.
    """
    _check_outside(to)
    items, records = run.items(), run.records()
    names = name_items(items, options.name)
    made = Exported(to)
    media = {}
    for item in items:
        path, why = _media(run, records.get(item.id))
        if path is None:
            made.left_out[item.id] = why
        else:
            media[item.id] = path
            made.files[item.id] = [_target(names[item.id], path, each) for each in options.formats]
    _check_formats(options.formats, media)
    if options.sheet:
        _check_names(made, options.name)
    _check_free(to, made, options)
    _note(to, made, [TABLE] * options.csv)
    for index, item in enumerate(items):
        progress(index, len(items))
        if item.id not in media:
            continue
        if is_as_recorded(run.path, records[item.id], "media"):
            _write(to, media[item.id], made.files[item.id])
        else:
            # Of the right size, so that only reading it shows, which in a large run takes as long as copying.
            del media[item.id], made.files[item.id]
            made.left_out[item.id] = "its file is not the one that was made: genrun retry --item makes it again"
    progress(len(items), len(items))
    if options.sheet:
        _write_sheets(to, items, media, made)
    if options.csv:
        from genrun.runner.score.scoring import known_scores

        rows = rows_of(items, records, known_scores(run, items, records).scores, made.files)
        atomic_write(to / TABLE, to_csv(rows))
        made.others.append(TABLE)
    _note(to, made, is_done=True)
    return made


def _media(run: RunFolder, record: Record | None) -> tuple[Path | None, str]:
    if record is None or record.status != "done" or record.media is None:
        return None, "not made" if record is None else record.status
    path = file_of(run.path, record, "media")
    if path is None or lost_file(str(path), record.media_bytes):
        return None, "its file is lost, or not as it was written: genrun submit makes it again"
    return path, ""


def _target(name: str, media: Path, wanted: str) -> str:
    """Return what a format of an item is called; for frames, the folder."""
    if wanted == AS_IS:
        return f"{name}{media.suffix}"
    return f"{name}-frames" if wanted == FRAMES else f"{name}{FORMATS[wanted]}"


def _check_formats(formats: Sequence[str], media: Mapping[str, Path]) -> None:
    for wanted in formats:
        if wanted in CLIPS_ONLY and any(path.suffix == ".png" for path in media.values()):
            others = ", ".join(each for each in ALL_FORMATS if each not in (*CLIPS_ONLY, FRAMES))
            raise UsageError(f"--format {wanted}: these are pictures.", remedy=f"For pictures there are: {others}.")


def _check_names(made: Exported, template: str) -> None:
    """Refuse an item's file that a contact sheet would be written over."""
    for item_id, files in made.files.items():
        taken = next((name for name in files if _SHEET.fullmatch(name)), None)
        if taken is not None:
            raise UsageError(
                f"--name {template!r}: item {item_id} would be {taken!r}, which the contact sheet is called.",
                remedy="Add what tells it apart, such as {index}, {seed} or {id}; or leave --sheet out.",
            )


def _check_outside(to: Path) -> None:
    """Refuse to write into a run: what is in its folder is its own."""
    for path in (to.resolve(), *to.resolve().parents):
        # Folders above may be closed to the user.
        with contextlib.suppress(UnreadableError):
            if is_run(path):
                raise UsageError(f"--to {to}: lies in the run {path}.", remedy="Choose a folder outside of it.")


def _check_free(to: Path, made: Exported, options: ExportOptions) -> None:
    """Refuse to write over files that no export wrote."""
    ours = _noted(to)
    planned = [name for files in made.files.values() for name in files] + [TABLE] * options.csv
    planned += [path.name for path in to.glob("sheet*.png")] if options.sheet else []
    for name in planned:
        if name not in ours and (to / name).exists():
            raise UsageError(
                f"{to / name}: is there, and no export wrote it.", remedy="Choose another folder: --to FOLDER."
            )


def _noted(to: Path) -> set[str]:
    """Return what exports to a folder have written, as they noted it."""
    try:
        noted = json.loads((to / LIST).read_bytes())
    except FileNotFoundError:
        return set()
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{to / LIST}: cannot be read: {error}.", remedy="Choose another folder: --to FOLDER."
        ) from error
    files = noted.get("files") if isinstance(noted, dict) else None
    return {name for name in files if isinstance(name, str)} if isinstance(files, list) else set()


def _note(to: Path, made: Exported, others: Sequence[str] = (), *, is_done: bool = False) -> None:
    """Note what is written, before it is: an export that is cut off can be repeated."""
    names = _noted(to) | {name for files in made.files.values() for name in files} | {*made.others, *others}
    if is_done:
        # Whoever puts a file where none was written keeps it.
        names = {name for name in names if os.path.lexists(to / name)}
    atomic_write(to / LIST, json.dumps({"files": sorted(names)}, indent=1).encode())


def _write(to: Path, media: Path, names: Sequence[str]) -> None:
    from genrun.adapters.media import has_sound, read_fps, read_frames

    frames: Any = None
    for name in names:
        path = to / name
        if path.suffix == media.suffix:
            with staged(path) as temporary:
                shutil.copyfile(media, temporary)
            continue
        if frames is None:
            frames = read_frames(media)
        if path.suffix:
            fps = read_fps(media) if len(frames) > 1 else 1.0
            with staged(path) as temporary:
                convert(temporary, frames, fps, media if has_sound(media) else None)
            continue
        for index, frame in enumerate(frames, 1):
            with staged(path / f"{index:05}.png") as temporary:
                convert(temporary, frame[None], 1)


def _write_sheets(to: Path, items: Sequence[WorkItem], media: Mapping[str, Path], made: Exported) -> None:
    from genrun.runner.export.contact_sheet import sheets

    drawn = sheets(items, media)
    names = ["sheet.png"] if len(drawn) == 1 else [f"sheet-{index:02}.png" for index in range(1, len(drawn) + 1)]
    made.others += names
    _note(to, made)
    for name, picture in zip(names, drawn, strict=True):
        with staged(to / name) as temporary:
            convert(temporary, picture[None], 1)


# ---- the table ----


def rows_of(
    items: Sequence[WorkItem],
    records: Mapping[str, Record],
    scores: Iterable[Score],
    files: Mapping[str, Sequence[str]],
) -> list[dict[str, Any]]:
    """List the items with their inputs, costs and scores.

    Args:
        items: the plan.
        records: by item id.
        scores: rows of any metrics; those of sets are left out.
        files: item id -> its files, relative to the exported folder.

    Returns:
        One mapping an item, all with the same keys; None where nothing is known.
    """
    values: dict[str, dict[str, float | None]] = {}
    for score in scores:
        values.setdefault(score.metric, {})[score.item_id] = score.value
    axes = list(dict.fromkeys(axis for item in items for axis in item.axes))
    # Fields that some prompt has of its own.
    own = list(dict.fromkeys(name for item in items for name in (*item.row, *item.inputs)))
    return [
        {
            "index": index,
            "file": " ".join(files.get(item.id, ())),
            "id": item.id,
            "prompt": item.prompt,
            "negative_prompt": item.negative_prompt,
            "seed": item.seed,
            **{name: item.row.get(name, _names(item.inputs.get(name, ()))) for name in own},
            **{axis: item.axes.get(axis) for axis in axes},
            **_outcome(records.get(item.id)),
            **{metric: by_item.get(item.id) for metric, by_item in values.items()},
        }
        for index, item in enumerate(items, 1)
    ]


def to_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Write rows as CSV in UTF-8; what is not known is an empty cell."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue().encode("utf-8", errors="surrogatepass")


def _cell(value: Any) -> Any:
    """Return what stands in a cell of CSV."""
    if value is None:
        return ""
    # A table program takes a text that begins so for a formula; the report's csv has such texts like this, too.
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "@", "\t", "\r", "-")) else value


def _names(files: Sequence[Mapping[str, str]]) -> str | None:
    return " ".join(file.get("name", "") for file in files) or None


def _outcome(record: Record | None) -> dict[str, Any]:
    if record is None:
        return dict.fromkeys(OUTCOME) | {"status": "pending"}
    sampler = record.sampler
    return {
        "status": record.status,
        "steps": sampler.num_steps if sampler else None,
        "rounds": sampler.rounds if sampler else None,
        "nfe": sampler.nfe if sampler else None,
        "skipped": sampler.skipped if sampler else None,
        "elapsed_s": record.elapsed_s,
        "device": record.device,
        "error": (record.error or {}).get("kind"),
    }
