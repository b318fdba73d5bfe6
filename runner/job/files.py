"""Files that a job names: where they are, and pictures and clips of prompts, looked at once each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.adapters.files import is_file, is_there, unusable
from genrun.adapters.input_files import SUFFIXES, InputError, InputFile, look_at
from genrun.adapters.pipeline.call_options import ARGUMENTS
from genrun.runner.job.errors import JobProblem
from genrun.runner.job.tree import Value, shown

if TYPE_CHECKING:
    from genrun.runner.job.prompt_files import Prompt


JOBS = Path(__file__).parents[2] / "jobs"
"""The jobs and prompt lists that come with genrun, for those who installed it without its repository."""

HOME = "~"


def located(text: str, folder: Path) -> Path:
    """Return where a file is that a document in `folder` names: `~` is the user's home, as a shell has it."""
    return folder / expanded(text)


def expanded(text: str) -> Path:
    """Return a path with `~` or `~user` in front replaced by that user's home; as it is where there is no such user."""
    path = Path(text)
    try:
        return path.expanduser() if text.startswith(HOME) else path
    except RuntimeError:
        return path


def job_file(job: Path) -> Path:
    """Return the user's own job file, else the packaged one that `demo.yaml` or `jobs/demo.yaml` names."""
    # A name that no file can have is told where the file is read.
    if unusable(job) or is_there(job) or job.is_absolute():
        return job
    inside = job.relative_to("jobs") if job.parts[:1] == ("jobs",) else job
    packaged = JOBS / inside
    return packaged if ".." not in inside.parts and is_file(packaged) else job


Look = Callable[[Path], "InputFile | InputError"]
Inputs = Mapping[str, tuple[InputFile, ...]]
"""Field of a prompt -> its files."""

_ADDRESS = re.compile(r"[a-z]{2,10}://", re.IGNORECASE)
_SHA256 = re.compile(r"[0-9a-f]{64}")


def input_reader() -> Look:
    """Return a function that looks at each file once, however many prompts and cells name it."""

    @cache
    def look(path: Path) -> InputFile | InputError:
        try:
            return look_at(path)
        except InputError as error:
            return error

    return look


def problem_of(root: Value, prompt: Prompt, field: str, message: str) -> JobProblem:
    """Return a problem of a prompt's field, at its line."""
    if prompt.at:
        return root.problem((*prompt.at, field), message)
    return JobProblem(prompt.origin, "", f"{field}: {message}")


def found_inputs(root: Value, prompts: Sequence[Prompt], look: Look) -> tuple[list[Inputs], list[JobProblem]]:
    """Return the files of each prompt, and what is wrong with those that cannot be used."""
    found: list[Inputs] = []
    problems: list[JobProblem] = []
    for prompt in prompts:
        files: dict[str, tuple[InputFile, ...]] = {}
        for field, names in prompt.inputs.items():
            looked = [(name, look(located(name, prompt.origin.folder))) for name in names]
            for name, file in looked:
                if isinstance(file, InputError):
                    wanted = ""
                    if _ADDRESS.match(name):
                        wanted = " Nothing is fetched from an address: download it, and name the file."
                    elif not prompt.origin.line and not Path(name).is_absolute():
                        wanted = " Paths are relative to the current folder here."
                    problems.append(problem_of(root, prompt, field, f"{shown(name)}: {file}.{wanted}"))
            files[field] = tuple(file for _, file in looked if isinstance(file, InputFile))
        found.append(files)
    return found, problems


def as_stored(inputs: Inputs, names: Mapping[str, tuple[str, ...]]) -> dict[str, list[dict[str, str]]]:
    """Return files as an item stores them: field -> [{"sha256", "suffix", "name"}]; the name is for show alone."""
    return {
        field: [
            {"sha256": file.sha256, "suffix": file.suffix, "name": name}
            for file, name in zip(files, names[field], strict=True)
        ]
        for field, files in inputs.items()
    }


def identity(stored: Mapping[str, Sequence[Mapping[str, str]]]) -> dict[str, list[str]]:
    """Return what of stored inputs decides the pixels: field -> hashes."""
    return {field: [str(file["sha256"]) for file in files] for field, files in stored.items()}


def stored_files(inputs: Mapping[str, Sequence[Mapping[str, str]]]) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield the files of an item, each with its field."""
    for field, files in inputs.items():
        for file in files:
            yield field, file


def wrong_stored(data: Any) -> str:
    """Return why stored inputs are none that a plan could hold, or "": their words become names of files."""
    if not isinstance(data, dict) or not set(data) <= set(ARGUMENTS):
        return "its inputs are no mapping of fields that prompts have"
    for files in data.values():
        for file in files if isinstance(files, list) and files else [None]:
            if not isinstance(file, dict) or not all(isinstance(value, str) for value in file.values()):
                return "its inputs are no lists of files"
            if not _SHA256.fullmatch(file.get("sha256", "")) or file.get("suffix") not in SUFFIXES:
                return f"an input of it is {file!r:.100}, and wanted are a sha256 and a suffix of {', '.join(SUFFIXES)}"
    return ""
