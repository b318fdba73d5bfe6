"""Notes on items that are done: their kinds, each with its meaning and its remedy, and how often they occur.

A worker puts notes into an item's record; `submit`, `status`, `score` and the report tell them, counted by kind.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genrun.runner.store.records import Note, Record

SAFETY_CHECKER = "safety_checker"
"""Kind of note of a picture that its checkpoint's safety checker replaced by a black one."""

PROMPT_TRUNCATED = "prompt_truncated"
"""Kind of note of an item of whose prompt a text encoder saw only the beginning."""

BLANK = "blank"
"""Kind of note of a picture that is one colour throughout."""

FPS_ASSUMED = "fps_assumed"
"""Kind of note of a clip whose frame rate is a guess, since nothing says its model's."""

CACHE_SAVED_NOTHING = "cache_saved_nothing"
"""Kind of note of an item whose cache left out no block."""

OF_SAMPLING = frozenset({PROMPT_TRUNCATED, CACHE_SAVED_NOTHING})
"""Kinds of notes that sampling shows; others are found on the decoded pictures, again whenever they are decoded."""

UNSCORABLE = frozenset({SAFETY_CHECKER})
"""Kinds of notes of pictures that show nothing of what the model made: they are not scored."""


@dataclass(frozen=True)
class NoteKind:
    """A kind of note.

    Attributes:
        title: for a heading.
        meaning: for a line that begins with the number of items.
        remedy: what to do about it.
    """

    title: str
    meaning: str
    remedy: str


KINDS = {
    CACHE_SAVED_NOTHING: NoteKind(
        "Cache saved nothing",
        "the cache left out no block, so that the item cost what it costs without one",
        "Leave cache out, raise its threshold, drift or interval, or use fewer workers (genrun bench --cache measures it).",
    ),
    SAFETY_CHECKER: NoteKind(
        "Blackened by the safety checker",
        "the checkpoint's safety checker made the picture black; its pixels are not scored",
        "Try another seed or prompt, or a copy of the checkpoint without its safety_checker.",
    ),
    PROMPT_TRUNCATED: NoteKind(
        "Prompt cut",
        "the prompt is longer than the window of a text encoder, which saw only its beginning",
        "Shorten the prompt; genrun status --json and the report say what was cut.",
    ),
    BLANK: NoteKind(
        "One colour throughout",
        "the picture is one colour throughout",
        "Look at it: the prompt may ask for that, or the model is broken at this size, number of steps or dtype.",
    ),
    FPS_ASSUMED: NoteKind(
        "Frame rate assumed",
        "nothing says how many frames a second the model was trained at, so 8 were assumed",
        "Set output.fps.",
    ),
}


@dataclass(frozen=True)
class NoteGroup:
    """The notes of one kind.

    Attributes:
        kind: of the notes.
        items: (item id, message) of each, in the order of the records.
    """

    kind: str
    items: tuple[tuple[str, str], ...]

    @property
    def about(self) -> NoteKind:
        """The kind's meaning and remedy; for one that this version does not know, the first item's own words."""
        return KINDS.get(self.kind) or NoteKind(self.kind, self.items[0][1], "")

    def __str__(self) -> str:
        """Return a line for a terminal: number of items, meaning, remedy."""
        count = len({item_id for item_id, _ in self.items})
        about = self.about
        return f"{count} {'item' if count == 1 else 'items'}: {about.meaning}. {about.remedy}".rstrip()


def group_notes(records: Iterable[Record]) -> list[NoteGroup]:
    """Group the notes of done items by kind, the most frequent first."""
    by_kind: dict[str, list[tuple[str, str]]] = {}
    for record in records:
        for note in record.notes if record.status == "done" else ():
            by_kind.setdefault(note.kind, []).append((record.item_id, note.message))
    found = [NoteGroup(kind, tuple(items)) for kind, items in by_kind.items()]
    return sorted(found, key=lambda each: -len(each.items))


def count_notes(records: Iterable[Record]) -> dict[str, int]:
    """Count the items that have notes of each kind, for scripts."""
    return {each.kind: len({item_id for item_id, _ in each.items}) for each in group_notes(records)}


def unscorable_note(notes: Iterable[Note]) -> Note | None:
    """Return the note that says that an item's picture is not what the model made, or None."""
    return next((note for note in notes if note.kind in UNSCORABLE), None)
