"""The prompts of a job: a list in the job file, a file of them, a template, VBench's suite, or captions of COCO."""

from __future__ import annotations

import itertools
import json
import random
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from genrun.adapters.files import MIB, opened, read_json, unusable
from genrun.adapters.scorers.vbench.dimensions import ALL, CAMERA_MOTION, DIMENSIONS, I2V_SUITE
from genrun.adapters.scorers.vbench.environment import VBENCH_PYTHON, vbench_python
from genrun.registry import did_you_mean
from genrun.runner.job import prompt_files
from genrun.runner.job.errors import JobFileError, JobProblem, Origin
from genrun.runner.job.files import expanded, located
from genrun.runner.job.prompt_files import Prompt, wrong_text
from genrun.runner.job.schema import CocoCaptions, PromptSuite, PromptTemplate
from genrun.runner.job.tree import Path as TreePath
from genrun.runner.job.tree import Value, bare, shown, unknown

MAX_NAMES = 10_000
"""Files of a folder among which the one that was probably meant is looked for."""

FIND_TIMEOUT_S = 60
"""Seconds for starting another Python and finding a package in it, on a slow network disk."""

COCO_BYTES = 512 * MIB
"""Largest size of a captions file in bytes: that of COCO's training pictures has 90 MB."""

FULL_INFO = "VBench_full_info.json"
I2V_FULL_INFO = "vbench2_i2v_full_info.json"
FIND = "import importlib.util as u; print(u.find_spec('vbench').submodule_search_locations[0])"

Found = tuple[list[Prompt], list[JobProblem]]
ReadFile = Callable[[Path], "list[Prompt] | JobFileError"]


def prompts_of(root: Value, read_file: ReadFile) -> Found:
    """Return the prompts of a job, and what is wrong with them.

    Args:
        root: the cell's document.
        read_file: `read_once`, shared by cells.
    """
    section = root.get("prompts")
    if section is None or section.wrong:
        return [], []
    if isinstance(section.data, list):
        found, problems = _listed(root)
    elif section.get("template") is not None:
        found, problems = _templated(root, section)
    elif section.get("suite") is not None or section.get("coco") is not None:
        found, problems = _known_set(root, section)
    else:
        found, problems = _from_file(root, read_file)
    return found, problems or prompt_files.duplicates(found)


def file_reader() -> ReadFile:
    """Return a function that reads each prompt file once, however many cells name it."""

    @cache
    def read(path: Path) -> list[Prompt] | JobFileError:
        try:
            return prompt_files.read(path, str(path))
        except JobFileError as error:
            return error

    return read


def _listed(root: Value) -> Found:
    """Return the prompts that a job lists: texts, and mappings whose fields the schema has checked."""
    prompts: list[Prompt] = []
    problems: list[JobProblem] = []
    for at, value in root.entries(("prompts",)):
        is_row = value.is_mapping
        text = root.text((*at, "prompt") if is_row else at)
        if text is None:
            continue
        if not text.strip():
            problems.append(root.problem((*at, "prompt") if is_row else at, "the prompt is blank."))
        elif is_row:
            prompts += _row(at, value, text)
        else:
            prompts.append(Prompt(text, value.origin))
    return prompts, problems


def _row(at: TreePath, value: Value, text: str) -> Iterator[Prompt]:
    fields = bare(value)
    row, inputs, wrong = prompt_files.own_fields(fields)
    negative, seed = fields.get("negative_prompt"), fields.get("seed")
    is_right = (negative is None or isinstance(negative, str)) and (seed is None or type(seed) is int)
    if not wrong and is_right:
        yield Prompt(text, value.origin, negative, seed, row, inputs, at)


def _from_file(root: Value, read_file: ReadFile) -> Found:
    at = ("prompts", "file")
    name, limit = root.text(at), root.find(("prompts", "limit"))
    if name is None:
        return [], []
    folder = root.place(at).folder
    path = prompt_files.find(name, folder)
    if path is None:
        return [], [root.problem(at, _unreadable(name, folder))]
    found = read_file(path)
    if isinstance(found, JobFileError):
        return [], list(found.problems)
    if not found:
        return [], [root.problem(at, f"{str(path)!r} has no prompts.")]
    wild = root.find(("prompts", "wildcards"))
    problems: list[JobProblem] = []
    if wild is not None and wild.data is True:
        found, problems = _written_out(found)
    return found[: limit.data if limit is not None and isinstance(limit.data, int) else None], problems


