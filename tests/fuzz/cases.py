"""Cases: files that lie in a folder, and a command line that is called there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.files import beside, metadata
from tests.fuzz.jobs import SETS, job_files
from tests.fuzz.values import TEXTS

JOB = "job.yaml"
PICTURE = "gift.png"


@dataclass(frozen=True)
class Case:
    """What is tried.

    Attributes:
        args: of the command line.
        files: name -> bytes, written before the call.
        metadata: what `gift.png` says of itself.
    """

    args: tuple[str, ...]
    files: dict[str, bytes] = field(default_factory=dict)
    metadata: Any = None


VERBS = [
    *(
        ("validate", JOB),
        ("validate", JOB, "--json"),
        ("validate", JOB, "nope.yaml", JOB),
        ("show", JOB),
        ("show", JOB, "--origin"),
    ),
    *(("show", JOB, "--json", "--origin"), ("plan", JOB), ("plan", JOB, "--list"), ("plan", JOB, "--json")),
    *(("submit", JOB, "-n"), ("submit", JOB, "-n", "--json"), ("submit", JOB, "-n", "--run", "demo")),
]

# No command line can hold a NUL; what is not UTF-8 there becomes halves of surrogate pairs.
WORDS = st.one_of(
    st.sampled_from([str(text).replace("\0", "\udcff") for text in TEXTS]),
    st.sampled_from(
        [
            "demo",
            "runs/demo/latest",
            "demo/latest",
            "psnr",
            "solver",
            "sequential",
            "1/2",
            "3/2",
            "0/0",
            "psnr,psnr",
            "x=y",
        ]
    ),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8),
)
RUN_VERBS: dict[str, list[str]] = {
    "status": ["--runs", "--json"],
    "verify": ["--runs", "--json"],
    "history": ["--runs", "--json", "--rebuild"],
    "logs": ["--runs", "--rank"],
    "score": ["--metrics", "--set", "--shard", "--list", "--json", "--runs"],
    "compare": ["--by", "--baseline", "--worst", "--metrics", "--json", "--runs", "--junit", "--markdown"],
    "report": ["--standalone", "--runs", "--json"],
    "cancel": ["--item", "--task", "--runs"],
    "decode": ["--item", "--runs"],
    "pin": ["--remove", "--runs"],
    "rerun": ["--run", "--out", "--runs"],
    "submit": ["-n", "--run", "--set"],
    "validate": ["--set", "--json"],
    "schema": [],
    "solvers": ["--json"],
    "models": ["--json"],
    "caches": ["--json"],
}
FLAGS = frozenset({"--json", "--rebuild", "--list", "--standalone", "--remove", "-n"})


@st.composite
def job_cases(draw: st.DrawFn) -> Case:
    """A job file, perhaps with what it names, under a verb that reads it."""
    args = list(draw(st.sampled_from(VERBS)))
    if draw(st.integers(0, 2)) == 0:
        args += ["--set", draw(SETS).replace("\0", "\udcff")]
    files = draw(beside()) if draw(st.booleans()) else {}
    return Case(tuple(args), {**files, JOB: draw(job_files())})


@st.composite
def prompt_cases(draw: st.DrawFn) -> Case:
    """A right job with any prompt file, template and captions."""
    files = draw(beside())
    name = next(iter(files))
    prompts = draw(st.sampled_from([f"{{file: {name}}}", f"{{file: {name}, limit: 1}}", "{coco: coco.json}"]))
    job = f"model: org/name\nprompts: {prompts}\nlaunch: {{kind: slurm, template: mine.j2}}\n"
    return Case(draw(st.sampled_from(VERBS[:-1])), {**files, JOB: job.encode()})


@st.composite
def line_cases(draw: st.DrawFn) -> Case:
    """A command line of any words."""
    verb = draw(st.sampled_from(sorted(RUN_VERBS)))
    args = [
        verb,
        *draw(st.one_of(st.sampled_from([["demo"], ["demo"], ["demo", "demo"]]), st.lists(WORDS, max_size=2))),
    ]
    for option in draw(st.lists(st.sampled_from(RUN_VERBS[verb]), max_size=2)) if RUN_VERBS[verb] else []:
        args += [option] if option in FLAGS else [option, draw(WORDS)]
    if verb == "submit" and "-n" not in args:
        args.append("-n")
    return Case(tuple(args), {})


def media_cases(right: dict[str, Any]) -> st.SearchStrategy[Case]:
    """A picture that says anything of itself, to be made again."""
    return metadata(right).map(lambda found: Case(("rerun", PICTURE, "--out", "again"), {}, found))


def cases(right: dict[str, Any]) -> st.SearchStrategy[Case]:
    """Cases of every sort; of job files the most.

    Args:
        right: what a media file that genrun wrote says of itself.
    """
    return st.one_of(
        job_cases(), job_cases(), job_cases(), prompt_cases(), line_cases(), line_cases(), media_cases(right)
    )
