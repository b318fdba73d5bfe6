"""List the prompts of a file or a job: each with its fields, and what text encoders see of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.runner.api.calls import checked
from genrun.runner.api.jobs import AnyJob, load_job
from genrun.runner.errors import UsageError

if TYPE_CHECKING:
    from genrun.runner.job import Cell
    from genrun.runner.job.prompt_files import Prompt

CLIP_WINDOW = 77
"""Tokens that CLIP's text models read: pipelines give them no other number."""


@dataclass(frozen=True)
class EncoderTokens:
    """A prompt as the tokenizer of one text encoder sees it.

    Attributes:
        encoder: the tokenizer's name in the checkpoint.
        count: tokens, with the tokenizer's own marks.
        window: the most that the encoder is given, or None where that is not known.
        lost: what of the text is cut, "" for nothing.
    """

    encoder: str
    count: int
    window: int | None
    lost: str = ""


@dataclass(frozen=True)
class ListedPrompt:
    """A prompt of a list.

    Attributes:
        text: the prompt.
        place: where it is written.
        negative_prompt: its own or the job's, or None.
        seeds: that it is sampled with.
        row: fields of its own.
        inputs: field -> names of its pictures and clips.
        tokens: as each tokenizer of the model sees it; empty where none is on this machine.
    """

    text: str
    place: str
    negative_prompt: str | None
    seeds: tuple[int, ...]
    row: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tokens: tuple[EncoderTokens, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "prompt": self.text,
            "place": self.place,
            "negative_prompt": self.negative_prompt,
            "seeds": list(self.seeds),
            **self.row,
            **{name: list(files) for name, files in self.inputs.items()},
            "tokens": {each.encoder: [each.count, each.window, each.lost] for each in self.tokens},
        }


@dataclass(frozen=True)
class PromptList:
    """The prompts of a file or a job.

    Attributes:
        prompts: in the order of the plan; of a matrix, those of its first cell.
        uncounted: why there are no tokens for some or all encoders; "" where there are.
    """

    prompts: tuple[ListedPrompt, ...]
    uncounted: str = ""


@checked
def list_prompts(source: AnyJob, *, model: str | None = None, sets: Sequence[str] = ()) -> PromptList:
    """Return what a file of prompts, or a job, becomes: wildcards and templates written out, every input looked at.

    Args:
        source: a .txt, .csv or .jsonl file, or a job.
        model: adapter or checkpoint whose tokenizers count, for a file of prompts.
        sets: changes of a job, as texts `a.b=value`.

    Raises:
        JobFileError: with every problem.
        UsageError: `model` with a job, which names its own.
    """
    from genrun.runner.job.layers import PROMPT_FILES

    name = os.fspath(source) if isinstance(source, str | os.PathLike) else ""
    is_file = name.lower().endswith(PROMPT_FILES)
    if not is_file and model is not None:
        raise UsageError("a job names its own model.", remedy="Use --set model=NAME.")
    if is_file and model is None:
        return PromptList(tuple(map(_listed, _read(Path(name)))), "Name a model: --model NAME.")
    job = {"model": model, "prompts": {"file": name}} if is_file else source
    cell = load_job(job, sets).cells[0]
    counters, uncounted = _counters(cell)
    listed = (
        replace(
            _listed(prompt, cell.job.seeds, cell.job.sampling.negative_prompt),
            tokens=tuple(counter.count(prompt.text) for counter in counters),
        )
        for prompt in cell.prompts
    )
    return PromptList(tuple(listed), uncounted)


def _listed(prompt: Prompt, seeds: Sequence[int] = (0,), negative: str | None = None) -> ListedPrompt:
    return ListedPrompt(
        prompt.text,
        str(prompt.origin),
        negative if prompt.negative_prompt is None else prompt.negative_prompt,
        tuple(seeds) if prompt.seed is None else (prompt.seed,),
        prompt.row,
        prompt.inputs,
    )


