"""Inputs of a row: the pictures and clips that its items were made from, as the page's script draws them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from genrun.adapters.input_files import CLIPS
from genrun.runner.job.inputs import stored_files
from genrun.runner.report.text import cut
from genrun.runner.store.inputs import name_of

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem

MOST_NAME_LETTERS = 200
"""Characters of a file's name that are shown."""


def collect_inputs(item: WorkItem, link: Callable[[str], str]) -> dict[str, Any]:
    """Return the keys of a row for what its prompt has besides its text; none where it has nothing.

    Args:
        item: one of the row.
        link: path relative to the run folder -> address on the page.

    Returns:
        {"nm": name of the prompt, "in": [{"n": field, "m": address, "v": whether it is a clip, "t": name of its file}]}.
    """
    found: dict[str, Any] = {}
    if item.row.get("name"):
        found["nm"] = cut(str(item.row["name"]), MOST_NAME_LETTERS)
    files = [
        {
            "n": field,
            "m": link(name_of(file["sha256"], file["suffix"])),
            "v": file["suffix"] in CLIPS,
            "t": cut(file.get("name", ""), MOST_NAME_LETTERS),
        }
        for field, file in stored_files(item.inputs)
    ]
    return {**found, "in": files} if files else found
