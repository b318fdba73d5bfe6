"""Templates, wildcards and ranges: what short forms become, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from genrun.runner.api.jobs import load_job
from genrun.runner.job.errors import JobFileError
from genrun.runner.job.prompt_templates import TemplateError, rendered, wildcards


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def texts(prompts: Any, **more: Any) -> list[str]:
    return [prompt.text for prompt in load_job({"model": "demo-image", "prompts": prompts, **more}).cells[0].prompts]


def test_seeds_paths_wildcards_and_templates_write_lists_out() -> None:
    Path("p.txt").write_text("a {red|blue} ball\n{literal}\n")
    assert load_job({"model": "demo-image", "prompts": "p.txt", "seeds": 3}).job.seeds == (0, 1, 2)
    assert load_job({"model": "demo-image", "prompts": "p.txt", "seeds": "4..6"}).job.seeds == (4, 5, 6)
    assert texts("p.txt") == ["a {red|blue} ball", "{literal}"]
    assert texts({"file": "p.txt", "wildcards": True}) == ["a red ball", "a blue ball", "{literal}"]
    template = {"template": "a {{ c }} {{ t | upper }}", "variables": {"c": ["red", "blue"], "t": ["kite", 3]}}
    assert texts(template) == ["a red KITE", "a red 3", "a blue KITE", "a blue 3"]
    assert texts({**template, "limit": 1}) == ["a red KITE"]


def test_what_wildcards_become_has_to_be_a_prompt() -> None:
    Path("p.txt").write_text("first\n{a|}\n")
    with pytest.raises(JobFileError, match=r"p.txt:2:1: one of its prompts is blank"):
        texts({"file": "p.txt", "wildcards": True})


def test_values_of_a_template_are_written_as_they_stand() -> None:
    job = "model: demo-image\nprompts: {{template: 'take {{{{ x }}}}', variables: {{x: [{}]}}}}\n"
    for value, written in (("1.10", "1.1"), ("1e3", "1000.0"), ("010", "10"), ("0x10", "16")):
        Path("job.yaml").write_text(job.format(f"3, {value}"))
        with pytest.raises(JobFileError, match=rf"x\[1\]: {value} would be written {written}. Put it in quotes"):
            load_job("job.yaml")
    Path("job.yaml").write_text(job.format("'1.10', 2, 0.5, yes"))
    assert [prompt.text for prompt in load_job("job.yaml").cells[0].prompts] == [
        *("take 1.10", "take 2", "take 0.5", "take yes"),
    ]
    with pytest.raises(TemplateError, match=r"would be written True\. Put the value in quotes"):
        list(rendered("{{ x }}", {"x": [True]}))
    assert list(rendered("{% if x %}a{% else %}b{% endif %}", {"x": [True, False]})) == ["a", "b"]


def test_a_variable_that_no_template_names_is_refused() -> None:
    variables = {"c": ["red", "blue"], "size": ["small", "large"]}
    with pytest.raises(JobFileError, match=r"prompts\.variables\.size: no template names it"):
        texts({"template": ["a {{ c }} kite", "{{ c }}, sized"], "variables": variables})
    assert len(texts({"template": ["a {{ c }} kite", "a {{ size }} ball"], "variables": variables})) == 4


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for i in range(10**9) %}x{% endfor %}", "has no place in a prompt"),
        ("{{ 'a' * 10**9 }}", "has no place in a prompt"),
        ("{{ c.__class__ }}", "Getattr has no place"),
        ("{{ c | replace('a', 'b') }}", "there is no filter 'replace' here"),
        ("{% set d = c ~ c %}{{ d }}", "Assign has no place"),
        ("{{ d }}", "the variable 'd' has no values"),
        ("{{ c", "no template of Jinja"),
    ],
)
def test_a_template_fills_in_and_does_nothing_else(template: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        list(rendered(template, {"c": ["a"]}))


def test_combinations_are_counted_before_any_is_made() -> None:
    with pytest.raises(TemplateError, match="1,048,576 combinations, more than"):
        wildcards("{a|b}" * 20)
    with pytest.raises(TemplateError, match="combinations, more than"):
        list(rendered("{{ a }}{{ b }}", {"a": list(range(1000)), "b": list(range(1000))}))
