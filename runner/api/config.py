"""The user's defaults: a file in the home folder, and variables of the environment that overrule it.

They hold where neither the command line nor a job says otherwise, and never change pictures: a job file means the same to
everybody.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genrun.runner.job.errors import JobProblem, Origin
    from genrun.runner.job.tree import Value

RUNS_VARIABLE = "GENRUN_RUNS"
FILE_VARIABLE = "GENRUN_CONFIG"
FALLBACK_RUNS = "runs"

KEYS = ("runs", "talk", "job")
TALK = ("quiet", "normal", "verbose")
MAX_BYTES = 2**20
SECTIONS = ("launch", "parallel", "output")
"""Sections of a job that may have defaults: those that no item's id depends on."""

COMMENTED = """\
# Defaults of genrun for this user. What a job file or the command line says overrules them.

# The folder of runs; the variable GENRUN_RUNS overrules it.
#runs: /scratch/me/runs

# What commands say beside their results: quiet, normal or verbose (genrun -q, genrun -v).
#talk: normal

# Values of jobs that do not give them: of launch, parallel and output, which never change the pictures.
#job:
#  launch: {kind: torchrun, threads: 4}
#  output: {save_latents: true}
"""


@dataclass(frozen=True)
class Config:
    """The user's defaults.

    Attributes:
        path: of the file, whether it is there or not.
        runs: the folder of runs.
        talk: "quiet", "normal" or "verbose".
        job: sections of a job, under those of every job.
        origins: key -> where its value comes from, of those that are given.
    """

    path: Path
    runs: str = FALLBACK_RUNS
    talk: str = "normal"
    job: Value | None = None
    origins: Mapping[str, Origin] = field(default_factory=dict)

    def under(self, job: Value, adapters: Sequence[str]) -> Value:
        """Return a job that was read, with these defaults where it says nothing."""
        from genrun.runner.job.layers import expand
        from genrun.runner.job.tree import Value, merge, put

        job = expand(job, adapters)
        if self.job is not None:
            job = merge(expand(self.job, adapters), job)
        if "runs" in self.origins and job.is_mapping and job.find(("output", "dir")) is None:
            job = put(job, ("output", "dir"), Value(self.runs, self.origins["runs"]))
        return job


def config_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the file of defaults is, or would be."""
    named = environ.get(FILE_VARIABLE)
    if named:
        return Path(named).expanduser()
    home = environ.get("XDG_CONFIG_HOME")
    return (
        (Path(home) if home else Path(environ.get("HOME") or "~").expanduser() / ".config") / "genrun" / "config.yaml"
    )


def default_runs() -> str:
    """Return the folder of runs where nothing names one: GENRUN_RUNS, the user's default, or `runs` in the current folder.

    Raises:
        JobFileError: the file of defaults is wrong.
    """
    return os.environ.get(RUNS_VARIABLE) or read_config().runs


def read_config(environ: Mapping[str, str] = os.environ) -> Config:
    """Read the user's defaults.

    Raises:
        JobFileError: with every problem of the file and its place, or that it is no file.
    """
    from genrun.adapters.files import is_there

    path, variable = config_path(environ), environ.get(RUNS_VARIABLE)
    # The null device is how a script says: none.
    is_given = str(path) != os.devnull and (is_there(path) or path.is_symlink() or bool(environ.get(FILE_VARIABLE)))
    found = _read(path) if is_given else Config(path)
    if variable:
        from genrun.runner.job.errors import Origin

        return replace(found, runs=variable, origins={**found.origins, "runs": Origin(RUNS_VARIABLE)})
    return found


def _read(path: Path) -> Config:
    from genrun.adapters.files import TooLargeError, read_bounded
    from genrun.runner.job.errors import Origin, raise_all, refuse
    from genrun.runner.job.files import expanded
    from genrun.runner.job.yaml import decode, parse

    try:
        text = decode(read_bounded(path, MAX_BYTES), str(path))
    except (TooLargeError, OSError) as error:
        if isinstance(error, FileNotFoundError) and not path.is_symlink():
            remedy = f"genrun config --write makes it; or name another file, or none, in {FILE_VARIABLE}."
            refuse(Origin(str(path)), f"{FILE_VARIABLE} names it, and it is not there. {remedy}")
        why = getattr(error, "strerror", None) or "it is too large"
        refuse(Origin(str(path)), f"cannot be read: {why}. {FILE_VARIABLE} may name another file.")
    root = parse(text, lambda line, column: Origin(str(path), line, column, of_user=True))
    if root.data is None:
        return Config(path)
    raise_all(_problems(root))
    given = {key: value for key in KEYS if (value := root.get(key)) is not None}
    return Config(
        path,
        # Relative to the file it would be in the home folder: as in a job, it is relative to the current one.
        runs=str(expanded(given["runs"].data)) if "runs" in given else FALLBACK_RUNS,
        talk=given["talk"].data if "talk" in given else "normal",
        job=given.get("job"),
        origins={key: value.origin for key, value in given.items()},
    )


def _problems(root: Value) -> Iterator[JobProblem]:
    from genrun.runner.job.tree import got, unknown

    if not root.is_mapping:
        yield root.problem((), f"wanted a mapping such as `runs: /scratch/me/runs`, got {got(root)}.")
        return
    for key in root.data:
        if key not in KEYS:
            yield root.problem((key,), unknown(key, KEYS, "key"), key=True)
    runs, talk, job = (root.get(key) for key in KEYS)
    if runs is not None and not (isinstance(runs.data, str) and runs.data):
        yield root.problem(("runs",), f"wanted a folder, got {got(runs)}.")
    if talk is not None and talk.data not in TALK:
        yield root.problem(("talk",), f"wanted {', '.join(TALK)}, got {got(talk)}.")
    if job is None:
        return
    if not job.is_mapping:
        yield root.problem(("job",), f"wanted sections of a job, got {got(job)}.")
        return
    for section, keys in job.data.items():
        if section not in SECTIONS:
            message = f"jobs alone say what changes pictures; there may be defaults of {', '.join(SECTIONS)}."
            yield root.problem(("job", section), message, key=True)
        elif not keys.is_mapping:
            yield root.problem(("job", section), f"wanted keys of {section}, got {got(keys)}.")
