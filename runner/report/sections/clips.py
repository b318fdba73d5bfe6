"""Clips: one row per prompt, seed and sampling, its inputs and one clip per solver, as compact data for the script."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genrun.adapters.input_files import CLIPS
from genrun.runner import numbers
from genrun.runner.job.files import stored_files
from genrun.runner.report.charts import COLOURS
from genrun.runner.report.render import cut
from genrun.runner.report.sections.environment import flatten
from genrun.runner.report.sections.summary import Heading
from genrun.runner.score.metrics import SEQUENTIAL
from genrun.runner.score.summary import is_solver_axis, solver_label
from genrun.runner.store.planfile import name_of
from genrun.runner.store.records import Record, Score

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem


STATUS_PENDING = "pending"
MOST_NOTE_LETTERS = 400
"""Characters of a note that are shown at a clip, which is a few words wide."""


def collect_clips(
    items: Sequence[WorkItem],
    records: Mapping[str, Record],
    scores: Sequence[Score],
    metrics: Sequence[Heading],
    link: Callable[[str], str],
    saved: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Return what the gallery draws.

    Args:
        items: the plan.
        records: by item id.
        scores: rows of the metrics.
        metrics: their headings.
        link: media path relative to the run folder -> address on the page.
        saved: item id -> share of transformer blocks that a cache saved.

    Returns:
        {"solvers": [label], "colours": [index], "prompts": [text], "negatives": [text], "metrics": [title], "high":
        [whether a higher value is better], "rows": [row]}; a row is {"p": prompt, "s": seed, "x": other axes, "f": fields of
        its own, "g": negative prompt, "w": width, "h": height, "c": [clip]}; a clip is {"k": solver, "i": id, "t": status,
        "m": address, "r": rounds, "e": NFE, "n": N, "l": seconds, "v": [metric texts], "y": [their numbers where
        the text is rounded and there are several cells], "b": blocks saved, "a": it has sound, "bad": [attributes that are
        wrong], "o": [what has to be told]}.
    """
    kinds = {item_label(item): item.solver.get("kind") if item.is_reference else "" for item in items}
    labels = {label: index for index, label in enumerate(kinds)}
    prompts = {prompt: index for index, prompt in enumerate(dict.fromkeys(item.prompt for item in items))}
    negatives = {text: index for index, text in enumerate(dict.fromkeys(filter(None, map(_negative, items))))}
    # A lone cell is compared with nothing, and its page may have thousands of items.
    has_several = len({(item_label(item), _other_axes(item)) for item in items}) > 1
    shown = [metric for metric in metrics if "." not in metric.name]
    values = {(score.item_id, score.metric): score.value for score in scores if score.value is not None}
    wrong = _wrong(scores)
    pairs: dict[str, list[WorkItem]] = {}
    for item in items:
        pairs.setdefault(item.pair, []).append(item)

    fields_of = _own_fields([members[0] for members in pairs.values()])

    def clip(item: WorkItem) -> dict[str, Any]:
        record = records.get(item.id)
        measured = [values.get((item.id, metric.name)) for metric in shown]
        texts = [
            None if value is None else numbers.styled(value, metric.style)
            for value, metric in zip(measured, shown, strict=True)
        ]
        entry: dict[str, Any] = {
            "k": labels[item_label(item)],
            "i": item.id,
            "t": record.status if record else STATUS_PENDING,
            "v": texts,
        }
        exact = [_beyond(value, text) for value, text in zip(measured, texts, strict=True)]
        if has_several and any(value is not None for value in exact):
            entry["y"] = exact
        if record and record.status == "done" and record.media:
            entry["m"] = link(record.media)
            if record.sound:
                entry["a"] = True
        if record and record.status == "done" and record.elapsed_s:
            entry["l"] = round(record.elapsed_s, 6) if has_several else float(f"{record.elapsed_s:.3g}")
        if record and record.sampler:
            entry |= {"r": record.sampler.rounds, "e": record.sampler.nfe, "n": record.sampler.num_steps}
        if saved and item.id in saved:
            entry["b"] = numbers.styled(round(saved[item.id], 3), "share")
        if record and record.status == "done" and record.notes:
            entry["o"] = [cut(note.message, MOST_NOTE_LETTERS) for note in record.notes]
        if item.id in wrong:
            entry["bad"] = wrong[item.id]
        return entry

    return {
        "solvers": list(labels),
        "colours": colours(kinds),
        "prompts": list(prompts),
        "negatives": list(negatives),
        "metrics": [metric.title for metric in shown],
        "high": [metric.higher_is_better for metric in shown],
        "rows": [
            {
                "p": prompts[members[0].prompt],
                "s": members[0].seed,
                "x": _other_axes(members[0]),
                **({"f": own} if (own := fields_of(members[0])) else {}),
                **({"g": negatives[text]} if (text := _negative(members[0])) else {}),
                "w": members[0].sampling.get("width") or 16,
                "h": members[0].sampling.get("height") or 9,
                **collect_inputs(members[0], link),
                "c": [clip(item) for item in members],
            }
            for members in pairs.values()
        ],
    }