def _read(path: Path) -> list[Prompt]:
    """Read a file of prompts that no model has been named for, and look at what its rows name."""
    from genrun.runner.job.errors import Origin, raise_all
    from genrun.runner.job.files import found_inputs, input_reader
    from genrun.runner.job.prompt_files import duplicates, read
    from genrun.runner.job.tree import Value

    prompts = read(path, str(path))
    _, problems = found_inputs(Value({}, Origin(str(path))), prompts, input_reader())
    raise_all([*problems, *duplicates(prompts)])
    return prompts


@dataclass(frozen=True)
class _Counter:
    """A tokenizer that was read from a checkpoint's files.

    Attributes:
        encoder: its name.
        tokenizer: of the package tokenizers.
        window: the most tokens that the pipeline gives its encoder, or None.
    """

    encoder: str
    tokenizer: Any
    window: int | None

    def count(self, text: str) -> EncoderTokens:
        """Return a text's tokens, and what is cut of it."""
        whole = self.tokenizer.encode(text)
        number = len(whole.ids)
        if self.window is None or number <= self.window:
            return EncoderTokens(self.encoder, number, self.window)
        own = [place for place, is_mark in enumerate(whole.special_tokens_mask) if not is_mark]
        kept = max(self.window - (number - len(own)), 0)
        begin = whole.offsets[own[kept]][0] if kept < len(own) else len(text)
        return EncoderTokens(self.encoder, number, self.window, text[begin:].strip())


def _counters(cell: Cell) -> tuple[list[_Counter], str]:
    """Return the tokenizers of a cell's model that can be read without its libraries, and why others cannot."""
    from genrun.adapters.checkpoint.index import components_of
    from genrun.adapters.files import read_json

    folder = cell.checkpoint.local_folder(cell.job.model.revision)
    if folder is None:
        return [], f"{cell.checkpoint.name} is not on this machine: its tokenizers cannot count."
    index = cell.checkpoint.index(cell.job.model.revision) or {}
    replaced: Mapping[str, str | None] = cell.additions.model.get("components") or {}
    lacking = {name for name, path in replaced.items() if path is None}
    names = [
        name
        for name in dict.fromkeys((*components_of(index), *replaced))
        if name.startswith(("tokenizer", "processor"))
        and lacking.isdisjoint((name, name.replace("tokenizer", "text_encoder")))
    ]
    asked = dict(cell.sampling.get("options") or {}).get("max_sequence_length")
    pipeline = cell.adapter.pipeline or index.get("_class_name")
    found, without = [], []
    for name in names:
        path = replaced.get(name)
        own = folder / name if path is None else cell.additions.sources[path].local_folder(None) or Path(path)
        try:
            tokenizer = _read_tokenizer(own / "tokenizer.json")
            config = read_json(own / "tokenizer_config.json")
        except (OSError, ValueError):
            without.append(name)
            continue
        most = config.get("model_max_length") if isinstance(config, dict) else None
        most = most if isinstance(most, int) and 0 < most < 10**6 else None
        is_clip = most is not None and most <= CLIP_WINDOW
        given = None if is_clip else asked or _default_window(str(pipeline))
        windows = [each for each in (most, given) if isinstance(each, int)]
        found.append(_Counter(name, tokenizer, min(windows, default=None)))
    return found, f"Without a tokenizer.json, not counted: {', '.join(without)}." if without else ""


def _default_window(pipeline: str) -> int | None:
    """Return the default of a pipeline's `max_sequence_length`, or None."""
    from genrun.adapters.checkpoint.pipeline_classes import default_of

    found = default_of(pipeline, "max_sequence_length")
    return found if isinstance(found, int) else None


def _read_tokenizer(path: Path) -> Any:
    """Read a tokenizer that neither cuts nor pads. Raises OSError, ValueError."""
    from tokenizers import Tokenizer

    from genrun.adapters.files import CONFIG_BYTES, read_bounded

    data = read_bounded(path, CONFIG_BYTES)
    try:
        tokenizer = Tokenizer.from_buffer(data)
    except Exception as error:  # the package raises plain Exceptions
        raise ValueError(f"{path}: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
