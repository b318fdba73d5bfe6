"""Prompt lists: read byte for byte, refused with line numbers."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genrun.runner.job import prompt_files as prompts
from genrun.runner.job.errors import JobFileError, Origin
from genrun.runner.job.plan import WorkItem
from genrun.runner.strict_json import read_json
from tests.fakes.jobs import items_of, load_text, problems_of

HOSTILE = [
    "../../etc/passwd",
    "quotes \" and ' and `",
    "emoji \N{PILE OF POO} \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "<script>alert(1)</script>",
    "a line separator \u2028, a form feed \f, a next line \x85, a vertical tab \v",
    "  spaces around  ",
    "\x1b[31mred\x1b[0m",
    "right to left \u202e",
    "- yaml: [not, yaml]",
    "$(rm -rf /); ${HOME} %s {0}",
    "back\\slash \\n",
]

THERE_ARE = (
    "There are: prompt, name, negative_prompt, seed, image, last_image, video, mask, control_image, ip_adapter_image, "
    "strength, steps, guidance_scale, height, width, num_frames."
)

ONE_EACH = ' Each line is one object, with nothing around it: {"prompt": "a red kite"}.'
OPEN_QUOTE = " A double quote is opened there that nothing closes."


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(name: str, data: str | bytes) -> list[prompts.Prompt]:
    Path(name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return prompts.read(Path(name), name)


def refusal(name: str, data: str | bytes) -> list[str]:
    with pytest.raises(JobFileError) as caught:
        read(name, data)
    return str(caught.value).split("\n")


def test_a_text_file_has_a_prompt_a_line() -> None:
    found = read("p.txt", "\ufeff# title\na\r\n\n  # note\n b #1\nc")
    assert [(prompt.text, prompt.origin.line) for prompt in found] == [("a", 2), (" b #1", 5), ("c", 6)]


def test_the_line_ends_of_every_system_end_a_line() -> None:
    found = read("p.txt", "a red circle\ra blue square\r\rb\r\nc\nd")
    assert [(prompt.text, prompt.origin.line) for prompt in found] == [
        *(("a red circle", 1), ("a blue square", 2), ("b", 4), ("c", 5), ("d", 6)),
    ]
    assert [prompt.text for prompt in read("p.csv", "prompt\ra\rb\r")] == ["a", "b"]
    assert [prompt.text for prompt in read("p.jsonl", '{"prompt": "a"}\r{"prompt": "b"}\r')] == ["a", "b"]


def test_a_file_of_another_kind_is_given_up_and_so_is_one_of_more_prompts_than_anybody_makes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert refusal("p.csv", "prompt\n" + "a,b\n" * 5000)[-1] == "and 900 more"
    monkeypatch.setattr(prompts, "MAX_PROMPTS", 2)
    assert refusal("p.txt", "a\nb\nc\nd\n") == [
        "p.txt:3:1: more than 2 prompts. Split the file, one job for each part."
    ]


def test_hostile_prompts_survive_every_format() -> None:
    rows = io.StringIO()
    csv.writer(rows).writerows([["prompt"], *([text] for text in [*HOSTILE, "two\nlines"])])
    lines = "".join(json.dumps({"prompt": text}) + "\n" for text in [*HOSTILE, "two\nlines"])
    assert [prompt.text for prompt in read("p.txt", "\n".join(HOSTILE))] == HOSTILE
    assert [prompt.text for prompt in read("p.csv", rows.getvalue())] == [*HOSTILE, "two\nlines"]
    assert [prompt.text for prompt in read("p.jsonl", lines)] == [*HOSTILE, "two\nlines"]


def test_hostile_prompts_survive_the_plan_file() -> None:
    Path("p.txt").write_text("\n".join(HOSTILE), encoding="utf-8", newline="")
    items = items_of("model: tiny-video\nprompts: {file: p.txt}\n")
    lines = "".join(item.to_json() + "\n" for item in items).splitlines()
    assert [WorkItem.from_dict(read_json(line)) for line in lines] == items
    assert [item.prompt for item in items] == HOSTILE


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0")), min_size=1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_any_line_that_is_no_comment_is_a_prompt_as_it_is(lines: list[str]) -> None:
    kept = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if lines[0].startswith("\ufeff"):
        return
    assert [prompt.text for prompt in read("p.txt", "\n".join(lines))] == kept


def test_a_csv_may_give_negative_prompts_and_seeds() -> None:
    found = read("p.csv", 'prompt,negative_prompt,seed\n"a, b",ugly,3\n"two\nlines",,\n"c","",9\n')
    assert found == [
        prompts.Prompt("a, b", Origin("p.csv", 2, 1), "ugly", 3),
        prompts.Prompt("two\nlines", Origin("p.csv", 3, 1)),
        prompts.Prompt("c", Origin("p.csv", 5, 1), None, 9),
    ]


def test_a_jsonl_may_give_negative_prompts_and_seeds() -> None:
    found = read("p.jsonl", '{"prompt": "a", "negative_prompt": "ugly", "seed": 3}\n\n{"prompt": "b", "seed": null}\n')
    assert found == [
        prompts.Prompt("a", Origin("p.jsonl", 1, 1), "ugly", 3),
        prompts.Prompt("b", Origin("p.jsonl", 3, 1)),
    ]


def test_an_empty_negative_prompt_is_one_where_a_file_can_say_so() -> None:
    (empty, missing) = read("p.jsonl", '{"prompt": "a", "negative_prompt": ""}\n{"prompt": "b"}\n')
    assert (empty.negative_prompt, missing.negative_prompt) == ("", None)


@pytest.mark.parametrize(
    ("name", "data", "messages"),
    [
        ("p.txt", b"ok\nna\xefve\n", ["p.txt:2:3: byte 0xef is not UTF-8. Save the file as UTF-8."]),
        ("p.md", "a", ["p.md: a prompt file ends in .txt, .csv, .jsonl, not '.md'."]),
        (
            "p.csv",
            "promt,seed\na,1\n",
            [
                "p.csv:1:1: there is no column `prompt`. The first line of a .csv names the columns.",
                f"p.csv:1:1: unknown column 'promt'. Did you mean 'prompt'? {THERE_ARE}",
            ],
        ),
        ("p.csv", "", ["p.csv:1:1: there is no column `prompt`. The first line of a .csv names the columns."]),
        (
            "p.csv",
            "prompt,seed\na,1\nb,-1\nc,x\n,3\nd,1,2\n",
            [
                "p.csv:3:1: seed: wanted a whole number of at least 0, got '-1'.",
                "p.csv:4:1: seed: wanted a whole number of at least 0, got 'x'.",
                "p.csv:5:1: the prompt is empty, or not text.",
                "p.csv:6:1: more cells than the 2 columns. Put text with commas in double quotes.",
            ],
        ),
        ("p.csv", 'prompt\n"a', [f"p.csv:2:1: not CSV: unexpected end of data.{OPEN_QUOTE}"]),
        (
            "p.txt",
            'a\n{"prompt": "b"}',
            ["p.txt:2:1: a line of a .jsonl, which a .txt takes for the words of a prompt. Call the file .jsonl."],
        ),
        (
            "p.jsonl",
            '{"prompt": "a"\n["a"]\n{"promt": "a"}\n{"prompt": 3}\n{"prompt": "a", "sed": 1}\n{"prompt": "\\ud800"}\n'
            '{"prompt": "a", "mask_image": "m.png"}\n',
            [
                f"p.jsonl:1:1: not JSON: Expecting ',' delimiter.{ONE_EACH}",
                'p.jsonl:2:1: wanted an object with a key `prompt`, such as {"prompt": "a red kite"}.',
                'p.jsonl:3:1: wanted an object with a key `prompt`, such as {"prompt": "a red kite"}.',
                "p.jsonl:4:1: the prompt is empty, or not text.",
                f"p.jsonl:5:1: unknown key 'sed'. Did you mean 'seed'? {THERE_ARE}",
                "p.jsonl:6:1: half of a surrogate pair (\\ud800-\\udfff) is no character.",
                f"p.jsonl:7:1: unknown key 'mask_image'. Did you mean 'mask'? {THERE_ARE}",
            ],
        ),
        (
            "p.csv",
            "prompt,seed,prompt\na,1,b\n",
            ["p.csv:1:1: the column 'prompt' is there 2 times. Remove all but one."],
        ),
        (
            "p.csv",
            "prompt;seed\na;1\n",
            ["p.csv:1:1: its columns are separated by `;`, and those of a .csv by commas. Save it with commas."],
        ),
        (
            "p.csv",
            "prompt\tseed\na\t1\n",
            ["p.csv:1:1: its columns are separated by tabs, and those of a .csv by commas. Save it with commas."],
        ),
        ("p.csv", "prompt,seed\na\n", ["p.csv:2:1: fewer cells (1) than the 2 columns. Write empty ones, too."]),
        ("p.csv", "prompt\na\0b\n", ["p.csv:2:1: has a NUL, which is no character of a text."]),
        ("p.csv", f"prompt\n{'a' * 200_000}\n", ["p.csv:2:1: not CSV: field larger than field limit (131072)."]),
        ("p.txt", "ok\na\0b\n", ["p.txt:2:1: has a NUL, which is no character of a text."]),
        ("p.txt", "a" * 100_001, ["p.txt:1:1: 100,001 characters, more than the 100,000 a prompt may have."]),
        ("p.txt", "a\n".encode("utf-16"), ["p.txt:1:1: is UTF-16 (or UTF-32). Save the file as UTF-8."]),
        (
            "p.jsonl",
            '{"prompt": "a", "prompt": "b"}\n',
            ["p.jsonl:1:1: the key 'prompt' is given twice. Remove one of them."],
        ),
        ("p.jsonl", '{"prompt": "a\\u0000"}\n', ["p.jsonl:1:1: has a NUL, which is no character of a text."]),
        pytest.param("p.jsonl", "[" * 100_000, [f"p.jsonl:1:1: not JSON: too large or too deep.{ONE_EACH}"], id="deep"),
        pytest.param("p.jsonl", "9" * 5_000, [f"p.jsonl:1:1: not JSON: too large or too deep.{ONE_EACH}"], id="large"),
    ],
)
def test_a_bad_line_is_named(name: str, data: str | bytes, messages: list[str]) -> None:
    assert refusal(name, data) == messages


def test_duplicates_are_refused_naming_both_lines_and_the_remedy() -> None:
    Path("p.txt").write_text("a\nb\na\n")
    assert problems_of("model: tiny-video\nprompts: {file: p.txt}\n") == [
        "p.txt:3:1: the same prompt as p.txt:1:1. Remove one of them; for more samples of it add `seeds`."
    ]


def test_one_prompt_with_several_seeds_is_no_duplicate() -> None:
    Path("p.csv").write_text("prompt,seed\na,1\na,2\nb,\n")
    items = items_of("model: tiny-video\nprompts: {file: p.csv}\nseeds: [7, 8]\n")
    assert [(item.prompt, item.seed) for item in items] == [("a", 1), ("a", 2), ("b", 7), ("b", 8)]


def test_a_prompt_whose_own_seed_is_one_of_the_jobs_is_refused() -> None:
    Path("p.csv").write_text("prompt,seed\na,1\na,\n")
    assert problems_of("model: tiny-video\nprompts: {file: p.csv}\nseeds: [1]\n") == [
        "p.csv:3:1: with seed 1 the same item as p.csv:2:1. Remove one of them."
    ]


def test_an_empty_list_is_refused() -> None:
    Path("p.txt").write_text("\n# nothing\n")
    assert problems_of("model: tiny-video\nprompts: {file: p.txt}\n") == [
        "job.yaml:2:17: prompts.file: 'p.txt' has no prompts."
    ]


def test_a_limit_takes_the_first_prompts() -> None:
    Path("p.txt").write_text("a\nb\na\n")
    assert len(load_text("model: tiny-video\nprompts: {file: p.txt, limit: 2}\n").cells[0].prompts) == 2


def test_a_prompt_file_is_relative_to_its_job_then_packaged(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "p.txt").write_text("near\n")
    assert prompts.find("p.txt", tmp_path / "jobs") == tmp_path / "jobs" / "p.txt"
    assert prompts.find("p.txt", tmp_path) is None
    packaged = prompts.find("schema.json", tmp_path)
    assert packaged is not None
    assert packaged.parent.name == "jobs"


def test_ten_thousand_prompts_are_planned() -> None:
    Path("p.txt").write_text("".join(f"prompt number {number}\n" for number in range(10_000)))
    items = items_of("model: tiny-video\nprompts: {file: p.txt}\n")
    assert len({item.id for item in items}) == 10_000
