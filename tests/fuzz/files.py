"""Prompt files, templates, captions and what a picture says of itself: right ones with something wrong."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.jobs import ENCODINGS, put
from tests.fuzz.values import ODD, TEXTS

LINES = [
    *(
        "a red ball",
        "# a comment",
        "",
        "   ",
        "a\rb",
        "a\x0bb",
        "a,b",
        '"a',
        'a"b',
        '"a,b"',
        "a\tb",
        "x" * 300,
        "y" * 150_000,
    ),
    *(
        "\0",
        "a\0b",
        "\ud800",
        "\ufeff",
        "\N{PILE OF POO}",
        "../../etc/passwd",
        "${MY_TOKEN}",
        "\x1b[2J",
        "a;b",
        "a,b,c,d",
    ),
]
HEADS = [
    "prompt",
    "prompt,seed",
    "prompt,prompt",
    "prompt;seed",
    "prompt\tseed",
    "promt",
    "",
    "seed",
    "prompt,negative_prompt,seed",
]
OBJECTS = [
    *(
        '{"prompt": "a"}',
        '{"prompt": "a", "prompt": "b"}',
        '{"prompt": 3}',
        '{"promt": "a"}',
        "[1]",
        "{",
        "null",
        '{"prompt": "\\ud800"}',
    ),
    *(
        '{"prompt": "a", "seed": 1e400}',
        '{"prompt": "a", "seed": -1}',
        "[" * 3000,
        '{"prompt": "\\u0000"}',
        '{"a": NaN}',
        '"a"',
        "9" * 5000,
    ),
]
TEMPLATES = [
    *(
        "{{ name }}",
        "{% for line in directives %}\n{{ line }}\n{% endfor %}",
        "{{ nope }}",
        "{% if %}",
        "{{ 1 / 0 }}",
        "{{ name",
    ),
    *(
        "{{ ''.__class__.__mro__ }}",
        "{% include 'x' %}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{{ name | nope }}",
        "\n\n{{ [][3] }}",
    ),
    *(
        "{{ setup }}",
        "{{ 'a' + 1 }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ run | shell }}",
        "\0",
        "{{ cwd.x.y }}",
    ),
]
CAPTIONS = [
    *(
        '{"annotations": [{"image_id": 1, "id": 1, "caption": "a cat"}]}',
        '{"annotations": 3}',
        "[]",
        "[" * 5000,
        "{}",
        "",
    ),
    *(
        '{"annotations": [{"image_id": NaN, "id": 1, "caption": "a"}]}',
        '{"annotations": [{"image_id": 1, "id": 1e400, "caption": "a"}]}',
    ),
    *(
        '{"annotations": [{"image_id": 1, "id": 1, "caption": "a\\u0000b"}]}',
        '{"annotations": [{"image_id": 1, "id": 1, "caption": null}]}',
    ),
]


RIGHT = {
    "p.txt": b"a red ball\n# a comment\na blue ball\n",
    "p.csv": b"prompt,seed\na red ball,1\n",
    "p.jsonl": b'{"prompt": "a red ball"}\n{"prompt": "b"}\n',
    "mine.j2": b"{% for line in directives %}\n{{ line }}\n{% endfor %}\n{{ run | shell }}\n",
    "coco.json": CAPTIONS[0].encode(),
    "base.yaml": b"model: org/name\nprompts: [a, b]\noutput: {fps: 4}\n",
}
"""What lies there when a case has no other."""


def _bytes(draw: st.DrawFn, text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return draw(st.sampled_from(ENCODINGS))(data) if draw(st.integers(0, 7)) == 0 else data


@st.composite
def prompt_files(draw: st.DrawFn) -> tuple[str, bytes]:
    """A prompt file: its name and its bytes."""
    name = draw(st.sampled_from(["p.txt", "p.csv", "p.jsonl", "p.md", "p.TXT", "p"]))
    pool = OBJECTS if name == "p.jsonl" else LINES
    lines = draw(st.lists(st.one_of(st.sampled_from(pool), st.text(max_size=8)), max_size=5))
    if name == "p.csv":
        lines.insert(0, draw(st.sampled_from(HEADS)))
    return name, _bytes(draw, draw(st.sampled_from(["\n", "\r\n", "\r"])).join(lines))


@st.composite
def beside(draw: st.DrawFn) -> dict[str, bytes]:
    """Files that a job names: a prompt file, perhaps a template and captions."""
    name, data = draw(prompt_files())
    return {
        name: data,
        "mine.j2": _bytes(draw, draw(st.sampled_from(TEMPLATES))),
        "coco.json": _bytes(draw, draw(st.sampled_from(CAPTIONS))),
    }


ITEM_PLACES = [
    *(
        "item",
        "item.id",
        "item.pair",
        "item.prompt",
        "item.negative_prompt",
        "item.seed",
        "item.model",
        "item.model.adapter",
    ),
    *(
        "item.model.checkpoint",
        "item.model.fingerprint",
        "item.model.dtype",
        "item.model.device",
        "item.model.vae",
        "item.model.x",
    ),
    *(
        "item.sampling",
        "item.sampling.steps",
        "item.sampling.width",
        "item.sampling.scheduler",
        "item.sampling.options",
    ),
    *(
        "item.sampling.options.generator",
        "item.solver",
        "item.solver.kind",
        "item.solver.workers",
        "item.axes",
        "item.axes.a",
    ),
    *(
        "item.cache",
        "item.cache.kind",
        "item.attention",
        "item.x",
        "made",
        "made.threads",
        "made.fps",
        "made.crf",
        "saving",
    ),
]


@st.composite
def metadata(draw: st.DrawFn, right: dict[str, Any]) -> Any:
    """What a media file may say of itself: the right thing, with something wrong."""
    found = json.loads(json.dumps(right))
    for _ in range(draw(st.integers(1, 2))):
        value = draw(st.one_of(ODD, st.sampled_from(TEXTS)))
        put(found, draw(st.sampled_from(ITEM_PLACES)), str(value) if isinstance(value, str) else value)
    return draw(st.sampled_from([found, found, found, found["item"], [], "x", 3]))
