"""Prompt lists: .txt, .csv and .jsonl files, read byte for byte, each prompt with its line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrun.registry import did_you_mean
from genrun.runner.errors import JobFileError
from genrun.runner.spec.packaged import JOBS
from genrun.runner.spec.problems import Origin, Problem, raise_all
from genrun.runner.spec.source import decode

FIELDS = ("prompt", "negative_prompt", "seed")
MAX_SEED = 2**63


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        text: the prompt as written, spaces included.
        origin: where it is written.
        negative_prompt: its own negative prompt, or None for the job's.
        seed: its own seed, or None for the job's.
    """

    text: str
    origin: Origin
    negative_prompt: str | None = None
    seed: int | None = None


def find(file: str, base: Path) -> Path | None:
    """Return a prompt file relative to `base`, else the one packaged with genrun under jobs/, else None."""
    for folder in (base, JOBS):
        try:
            if (folder / file).is_file():
                return folder / file
        except OSError:
            continue
    return None


def read(path: Path, name: str) -> list[Prompt]:
    """Read a prompt file.

    .txt: a prompt a line; blank lines and lines that start with `#` are skipped. .csv: column `prompt`, optional
    `negative_prompt` and `seed`. .jsonl: an object with the same keys a line.

    Args:
        path: the file.
        name: what messages call it.

    Raises:
        JobFileError: it cannot be read or is not UTF-8, or lines are wrong: all of them, each with its place.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        message = f"a prompt file ends in {', '.join(_READERS)}, not {path.suffix!r}."
        raise JobFileError([Problem(Origin(name), "", message)])
    try:
        data = path.read_bytes()
    except OSError as error:
        raise JobFileError([Problem(Origin(name), "", f"cannot be read: {error.strerror}.")]) from error
    problems: list[Problem] = []

    def wrong(line: int, message: str) -> None:
        problems.append(Problem(Origin(name, line, 1), "", message))

    prompts = list(reader(decode(data, name), name, wrong))
    raise_all(problems)
    return prompts


def duplicates(prompts: Sequence[Prompt]) -> list[Problem]:
    """Name every prompt that is given again with the same negative prompt and seed, and where it was first."""
    first: dict[tuple[str, str | None, int | None], Prompt] = {}
    problems = []
    for prompt in prompts:
        same = first.setdefault((prompt.text, prompt.negative_prompt, prompt.seed), prompt)
        if same is not prompt:
            message = f"the same prompt as {same.origin}. Remove one of them; for more samples of it add `seeds`."
            problems.append(Problem(prompt.origin, "", message))
    return problems


Wrong = Callable[[int, str], None]


def _read_txt(text: str, name: str, _wrong: Wrong) -> Iterator[Prompt]:
    # Not splitlines(): U+2028, form feeds and the like are part of a prompt.
    for number, line in enumerate(text.split("\n"), 1):
        prompt = line.removesuffix("\r")
        if prompt.strip() and not prompt.lstrip().startswith("#"):
            yield Prompt(prompt, Origin(name, number, 1))


def _read_csv(text: str, name: str, wrong: Wrong) -> Iterator[Prompt]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        header = list(reader.fieldnames or ())
        if not _columns_are_known(header, wrong):
            return
        line = reader.line_num + 1
        for row in reader:
            if None in row:
                wrong(line, f"more cells than the {len(header)} columns. Put text with commas in double quotes.")
            else:
                seed = (row.get("seed") or "").strip()
                fields = {**row, "seed": _whole(seed) if seed else None}
                yield from _prompt(fields, Origin(name, line, 1), wrong)
            line = reader.line_num + 1
    except csv.Error as error:
        wrong(line, f"not CSV: {error}.")


def _columns_are_known(header: list[str], wrong: Wrong) -> bool:
    for column in header:
        if column not in FIELDS:
            wrong(1, f"unknown column {column!r}.{did_you_mean(column, FIELDS)} There are: {', '.join(FIELDS)}.")
    if "prompt" not in header:
        wrong(1, "there is no column `prompt`. The first line of a .csv names the columns.")
    return "prompt" in header and set(header) <= set(FIELDS)


def _read_jsonl(text: str, name: str, wrong: Wrong) -> Iterator[Prompt]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            why = error.msg if isinstance(error, json.JSONDecodeError) else "too large or too deep"
            wrong(number, f"not JSON: {why}.")
            continue
        if not isinstance(fields, dict) or "prompt" not in fields:
            wrong(number, 'wanted an object with a key `prompt`, such as {"prompt": "a red kite"}.')
            continue
        for key in sorted(set(fields) - set(FIELDS)):
            wrong(number, f"unknown key {key!r}.{did_you_mean(key, FIELDS)} There are: {', '.join(FIELDS)}.")
        yield from _prompt(fields, Origin(name, number, 1), wrong)


def _prompt(fields: dict[str, Any], origin: Origin, wrong: Wrong) -> Iterator[Prompt]:
    text, negative, seed = fields["prompt"], fields.get("negative_prompt"), fields.get("seed")
    problems = []
    if not isinstance(text, str) or not text.strip():
        problems.append("the prompt is empty, or not text.")
    if not (negative is None or isinstance(negative, str)):
        problems.append("negative_prompt: wanted text.")
    if not (seed is None or (type(seed) is int and 0 <= seed < MAX_SEED)):
        problems.append(f"seed: wanted a whole number of at least 0, got {seed!r}.")
    if isinstance(text, str) and any("\ud800" <= char <= "\udfff" for char in f"{text}{negative}"):
        problems.append("half of a surrogate pair (\\ud800-\\udfff) is no character.")
    for problem in problems:
        wrong(origin.line, problem)
    if not problems:
        yield Prompt(text, origin, negative or None, seed)


def _whole(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else text


_READERS: dict[str, Callable[[str, str, Wrong], Iterator[Prompt]]] = {
    ".txt": _read_txt,
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
}
