"""Job files: right ones with a few things wrong, written as YAML of every style."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.values import FITTING, ODD, PLACES, TEXTS, Raw

RIGHT: list[dict[str, Any]] = [
    {"model": "demo-image", "prompts": ["a red ball"]},
    {"model": "org/name", "prompts": ["a", "b"], "seeds": [0, 1], "sampling": {"steps": 4, "options": {"eta": 0.5}}},
    {"model": "demo-video", "prompts": {"file": "p.txt"}, "solver": {"kind": "ropa", "workers": 4}, "score": ["psnr"]},
    {
        "model": "demo-image",
        "prompts": ["a"],
        "matrix": {"solver": ["sequential", {"kind": "ropa", "workers": 2}]},
        "score": ["latent_rmse", {"kind": "psnr"}],
        "gates": {"latent_rmse": {"max": 0.1}, "psnr": {"min": 20, "max_missing": "5%"}},
    },
    {
        "model": "org/name",
        "prompts": {"file": "p.jsonl", "limit": 2},
        "launch": {
            "kind": "slurm",
            "partition": "gpu",
            "array": 4,
            "gpus": 2,
            "time": "04:00:00",
            "setup": ["export X=${MY_TOKEN}"],
            "options": {"mem": 0, "mail-type": "END"},
            "template": "mine.j2",
            "then": ["score", {"step": "report", "options": {"mem": 1}}],
        },
        "parallel": {"time": 2},
    },
    {"extends": "base.yaml", "sampling": {"steps": 3}, "output": {"dir": "out", "crf": 20, "fps": 8}},
    {"model": "demo-image", "prompts": {"file": "p.csv"}, "cache": {"kind": "first_block", "threshold": 0.1}},
    {
        "model": {"adapter": "auto", "checkpoint": "org/name", "dtype": {"default": "float16", "vae": "float32"}},
        "prompts": {"coco": "coco.json", "sample": 1},
        "nightly": {"at": "02:00", "notify": {"command": ["cat", "${MY_TOKEN}"]}},
    },
]

LAUGHS = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else 'x'] * 9)}]\n" for n in range(10))
LINES = [
    *(
        "sedes:",
        "? a",
        "---",
        "...",
        "%YAML 1.1",
        "# only a comment",
        "\t",
        "a: &x {b: *x}",
        "<<: {model: x}",
        "- a",
        ": ",
        "}",
    ),
    *(
        "model: &m demo-image\nname: *m",
        "model: demo-video",
        "prompts:",
        "extends: job.yaml",
        LAUGHS,
        "x: " + "[" * 3000,
    ),
    *(
        "\ufeff",
        "\x00",
        "\x1b",
        "\ud800",
        "\x85",
        "\u2028",
        "extends: ../up.yaml",
        "extends: fifo",
        "extends: /dev/zero",
    ),
]


@st.composite
def job_files(draw: st.DrawFn) -> bytes:
    """The bytes of a job file."""
    job = copy.deepcopy(draw(st.sampled_from(RIGHT)))
    for place, value in draw(st.lists(st.sampled_from(FITTING), max_size=3)):
        put(job, place, value)
    # Most checks only come to a job that is otherwise right: many have one fault, and many have none.
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2]))):
        put(job, draw(st.sampled_from(PLACES)), draw(ODD))
    text = as_yaml(job, flow=draw(st.booleans()))
    if draw(st.integers(0, 11)) == 0:
        text = spoiled(text, draw(st.integers(0, len(text))), draw(st.sampled_from(LINES)))
    data = text.encode("utf-8", "surrogatepass")
    return draw(st.sampled_from(ENCODINGS))(data) if draw(st.integers(0, 15)) == 0 else data


ENCODINGS = [
    lambda data: b"\xef\xbb\xbf" + data,
    lambda data: data.decode("utf-8", "replace").encode("utf-16"),
    lambda data: data.replace(b"\n", b"\r\n"),
    lambda data: data.replace(b"\n", b"\r"),
    lambda data: data[: len(data) // 2],
    lambda data: data + b"\xff\xfe",
    lambda data: data.replace(b"a", b"\0"),
    lambda data: b"",
]


def put(job: dict[str, Any], place: str, value: Any) -> None:
    """Write a value at a place, making what is on the way to it."""
    here: Any = job
    *way, last = place.split(".")
    for part in way:
        below = here[int(part)] if isinstance(here, list) and part.isdigit() and int(part) < len(here) else None
        below = here.get(part) if isinstance(here, dict) else below
        if not isinstance(below, dict | list):
            below = {}
            _set(here, part, below)
        here = below
    # A copy: a mapping that is put in several places would grow by what is put into it, and contain itself in the end.
    _set(here, last, copy.deepcopy(value))


def _set(here: Any, key: str, value: Any) -> None:
    if isinstance(here, dict):
        here[key] = value
    elif key.isdigit() and int(key) < len(here):
        here[int(key)] = value
    else:
        here.append(value)


def spoiled(text: str, at: int, line: str) -> str:
    """A text with a line put in, at a place of its own or in the middle of another."""
    return text[:at] + line + ("\n" if line.isprintable() else "") + text[at:]


def as_yaml(data: Any, *, flow: bool) -> str:
    """Data as YAML: a key of the document a line, what is below them in braces or indented."""
    return "".join(f"{_scalar(key)}: {_value(value, '  ', flow)}\n" for key, value in data.items())


def _value(data: Any, indent: str, flow: bool) -> str:
    if not isinstance(data, dict | list) or not data or flow:
        return _flow(data)
    pairs = data.items() if isinstance(data, dict) else [(None, each) for each in data]
    lines = (
        f"{'-' if key is None else _scalar(key) + ':'} {_value(value, indent + '  ', flow)}" for key, value in pairs
    )
    return "".join(f"\n{indent}{line}" for line in lines)


def _flow(data: Any) -> str:
    if isinstance(data, dict):
        return "{" + ", ".join(f"{_scalar(key)}: {_flow(value)}" for key, value in data.items()) + "}"
    if isinstance(data, list):
        return "[" + ", ".join(map(_flow, data)) + "]"
    return _scalar(data)


def _scalar(data: Any) -> str:
    if isinstance(data, Raw):
        return data
    if isinstance(data, float) and (data != data or data in (float("inf"), float("-inf"))):
        return {"inf": ".inf", "-inf": "-.inf"}.get(str(data), ".nan")
    return json.dumps(data)


SETS = st.one_of(
    st.sampled_from([f"{place}={_flow(value)}" for place, value in FITTING]),
    st.builds(
        "{}={}".format,
        st.sampled_from(PLACES),
        st.one_of(st.sampled_from([str(text) for text in TEXTS]), ODD.map(_flow)),
    ),
)
"""Options `--set`."""
