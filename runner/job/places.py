"""Files and folders that a job names, as places on this machine."""

from __future__ import annotations

from pathlib import Path

from genrun.adapters.files import is_folder, is_there, unusable
from genrun.runner.job.problems import Problem
from genrun.runner.job.schema import JobSpec
from genrun.runner.job.tree import Value

LONGEST = "/".join(("x" * 80, "2026-01-31T02-00-00-0000", "latents", "00", f".{'0' * 20}.00000000.tmp.safetensors"))
"""As long as the names of files in a run become below the folder of runs."""

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


def at_home(job: JobSpec) -> JobSpec:
    """Return a job whose folder of runs is named without `~`."""
    return job.model_copy(update={"output": job.output.model_copy(update={"dir": str(expanded(job.output.dir))})})


def folder_problems(root: Value) -> list[Problem]:
    """Name a folder of runs that cannot be made: of a user that is not there, or with a name too long."""
    value = root.find(("output", "dir"))
    if value is None or not isinstance(value.data, str) or not value.data:
        return []
    folder = expanded(value.data)
    wrong = unusable(Path(folder, LONGEST).absolute())
    if str(folder).startswith(HOME):
        wrong = (
            f"there is no user {folder.parts[0].removeprefix(HOME)!r} here; write ./{folder} for a folder of that name"
        )
    above = next((path for path in (folder, *folder.absolute().parents) if is_there(path)), folder)
    if not wrong and is_there(above) and not is_folder(above):
        wrong = f"{str(above)!r} is a file; wanted a folder"
    return [Problem(value.origin, "output.dir", f"{wrong}.")] if wrong else []