def _written_out(prompts: Sequence[Prompt]) -> Found:
    """Write the wildcards of prompts out; what is wrong stands at their lines."""
    from genrun.runner.job.prompt_templates import MAX_EXPANDED, TemplateError, wildcards

    found: list[Prompt] = []
    for prompt in prompts:
        try:
            written = [replace(prompt, text=text) for text in wildcards(prompt.text)]
        except TemplateError as error:
            return [], [JobProblem(prompt.origin, "", f"{error}.")]
        wrong = next((why for each in written if (why := _wrong_made(each.text))), "")
        if wrong:
            return [], [JobProblem(prompt.origin, "", wrong)]
        found += written
        if len(found) > MAX_EXPANDED:
            return [], [JobProblem(prompt.origin, "", f"more than {MAX_EXPANDED:,} prompts. Use fewer alternatives.")]
    return found, []


def _templated(root: Value, section: Value) -> Found:
    from genrun.runner.job.prompt_templates import MAX_EXPANDED, TemplateError, rendered, wildcards

    try:
        spec = PromptTemplate.model_validate_json(json.dumps(bare(section)), strict=True)
    except ValueError:  # pydantic's: the schema's check says what is wrong
        return [], []
    wrong_values = [
        root.problem(path, f"{value.written} would be written {value.data}. Put it in quotes.")
        for name in spec.variables
        for path, value in root.entries(("prompts", "variables", name))
        if value.written is not None
    ]
    is_one = isinstance(spec.template, str)
    templates = (spec.template,) if isinstance(spec.template, str) else spec.template
    wrong_values += [
        root.problem(("prompts", "variables", name), "no template names it: nothing is made of its values.", key=True)
        for name in spec.variables
        if not any(re.search(rf"\b{re.escape(name)}\b", template) for template in templates)
    ]
    if wrong_values:
        return [], wrong_values
    found: list[Prompt] = []
    for index, template in enumerate(templates):
        at = ("prompts", "template") if is_one else ("prompts", "template", index)
        try:
            for text in rendered(template, spec.variables):
                found += (Prompt(each, root.place(at)) for each in (wildcards(text) if spec.wildcards else [text]))
                if len(found) > MAX_EXPANDED:
                    raise TemplateError(f"more than {MAX_EXPANDED:,} prompts. Leave some values out")
        except TemplateError as error:
            return [], [root.problem(at, f"{error}.")]
        wrong = next((why for each in found if (why := _wrong_made(each.text))), "")
        if wrong:
            return [], [root.problem(at, wrong)]
    return found[: spec.limit], []


def _wrong_made(text: str) -> str:
    return wrong_text(text) or ("" if text.strip() else "one of its prompts is blank.")


def _unreadable(name: str, folder: Path) -> str:
    """Say why there is no file of prompts to read, and which one was probably meant."""
    path = located(name, folder)
    reason = unusable(path)
    try:
        with opened(path):
            pass
    except FileNotFoundError:
        pass
    except OSError as error:
        reason = reason or str(error.strerror)
    if reason:
        return f"{shown(name)} cannot be read: {reason}."
    try:
        near = [each.name for each in itertools.islice(path.parent.iterdir(), MAX_NAMES)]
    except (OSError, ValueError):
        near = []
    meant = did_you_mean(Path(name).name, near)
    return f"there is no file {shown(name)} in {str(folder)!r} or among the prompts packaged with genrun.{meant}"


def _known_set(root: Value, section: Value) -> Found:
    data = json.dumps(bare(section))
    try:
        if section.get("suite") is not None:
            return _vbench(root, PromptSuite.model_validate_json(data, strict=True))
        captions = CocoCaptions.model_validate_json(data, strict=True)
    except ValueError:  # pydantic's: the schema's check says what is wrong
        return [], []
    at = ("prompts", "coco")
    file = located(captions.coco, root.place(at).folder)
    return _texts(root, at, lambda: coco_texts(file, captions.sample, captions.seed), file)


