"""Prompt files: .txt, .csv and .jsonl, read byte for byte, each prompt with its line and the fields of its own."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from genrun.adapters.files import MIB, TooLargeError, is_file, read_bounded
from genrun.adapters.pipeline.call_options import ARGUMENTS
from genrun.runner.job.errors import JobProblem, Origin, raise_all, refuse
from genrun.runner.job.files import JOBS, located
from genrun.runner.job.schema import PromptSpec
from genrun.runner.job.tree import Path as TreePath
from genrun.runner.job.tree import dress, meant
from genrun.runner.job.validate import problems_of
from genrun.runner.job.yaml import decode

FIELDS = tuple(PromptSpec.model_fields)
INPUTS = tuple(ARGUMENTS)
"""Fields that are files."""

ROW = tuple(name for name in FIELDS if name not in ("prompt", "negative_prompt", "seed", *INPUTS))
"""Fields besides that a prompt may have of its own: its name, and what goes before the job's `sampling`."""

MAX_SEED = 2**63
"""Seeds are below it: torch takes 64 bits, signed."""

MAX_BYTES = 128 * MIB
"""Largest size of a file in bytes: a million prompts of the usual length."""

MAX_PROMPTS = 1_000_000
"""Largest number of prompts: as many as a job may have items."""

MAX_CHARACTERS = 100_000
"""Characters of a prompt, of which the longest encoder reads a few thousand."""

MAX_PROBLEMS = 1_000
"""Problems of a file that are listed: one with more is not the kind of file that its name says."""

_SEPARATORS = {";": "`;`", "\t": "tabs", "|": "`|`"}
_LINE_END = re.compile(r"\r\n|\r|\n")
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_NUMBER = re.compile(r"[+-]?(\d{1,20}(\.\d{0,20})?|\.\d{1,20})(e[+-]?\d{1,2})?", re.ASCII | re.IGNORECASE)

TEXTS = ("prompt", "negative_prompt")
"""Columns whose cells are taken as they are, spaces included."""

NUMBERS = {
    **dict.fromkeys(("seed", "steps", "height", "width", "num_frames"), (int,)),
    **dict.fromkeys(("strength", "guidance_scale"), (int, float)),
}
"""Columns of numbers."""


@dataclass(frozen=True)
class Prompt:
    """A prompt of a job.

    Attributes:
        text: the prompt as written, spaces included.
        origin: where it is written.
        negative_prompt: its own negative prompt, or None for the job's.
        seed: its own seed, or None for the job's.
        row: its other fields: name, strength, and fields of sampling.
        inputs: field -> files as they are named, relative to the folder of its origin.
        at: its path in the job, where it is a mapping there.
    """

    text: str
    origin: Origin
    negative_prompt: str | None = None
    seed: int | None = None
    row: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    at: TreePath = ()


def find(file: str, base: Path) -> Path | None:
    """Return a prompt file relative to `base`, else the one packaged with genrun under jobs/, else None."""
    return next((path for path in (located(file, base), JOBS / file) if is_file(path)), None)


