"""Folders of videos as vbench wants them: links whose names it reads, made from files named by id.

On VBench's own prompts (`standard`) a name is the prompt and the sample's number, `a person is swimming-0.mp4`, and vbench
takes the rest from its list of prompts. On others (`custom`) names are ids, and vbench is told the prompts apart; but
human_action reads the action from the name all the same, so there it is made of the prompt's letters and digits.
A prompt never becomes a path: what is no plain file name is refused.

Dimensions of the image-to-video suite are given pairs of a clip and its start image, which are written as PNG: VBench opens
them as they are, without turning, colour conversion or a background.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from genrun.adapters.files import read_json
from genrun.adapters.scorers.contract import Sample, UnscoredError

Mode = Literal["standard", "custom"]
MODES: Mapping[Mode, str] = {"standard": "vbench_standard", "custom": "custom_input"}
# VBench's standard protocol.
SAMPLES_A_PROMPT = 5

# File systems allow 255; the rest is room for suffixes.
MAX_NAME_BYTES = 240

PAIRS = "pairs.json"
# The dimension that reads the action from the name.
BY_NAME = "human_action"


@dataclass(frozen=True)
class Staged:
    """The videos that one dimension is measured on.

    Attributes:
        folder: of links.
        items: file name -> sample name.
        prompts: file name -> prompt, for vbench; {} in standard mode.
        refused: sample name -> why it is not among them.
        planned: how many prompts of VBench's own list the dimension has; 0 in custom mode.
    """

    folder: Path
    items: dict[str, str] = field(default_factory=dict)
    prompts: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    planned: int = 0


def read_suite(full_info: Path) -> list[dict[str, Any]]:
    """Read VBench's list of prompts: objects with `prompt_en` and `dimension`, a list.

    Raises:
        ValueError: the file cannot be read, or is no such list.
    """
    try:
        entries = read_json(full_info)
    except OSError as error:
        raise ValueError(f"{full_info} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{full_info} cannot be read: {error}") from error
    if not isinstance(entries, list) or not all(_is_entry(entry) for entry in entries):
        raise ValueError(f"{full_info} is not VBench's list of prompts: wanted objects with prompt_en and dimension")
    return entries


def stage(samples: Sequence[Sample], dimension: str, suite: Sequence[Mapping[str, Any]], folder: Path) -> Staged:
    """Make a folder of links for one dimension.

    Args:
        samples: with media files.
        dimension: which.
        suite: entries of `read_suite` for standard mode; none for custom mode.
        folder: emptied first.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    staged = Staged(folder, planned=len(_prompts_of(suite, dimension)))
    names = _standard(samples, dimension, suite, staged) if suite else _custom(samples, dimension, staged)
    for sample, name in names:
        if sample.media is None or _is_unsafe(name):
            staged.refused[sample.name] = "its prompt cannot be the name of a file, which vbench takes it from"
            continue
        _link(sample.media, folder / name)
        staged.items[name] = sample.name
    return staged


def stage_pairs(samples: Sequence[Sample], dimension: str, suite: Sequence[Mapping[str, Any]], folder: Path) -> Staged:
    """Make a folder of links to clips, one of their start images, and the list of pairs, `folder`/pairs.json.

    Args:
        samples: with media files.
        dimension: which.
        suite: entries of VBench's image-to-video list, whose protocol is followed then; none for other prompts.
        folder: emptied first.
    """
    from PIL import Image

    shutil.rmtree(folder, ignore_errors=True)
    (folder / "videos").mkdir(parents=True)
    (folder / "images").mkdir()
    staged = Staged(folder / "videos", planned=len(_prompts_of(suite, dimension)))
    chosen = [sample for sample, _ in _standard(samples, dimension, suite, staged)] if suite else samples
    pairs = []
    for sample in chosen:
        if sample.media is None:
            continue
        try:
            image = _start_image(sample)
        except UnscoredError as error:
            staged.refused[sample.name] = str(error)
            continue
        name = f"{sample.name}-0{_suffix(sample)}"
        path = folder / "images" / f"{sample.name}.png"
        Image.fromarray(image).save(path)
        _link(sample.media, folder / "videos" / name)
        staged.items[name] = sample.name
        # vbench joins a folder of its own and this name: of an absolute path the path is left.
        pairs.append({"prompt_en": sample.name, "dimension": [dimension], "image_name": str(path.resolve())})
    (folder / PAIRS).write_text(json.dumps(pairs), encoding="utf-8")
    return staged


def _start_image(sample: Sample) -> Any:
    """Return the picture that a clip begins from, uint8 of shape (H, W, 3).

    Raises:
        UnscoredError: it has none or several, or it is lost.
    """
    frames = sample.input_frames("image") if "image" in sample.inputs else []
    if len(frames) != 1:
        raise UnscoredError(f"vbench compares a clip with one start image, and its prompt has {len(frames) or 'none'}")
    return frames[0][0]


def _standard(
    samples: Sequence[Sample], dimension: str, suite: Sequence[Mapping[str, Any]], staged: Staged
) -> list[tuple[Sample, str]]:
    prompts = _prompts_of(suite, dimension)
    by_prompt: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.caption in prompts:
            by_prompt.setdefault(sample.caption, []).append(sample)
    names = []
    for prompt, found in by_prompt.items():
        for index, sample in enumerate(sorted(found, key=lambda each: (each.seed, each.name))):
            if index < SAMPLES_A_PROMPT:
                names.append((sample, f"{prompt}-{index}{_suffix(sample)}"))
            else:
                staged.refused[sample.name] = f"vbench looks at {SAMPLES_A_PROMPT} samples of a prompt"
    return names


def _custom(samples: Sequence[Sample], dimension: str, staged: Staged) -> list[tuple[Sample, str]]:
    names = []
    for index, sample in enumerate(samples):
        stem = f"{_letters(sample.caption)}-{index}" if dimension == BY_NAME else sample.name
        name = f"{stem}{_suffix(sample)}"
        staged.prompts[name] = sample.caption
        names.append((sample, name))
    return names


def _prompts_of(suite: Sequence[Mapping[str, Any]], dimension: str) -> set[str]:
    return {entry["prompt_en"] for entry in suite if dimension in entry["dimension"]}


def _letters(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9 ,.()']+", " ", text).strip(" .")[:100]


def _suffix(sample: Sample) -> str:
    return sample.media.suffix if sample.media else ""


def _is_unsafe(name: str) -> bool:
    return "/" in name or "\0" in name or name.startswith(".") or len(os.fsencode(name)) > MAX_NAME_BYTES


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, dict) and isinstance(entry.get("prompt_en"), str) and isinstance(entry.get("dimension"), list)
    )


def _link(media: Path, link: Path) -> None:
    try:
        link.symlink_to(media.resolve())
    except OSError:  # a file system without links
        shutil.copyfile(media, link)