def _vbench(root: Value, spec: PromptSuite) -> Found:
    names = spec.dimensions or (I2V_SUITE if spec.images else tuple(DIMENSIONS))
    known = (*ALL, CAMERA_MOTION) if spec.images else tuple(DIMENSIONS)
    problems = [
        root.problem(("prompts", "dimensions", index), unknown(name, known, "dimension of VBench"))
        for index, name in enumerate(names)
        if name not in known
    ]
    at = ("prompts", "full_info" if spec.full_info else "images" if spec.images else "suite")
    if spec.full_info:
        file = located(spec.full_info, root.place(at).folder)
    elif spec.images:
        remedy = f"Name the one of VBench's repository: full_info: vbench2_beta_i2v/{I2V_FULL_INFO}"
        file = f"vbench's package has no list of its image-to-video suite. {remedy}."
    else:
        file = _installed_list(root)
    if isinstance(file, str):
        problems.append(root.problem(at, file))
    if problems or isinstance(file, str):
        return [], problems
    if spec.images:
        folder = located(spec.images, root.place(("prompts", "images")).folder).absolute()
        found, wrong = _pictured(root, at, file, names, folder)
    else:
        found, wrong = _texts(root, at, lambda: vbench_texts(file, names), file)
    return found[: spec.limit], wrong


def _installed_list(root: Value) -> Path | str:
    """Return VBench's list of prompts in its environment, or why it cannot be found."""
    given = root.find(("output", "dir"))
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


def _texts(root: Value, at: TreePath, read: Callable[[], Sequence[str]], file: Path) -> Found:
    try:
        found = [Prompt(text, Origin(str(file))) for text in read()]
    except ValueError as error:
        return [], [root.problem(at, f"{error}.")]
    wrong = next((message for prompt in found if (message := wrong_text(prompt.text))), "")
    if wrong:
        return [], [root.problem(at, f"a prompt in {str(file)!r}: {wrong}")]
    return found, [] if found else [root.problem(at, f"{str(file)!r} has no such prompts.")]


def vbench_texts(full_info: Path, dimensions: Sequence[str]) -> list[str]:
    """Return the distinct prompts of some dimensions, in the order of VBench's list.

    Raises:
        ValueError: the file cannot be read or is no such list.
    """
    from genrun.adapters.scorers.vbench.video_folder import read_suite

    wanted = set(dimensions)
    return list(dict.fromkeys(each["prompt_en"] for each in read_suite(full_info) if wanted & set(each["dimension"])))


def _pictured(root: Value, at: TreePath, full_info: Path, dimensions: Sequence[str], folder: Path) -> Found:
    """Return the distinct prompts of some dimensions of VBench's image-to-video list, each with its start image."""
    from genrun.adapters.scorers.vbench.video_folder import read_suite

    try:
        chosen = [entry for entry in read_suite(full_info) if set(dimensions) & set(entry["dimension"])]
    except ValueError as error:
        return [], [root.problem(at, f"{error}.")]
    names = {entry["prompt_en"]: entry.get("image_name") for entry in chosen}
    for text, name in names.items():
        # A name of a file is no path: what a list says must not lead out of the folder.
        if not isinstance(name, str) or name in ("", "..") or Path(name).name != name or unusable(name):
            wanted = f"wanted image_name, the name of a file of its folder, got {shown(name)}"
            return [], [root.problem(at, f"{str(full_info)!r}: of the prompt {shown(text)}: {wanted}.")]
    found, wrong = _texts(root, at, lambda: list(names), full_info)
    return [replace(each, inputs={"image": (str(folder / str(names[each.text])),)}) for each in found], wrong


def coco_texts(captions: Path, sample: int | None, seed: int) -> list[str]:
    """Return one caption of each picture, its first by id, in the order of pictures; or as many as asked, drawn by seed.

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
