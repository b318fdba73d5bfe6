"""YAML: what is read, what is refused and where the message points."""

from __future__ import annotations

from pathlib import Path

import pytest

from genrun.runner.job import yaml as source
from genrun.runner.job.errors import JobFileError, Origin
from genrun.runner.job.tree import bare

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)


def parsed(text: str) -> object:
    return bare(source.parse(text, lambda line, column: Origin("job.yaml", line, column)))


def refusal(text: str) -> list[str]:
    with pytest.raises(JobFileError) as caught:
        parsed(text)
    return str(caught.value).split("\n")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("-2", -2),
        ("0x10", 16),
        ("1" * 5000, float("inf")),
        ("007", 7),
        ("1.5", 1.5),
        (".inf", float("inf")),
        ("12:30:00", "12:30:00"),
        ("2026-01-31", "2026-01-31"),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("~", None),
        ("", None),
        ("'8'", "8"),
        ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
        ("'<<': 1", {"<<": 1}),
    ],
)
def test_scalars_are_read_as_yaml_1_2_reads_them(text: str, value: object) -> None:
    assert parsed(text) == value


def test_a_python_tag_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    assert refusal(f'model: !!python/object/apply:os.system ["touch {trace}"]') == [
        "job.yaml:1:8: the YAML tag '!!python/object/apply:os.system' is not allowed: a job holds plain values. "
        "Remove the tag."
    ]
    assert not trace.exists()


def test_aliases_that_expand_without_end_are_refused() -> None:
    (message,) = refusal(LAUGHS)
    assert message.startswith("job.yaml:1:")
    assert message.endswith(
        "aliases (`*name`) expand to more than 100,000 values. Write the values out, or use `matrix`."
    )


def test_more_values_than_a_job_has_are_refused_before_all_of_them_are_read() -> None:
    message = "job.yaml:50000:3: not YAML: more than 50,000 values. Put prompts into a file."
    assert refusal("- a\n" * 250_000) == [message]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [*x]", "job.yaml:1:4: an alias (`*name`) contains itself. Write the values out."),
        ("a: " + "[" * 3000, "job.yaml:1:43: not YAML: nested deeper than 40 levels."),
        ("a: 1\na: 2", "job.yaml:2:1: 'a' is given twice, first at job.yaml:1:1. Remove one of them."),
        (
            "x: {}\n<<: {a: 1}",
            "job.yaml:2:1: merge keys (`<<`) are not supported. Use `extends: other.yaml`.",
        ),
        ("? [a]\n: 1", "job.yaml:1:3: a key must be text."),
        (
            "a: !!int b",
            "job.yaml:1:4: 'b' is not of the type its tag says. Remove the tag.",
        ),
        (
            "a: [1,\nb: }",
            "job.yaml:2:4: not YAML: while parsing a flow node expected the node content, but found '}'.",
        ),
        (
            "a: 1\nb: 'x\x07'",
            "job.yaml:2:6: character U+0007 is not allowed in YAML. Write it as an escape in double quotes.",
        ),
        (
            "a: {b: ${C}}",
            "job.yaml:1:9: not YAML: while parsing a flow mapping expected ',' or '}', but got '{'. In `{...}` and `[...]` "
            "a `${NAME}` is cut at its brace: give the key a line of its own, as in `steps: ${NAME}`.",
        ),
        (
            "a: [1,\nb: 2",
            "job.yaml:2:5: not YAML: while parsing a flow sequence expected ',' or ']', but got '<stream end>', begun at "
            "job.yaml:1:4.",
        ),
        (
            "a:\n\tb: 1",
            "job.yaml:2:1: not YAML: while scanning for the next token found character '\\t' that cannot start any token. "
            "YAML indents by spaces alone: write them instead of the tab.",
        ),
        (
            "a:\n  - 1\n - 2",
            "job.yaml:3:2: not YAML: while parsing a block mapping expected <block end>, but found '<block sequence start>'"
            ", begun at job.yaml:1:1. Keys of one mapping, and dashes of one list, begin in the same column.",
        ),
        (
            "a:\n  - 1\n  -2\n  - 3",
            "job.yaml:4:3: not YAML: while scanning a simple key could not find expected ':', begun at job.yaml:3:3. A key "
            "ends with `: `, and an item of a list begins with `- `.",
        ),
        (
            "a: *b",
            "job.yaml:1:4: not YAML: found undefined alias 'b'.",
        ),
        (
            "a: 1\n---\nb: 1",
            "job.yaml:2:1: not YAML: expected a single document in the stream but found another document.",
        ),
    ],
)
def test_what_is_not_plain_data_is_refused_with_its_place(text: str, message: str) -> None:
    assert refusal(text) == [message]


def test_all_problems_of_a_document_are_reported_at_once() -> None:
    assert [line.split(": ")[0] for line in refusal("a: !x 1\nb: !y 2\na: 3")] == [
        "job.yaml:1:4",
        "job.yaml:2:4",
        "job.yaml:3:1",
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"model: x\nprompts: [\xff]\n", "job.yaml:2:11: byte 0xff is not UTF-8. Save the file as UTF-8."),
        (b"", "job.yaml:1:1: wanted a mapping such as `model: demo-video`, got nothing."),
        (b"- a\n", "job.yaml:1:1: wanted a mapping such as `model: demo-video`, got other data."),
        (
            b"#" * (source.MAX_BYTES + 1),
            "job.yaml: 1,048,577 bytes, more than the 1,048,576 a job file may have. "
            "Put prompts into a file: `prompts: {file: prompts.txt}`.",
        ),
    ],
)
def test_a_file_that_is_no_job_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(data)
    with pytest.raises(JobFileError) as caught:
        source.read(path, "job.yaml")
    assert str(caught.value) == message


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "no.yaml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(JobFileError) as caught:
            source.read(path, "x")
        assert str(caught.value) == f"x: cannot be read: {reason}."


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert bare(source.read(path, "job.yaml")) == {"a": 1}