def read(path: Path, name: str) -> list[Prompt]:
    """Read a prompt file.

    .txt: a prompt a line; blank lines and lines that start with `#` are skipped. .csv: column `prompt`, and any of the
    others in `FIELDS`. .jsonl: an object with the same keys a line.

    Args:
        path: the file.
        name: what messages call it.

    Raises:
        JobFileError: it cannot be read or is not UTF-8, or lines are wrong: all of them, each with its place.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        message = f"a prompt file ends in {', '.join(_READERS)}, not {path.suffix!r}."
        refuse(Origin(name), message)
    try:
        data = read_bounded(path, MAX_BYTES)
    except TooLargeError as error:
        message = f"{error.size:,} bytes, more than the {MAX_BYTES:,} a prompt file may have. Split it."
        refuse(Origin(name), message)
    except OSError as error:
        refuse(Origin(name), f"cannot be read: {error.strerror}.")
    problems: list[JobProblem] = []

    def wrong(line: int, message: str) -> None:
        problems.append(JobProblem(Origin(name, line, 1), "", message))
        if len(problems) >= MAX_PROBLEMS:
            raise_all(problems)

    prompts = list(itertools.islice(reader(decode(data, name), name, wrong), MAX_PROMPTS + 1))
    if len(prompts) > MAX_PROMPTS:
        wrong(prompts[-1].origin.line, f"more than {MAX_PROMPTS:,} prompts. Split the file, one job for each part.")
    raise_all(problems)
    return prompts


def wrong_text(text: str) -> str:
    """Return why a text can be no prompt, negative or not; "" where it can."""
    if "\0" in text:
        return "has a NUL, which is no character of a text."
    if _HALF_PAIR.search(text):
        return "half of a surrogate pair (\\ud800-\\udfff) is no character."
    if len(text) > MAX_CHARACTERS:
        return f"{len(text):,} characters, more than the {MAX_CHARACTERS:,} a prompt may have."
    return ""


def duplicates(prompts: Sequence[Prompt]) -> list[JobProblem]:
    """Name every prompt that is given again with the same negative prompt and seed, and where it was first."""
    first: dict[tuple[Any, ...], Prompt] = {}
    problems = []
    for prompt in prompts:
        own = tuple((name, value) for name, value in sorted(prompt.row.items()) if name != "name")
        files = tuple(sorted(prompt.inputs.items()))
        same = first.setdefault((prompt.text, prompt.negative_prompt, prompt.seed, own, files), prompt)
        if same is not prompt:
            message = f"the same prompt as {same.origin}. Remove one of them; for more samples of it add `seeds`."
            problems.append(JobProblem(prompt.origin, "", message))
    return problems


Wrong = Callable[[int, str], None]

_JSON_LINE = re.compile(r'\s*\{\s*"prompt"\s*:')
_IS_JSON = "a line of a .jsonl, which a .txt takes for the words of a prompt. Call the file .jsonl."


def _read_txt(text: str, name: str, wrong: Wrong) -> Iterator[Prompt]:
    for number, line in _lines(text):
        if line.strip() and not line.lstrip().startswith("#"):
            message = wrong_text(line) or (_IS_JSON if _JSON_LINE.match(line) else "")
            if message:
                wrong(number, message)
            else:
                yield Prompt(line, Origin(name, number, 1))


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
            elif None in row.values():
                cells = sum(value is not None for value in row.values())
                wrong(line, f"fewer cells ({cells}) than the {len(header)} columns. Write empty ones, too.")
            else:
                # A cell cannot say whether it is empty on purpose: it is not given.
                given = {key: _typed(key, cell) for key, cell in row.items() if cell.strip() or (cell and key in TEXTS)}
                yield from _prompt(given, Origin(name, line, 1), wrong)
            line = reader.line_num + 1
    except csv.Error as error:
        unclosed = " A double quote is opened there that nothing closes." if "end of data" in str(error) else ""
        wrong(line, f"not CSV: {error}.{unclosed}")


def _columns_are_known(header: list[str], wrong: Wrong) -> bool:
    for separator, called in _SEPARATORS.items():
        if len(header) == 1 and separator in header[0]:
            wrong(1, f"its columns are separated by {called}, and those of a .csv by commas. Save it with commas.")
            return False
    for column, count in Counter(header).items():
        if count > 1:
            wrong(1, f"the column {column!r} is there {count} times. Remove all but one.")
        if column not in FIELDS:
            wrong(1, f"unknown column {column!r}.{meant(column, FIELDS)} There are: {', '.join(FIELDS)}.")
    if "prompt" not in header:
        wrong(1, "there is no column `prompt`. The first line of a .csv names the columns.")
    return "prompt" in header and set(header) <= set(FIELDS) and len(set(header)) == len(header)


def _read_jsonl(text: str, name: str, wrong: Wrong) -> Iterator[Prompt]:
    for number, line in _lines(text):
        if not line.strip():
            continue
        try:
            fields = json.loads(line, object_pairs_hook=_Object)
        except (ValueError, RecursionError) as error:
            why = error.msg if isinstance(error, json.JSONDecodeError) else "too large or too deep"
            wrong(
                number, f'not JSON: {why}. Each line is one object, with nothing around it: {{"prompt": "a red kite"}}.'
            )
            continue
        if isinstance(fields, _Object) and fields.repeated:
            wrong(number, f"the key {fields.repeated[0]!r} is given twice. Remove one of them.")
            continue
        if not isinstance(fields, dict) or "prompt" not in fields:
            wrong(number, 'wanted an object with a key `prompt`, such as {"prompt": "a red kite"}.')
            continue
        for key in sorted(set(fields) - set(FIELDS)):
            wrong(number, f"unknown key {key!r}.{meant(key, FIELDS)} There are: {', '.join(FIELDS)}.")
        yield from _prompt(fields, Origin(name, number, 1), wrong)


def _prompt(fields: dict[str, Any], origin: Origin, wrong: Wrong) -> Iterator[Prompt]:
    text, negative, seed = fields.get("prompt"), fields.get("negative_prompt"), fields.get("seed")
    problems = []
    if not isinstance(text, str) or not text.strip():
        problems.append("the prompt is empty, or not text.")
    if not (negative is None or isinstance(negative, str)):
        problems.append("negative_prompt: wanted text.")
    if not (seed is None or (type(seed) is int and 0 <= seed < MAX_SEED)):
        problems.append(f"seed: wanted a whole number of at least 0, got {seed!r}.")
    found = (wrong_text(each) for each in (text, negative) if isinstance(each, str))
    problems += [message for message in dict.fromkeys(found) if message]
    row, inputs, wrong_fields = own_fields(fields)
    problems += wrong_fields
    for problem in problems:
        wrong(origin.line, problem)
    if isinstance(text, str) and not problems:
        yield Prompt(text, origin, negative, seed, row, inputs)


def own_fields(fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, tuple[str, ...]], list[str]]:
    """Return a prompt's fields of `ROW`, its inputs, and what is wrong with either."""
    given = {name: fields[name] for name in (*ROW, *INPUTS) if fields.get(name) is not None}
    if not given:
        return {}, {}, []
    data = {"prompt": "-", **given}
    try:
        spec = PromptSpec.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        found = problems_of(error, dress(data, Origin("")))
        return {}, {}, [f"{problem.path}: {problem.message}" for problem in found]
    texts = (each for value in given.values() for each in (value if isinstance(value, list) else [value]))
    wrong = (wrong_text(each) for each in texts if isinstance(each, str))
    # As the schema has them: a guidance of 5 is 5.0, as that of a job is.
    typed = {name: getattr(spec, name) for name in given}
    inputs = {name: (value,) if isinstance(value, str) else value for name, value in typed.items() if name in INPUTS}
    row = {name: value for name, value in typed.items() if name not in INPUTS}
    return row, inputs, [message for message in dict.fromkeys(wrong) if message]


class _Object(dict[str, Any]):
    """An object of JSON that knows which keys it was given more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]


def _lines(text: str) -> Iterator[tuple[int, str]]:
    # Not splitlines(): U+2028, form feeds and the like are part of a prompt. One at a time: a file of line ends alone
    # would be millions of texts.
    number, start = 1, 0
    for end in _LINE_END.finditer(text):
        yield number, text[start : end.start()]
        number, start = number + 1, end.end()
    yield number, text[start:]


def _typed(column: str, cell: str) -> Any:
    """Return what a cell says: a number in a column of numbers, where it is one."""
    kinds = NUMBERS.get(column, ())
    text = cell.strip()
    if int in kinds and text.isascii() and text.isdigit() and len(text) < 20:
        return int(text)
    return float(text) if float in kinds and _NUMBER.fullmatch(text) else cell if column in TEXTS else text


_READERS: dict[str, Callable[[str, str, Wrong], Iterator[Prompt]]] = {
    ".txt": _read_txt,
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
}
