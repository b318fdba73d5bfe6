"""Prompts of known sets: VBench's suite, from its own list, and captions of COCO, from a user's file."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from genrun.adapters.files import MIB, read_json
from genrun.adapters.scorers.vbench.dimensions import DIMENSIONS
from genrun.runner.job.places import expanded, located
from genrun.runner.job.problems import Origin, Problem
from genrun.runner.job.prompts import Prompt, wrong_text
from genrun.runner.job.schema import CocoCaptions, PromptSuite
from genrun.runner.job.tools import VBENCH_PYTHON, vbench_python
from genrun.runner.job.tree import Value, bare, dotted
from genrun.runner.job.wording import place, unknown

FIND_TIMEOUT_S = 60
FULL_INFO = "VBench_full_info.json"
COCO_BYTES = 512 * MIB
FIND = "import importlib.util as u; print(u.find_spec('vbench').submodule_search_locations[0])"


def is_suite(root: Value) -> bool:
    """Whether a job takes its prompts from a known set."""
    return any(root.find(("prompts", key)) is not None for key in ("suite", "coco"))


def suite_prompts(root: Value) -> tuple[list[Prompt], list[Problem]]:
    """The prompts of a job's set, and what is wrong with it."""
    section = root.get("prompts")
    data = bare(section) if section is not None else {}
    try:
        if "suite" in data:
            return _vbench(root, PromptSuite.model_validate_json(json.dumps(data), strict=True))
        return _coco(root, CocoCaptions.model_validate_json(json.dumps(data), strict=True))
    except ValueError:  # pydantic's: the schema's check says what is wrong
        return [], []


def vbench_texts(full_info: Path, dimensions: Sequence[str]) -> list[str]:
    """The distinct prompts of some dimensions, in the order of VBench's list.

    Raises:
        ValueError: the file cannot be read or is no such list.
    """
    from genrun.adapters.scorers.vbench.video_folder import read_suite

    wanted = set(dimensions)
    return list(dict.fromkeys(each["prompt_en"] for each in read_suite(full_info) if wanted & set(each["dimension"])))


def coco_texts(captions: Path, sample: int | None, seed: int) -> list[str]:
    """One caption of each picture, its first by id, in the order of pictures; or as many of them as asked, drawn by seed.

    Args:
        captions: an annotations file of COCO, such as captions_val2014.json.
        sample: how many; all when None.
        seed: of the draw.

    Raises:
        ValueError: the file cannot be read, is none of COCO's, or has too few pictures.
    """
    try:
        annotations = read_json(captions, COCO_BYTES)["annotations"]
        found = sorted((int(each["image_id"]), int(each["id"]), str(each["caption"])) for each in annotations)
    except OSError as error:
        raise ValueError(f"{captions} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        remedy = "wanted a list `annotations` of objects with image_id, id and caption"
        raise ValueError(f"{captions} is no captions file of COCO: {remedy}") from error
    first: dict[int, str] = {}
    for picture, _, caption in found:
        first.setdefault(picture, " ".join(caption.split()))
    texts = list(dict.fromkeys(text for text in first.values() if text))
    if sample is None:
        return texts
    if sample > len(texts):
        raise ValueError(f"{captions} has {len(texts):,} different captions, fewer than {sample:,}")
    # Drawn by index, so that the same file and seed give the same captions with any Python.
    return [texts[index] for index in sorted(random.Random(seed).sample(range(len(texts)), sample))]


def _vbench(root: Value, spec: PromptSuite) -> tuple[list[Prompt], list[Problem]]:
    names = spec.dimensions or tuple(DIMENSIONS)
    problems = [
        Problem(place(root, at), dotted(at), unknown(name, tuple(DIMENSIONS), "dimension of VBench"))
        for index, name in enumerate(names)
        if name not in DIMENSIONS
        for at in [("prompts", "dimensions", index)]
    ]
    at = ("prompts", "full_info" if spec.full_info else "suite")
    file = located(spec.full_info, place(root, at).folder) if spec.full_info else _installed_list(root)
    if isinstance(file, str):
        problems.append(Problem(place(root, at), dotted(at), file))
    if problems or isinstance(file, str):
        return [], problems
    found, wrong = _read(root, at, lambda: vbench_texts(file, names), file)
    return found[: spec.limit], wrong


def _coco(root: Value, spec: CocoCaptions) -> tuple[list[Prompt], list[Problem]]:
    at = ("prompts", "coco")
    file = located(spec.coco, place(root, at).folder)
    return _read(root, at, lambda: coco_texts(file, spec.sample, spec.seed), file)


def _read(
    root: Value, at: tuple[str, ...], texts: Callable[[], Sequence[str]], file: Path
) -> tuple[list[Prompt], list[Problem]]:
    try:
        found = [Prompt(text, Origin(str(file))) for text in texts()]
    except ValueError as error:
        return [], [Problem(place(root, at), dotted(at), f"{error}.")]
    wrong = next((message for prompt in found if (message := wrong_text(prompt.text))), "")
    if wrong:
        return [], [Problem(place(root, at), dotted(at), f"a prompt in {str(file)!r}: {wrong}")]
    return found, [] if found else [Problem(place(root, at), dotted(at), f"{str(file)!r} has no such prompts.")]


def _installed_list(root: Value) -> Path | str:
    """VBench's list of prompts in its environment, or why it cannot be found."""
    given: Any = root.find(("output", "dir"))
    base = expanded(given.data) if given is not None and isinstance(given.data, str) else Path("runs")
    python = vbench_python(base)
    remedy = f"genrun doctor --install vbench, set {VBENCH_PYTHON}, or name the file: full_info: {FULL_INFO}"
    if python is None:
        return f"vbench, whose list of prompts this is, is not installed: {remedy}."
    try:
        ran = subprocess.run(
            [str(python), "-c", FIND], capture_output=True, text=True, timeout=FIND_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return f"{python} has no vbench: {remedy}."
    return Path(ran.stdout.strip()) / FULL_INFO