DIGITS = 12
"""Of the numbers that clips are compared by: more would make a page of thousands of items larger, and tell nothing."""


def _beyond(value: float | None, text: str | None) -> float | None:
    """Return the number that a text is rounded from; None where it says all of it, or there is none."""
    found = None if text is None else re.match(r"[-+.,\de]+", text)
    if value is None or text is None or found is None:
        return None
    said = float(found[0].replace(",", "")) / (100 if text.endswith("%") else 1)
    return None if said == value else float(f"{value:.{DIGITS}g}")


def colours(kinds: Mapping[str, object]) -> list[int]:
    """Choose the colour of each solver label: 0 for sequential ones, 1 to 7 in turn for the others."""
    chosen: list[int] = []
    for kind in kinds.values():
        chosen.append(0 if kind == SEQUENTIAL else sum(colour > 0 for colour in chosen) % COLOURS + 1)
    return chosen


def item_label(item: WorkItem) -> str:
    """Return the label of the item's solver."""
    return solver_label(item.axes, str(item.solver.get("kind", "?")))


def describe(item: WorkItem) -> str:
    """Return an item's seed, solver and other axes in a line."""
    return ", ".join(filter(None, (f"seed {item.seed}", item_label(item), _other_axes(item))))


def _other_axes(item: WorkItem) -> str:
    return ", ".join(f"{axis} {label}" for axis, label in item.axes.items() if not is_solver_axis(axis))


def _negative(item: WorkItem) -> str:
    return item.negative_prompt or ""


def _own_fields(items: Sequence[WorkItem]) -> Callable[[WorkItem], str]:
    """Return a function that writes the settings of sampling that a prompt has of its own, not from an axis of the matrix.

    Args:
        items: one of each pair.
    """
    by_cell: dict[str, list[WorkItem]] = {}
    for item in items:
        by_cell.setdefault(_other_axes(item), []).append(item)
    # The names of settings that are not the same for all prompts of a cell: none in nearly all jobs.
    varied: dict[str, set[str]] = {}
    for cell, members in by_cell.items():
        first = members[0].sampling
        others = [dict(flatten(item.sampling)) for item in members if item.sampling != first]
        shared = dict(flatten(first))
        names = {
            name for found in others for name in found.keys() | shared.keys() if found.get(name) != shared.get(name)
        }
        if names:
            varied[cell] = names

    def own(item: WorkItem) -> str:
        names = varied.get(_other_axes(item), ())
        pairs = flatten(item.sampling) if names else ()
        return cut(", ".join(f"{name} {value}" for name, value in pairs if value and name in names), MOST_NOTE_LETTERS)

    return own


def _wrong(scores: Sequence[Score]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for score in scores:
        base, _, part = score.metric.partition(".")
        if base == "checker" and part and score.value == 0:
            found.setdefault(score.item_id, []).append(part)
    return found


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
