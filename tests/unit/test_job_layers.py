"""Layers of a job: parents, --set, environment, matrix; and the document that they resolve to."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genrun.runner.job import restore
from genrun.runner.job.errors import JobFileError, Origin
from genrun.runner.job.layers import looks_secret
from genrun.runner.job.tree import bare
from genrun.runner.job.yaml import parse, render, scalar
from tests.fakes.jobs import BASE, ids, items_of, load_text, problems_of
from tests.fakes.registries import fake_registries


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_child_changes_its_parent_key_by_key_and_replaces_lists() -> None:
    Path("base.yaml").write_text(f"{BASE}sampling: {{steps: 3, width: 64}}\nseeds: [1, 2]\n")
    loaded = load_text("extends: base.yaml\nsampling: {width: 32}\nseeds: [7]\n")
    assert (loaded.job.sampling.steps, loaded.job.sampling.width, loaded.job.seeds) == (3, 32, (7,))
    assert loaded.job.name == "job"
    assert loaded.origin["sampling.steps"] == Origin("base.yaml", 3, 19)
    assert loaded.origin["sampling.width"] == Origin("job.yaml", 2, 19)
    assert loaded.origin["output.crf"] == Origin("default")


def test_another_kind_drops_the_options_of_the_parents_kind() -> None:
    Path("base.yaml").write_text(f"{BASE}solver: {{kind: window, window: 3}}\n")
    assert load_text("extends: base.yaml\nsolver: sequential\n").job.solver.options == {}
    assert load_text("extends: base.yaml\nsolver: {workers: 2}\n").job.solver.options["window"] == 3


def test_a_parent_is_relative_to_its_child_and_so_are_its_files() -> None:
    Path("shared").mkdir()
    Path("shared/p.txt").write_text("a\n")
    Path("shared/base.yaml").write_text("model: tiny-video\nprompts: {file: p.txt}\n")
    Path("shared/middle.yaml").write_text("extends: base.yaml\n")
    assert [prompt.text for prompt in load_text("extends: shared/middle.yaml\n").cells[0].prompts] == ["a"]


@pytest.mark.parametrize(
    ("child", "sets"),
    [
        ("extends: ../shared/base.yaml\n", []),
        ("model: tiny-video\n", ["prompts={file: shared/p.txt}"]),
        ("extends: ../shared/base.yaml\nmatrix: {prompts.file: [q.txt]}\n", []),
    ],
)
def test_files_of_the_resolved_document_are_relative_to_the_job(child: str, sets: list[str]) -> None:
    for folder in ("shared", "jobs"):
        Path(folder).mkdir()
    Path("shared/p.txt").write_text("a\n")
    Path("jobs/q.txt").write_text("b\n")
    Path("shared/base.yaml").write_text("model: tiny-video\nprompts: {file: p.txt}\n")
    loaded = load_text(child, *sets, name="jobs/job.yaml")
    again = load_text(render(loaded.document), name="jobs/again.yaml")
    assert [cell.prompts[0].text for cell in again.cells] == [cell.prompts[0].text for cell in loaded.cells]
    assert loaded.document["prompts"]["file"] == "../shared/p.txt"


def test_a_problem_in_a_parent_is_named_with_the_parents_place() -> None:
    Path("base.yaml").write_text(f"{BASE}bla: 1\n")
    (line,) = problems_of("extends: base.yaml\n")
    assert line.startswith("base.yaml:3:1: bla: unknown option.")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: job.yaml", "job.yaml:1:10: extends: job.yaml extends itself. Remove one of the `extends`."),
        ("extends: b.yaml", "b.yaml:1:10: extends: job.yaml extends itself. Remove one of the `extends`."),
        ("extends: no.yaml", "job.yaml:1:10: extends: there is no file 'no.yaml'."),
        ("extends: [a]", "job.yaml:1:10: extends: wanted the name of one job file, relative to this one."),
    ],
)
def test_a_parent_that_cannot_be_is_refused(text: str, message: str) -> None:
    Path("b.yaml").write_text("extends: job.yaml\n")
    assert problems_of(text) == [message]


def test_set_is_typed_by_the_schema_and_names_itself() -> None:
    loaded = load_text(BASE, "solver.workers=4", "solver.kind=window", "seeds=[3]", "sampling.scheduler=DDIMScheduler")
    assert loaded.job.solver.options["workers"] == 4
    assert loaded.origin["solver.workers"] == Origin("--set solver.workers=4")
    assert problems_of(BASE, "solver.kind=windw") == [
        "--set solver.kind=windw: solver.kind: there is no solver 'windw'. Did you mean 'window'? "
        "There are: sequential, window."
    ]
    assert problems_of(BASE, "sampling.steps=many", "sampling.stepz=1") == [
        "--set sampling.steps=many: sampling.steps: wanted a whole number, got 'many'.",
        "--set sampling.stepz=1: sampling.stepz: unknown option. Did you mean 'steps'?",
    ]


def test_the_last_set_of_a_path_wins() -> None:
    assert load_text(BASE, "sampling.steps=3", "sampling.steps=4").job.sampling.steps == 4


@pytest.mark.parametrize("text", ["steps", "=3", "a..b=3", ".a=1", ".".join("a" * 5000) + "=1"])
def test_a_set_without_path_or_value_is_refused(text: str) -> None:
    (line,) = problems_of(BASE, text)
    assert line.endswith(": wanted a path and a value, such as --set solver.workers=4.")


def test_a_set_that_the_matrix_would_undo_is_refused() -> None:
    assert problems_of(f"{BASE}matrix: {{solver: [sequential, window]}}\n", "solver.workers=4") == [
        "--set solver.workers=4: solver.workers: the matrix varies solver, so this would change nothing. "
        "Set matrix.solver=[...] instead."
    ]
    items = items_of(f"{BASE}matrix: {{sampling.steps: [1]}}\n", "matrix.sampling.steps=[2, 3]")
    assert [item.sampling["steps"] for item in items] == [2, 3]


def test_values_come_from_the_environment_with_their_type() -> None:
    text = f"{BASE}sampling:\n  steps: ${{STEPS:-20}}\n  negative_prompt: '${{STEPS:-20}}'\nname: a-${{WHO}}\n"
    loaded = load_text(text, environ={"WHO": "b"})
    assert (loaded.job.sampling.steps, loaded.job.sampling.negative_prompt, loaded.job.name) == (20, "20", "a-b")
    assert load_text(text, environ={"WHO": "", "STEPS": "5"}).job.sampling.steps == 5
    assert problems_of(text, environ={"WHO": "", "STEPS": "9" * 5000})[0].endswith("wanted a whole number, got inf.")
    assert loaded.document["sampling"]["steps"] == 20


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("${NOPE}", "the environment variable NOPE is not set. Set it, or give a default: ${NOPE:-...}."),
        ("${NOPE:?run setup.sh}", "the environment variable NOPE is not set: run setup.sh."),
        ("${EMPTY:?}", "the environment variable EMPTY is not set: this job needs it."),
        (
            "${NOPE",
            "`${` starts a variable that does not end. Write ${NAME}, ${NAME:-default} or ${NAME:?why}, "
            "or `$${` for a plain `${`.",
        ),
        ("${BYTES}", "the environment variable BYTES is not UTF-8."),
    ],
)
def test_a_variable_that_gives_nothing_is_named_with_its_place(value: str, message: str) -> None:
    environ = {"EMPTY": "", "BYTES": "\udcff"}
    assert problems_of(f"{BASE}output: {{dir: '{value}'}}\n", environ=environ) == [
        f"job.yaml:3:15: output.dir: {message}"
    ]
    assert problems_of(f"{BASE}launch: '{value}'\n", environ=environ)[0].startswith("job.yaml:3:9: launch: ")


def test_a_variable_that_a_child_replaces_need_not_be_set() -> None:
    Path("base.yaml").write_text(f"{BASE}output: {{dir: '${{NOPE}}'}}\n")
    assert load_text("extends: base.yaml\noutput: {dir: here}\n").job.output.dir == "here"


def test_a_dollar_that_starts_no_variable_stays() -> None:
    assert items_of("model: tiny-video\nprompts: ['$5, $HOME, $${x} $$ {}']\n")[0].prompt == "$5, $HOME, ${x} $$ {}"


def test_a_secret_is_used_but_never_stored() -> None:
    text = f"{BASE}launch: {{setup: ['export T=${{HF_TOKEN}}', 'echo ${{HOST}}']}}\n"
    loaded = load_text(text, environ={"HF_TOKEN": "hf_hidden", "HOST": "here"})
    assert loaded.job.launch.setup == ("export T=hf_hidden", "echo here")
    assert loaded.document["launch"]["setup"] == ["export T=${HF_TOKEN}", "echo here"]
    assert "hidden" not in repr((loaded.document, loaded.origin))


def test_a_stored_job_is_restored_with_the_secrets_of_today() -> None:
    text = f"{BASE}launch: {{setup: ['export T=${{HF_TOKEN}} $${{x}}']}}\noutput: {{crf: 3}}\n"
    loaded = load_text(text, environ={"HF_TOKEN": "old"})
    job = restore(loaded.document, {"HF_TOKEN": "new"}, fake_registries())
    assert job.launch.setup == ("export T=new ${x}",)
    assert job.output == loaded.job.output
    with pytest.raises(JobFileError) as caught:
        restore(loaded.document, {}, fake_registries())
    assert str(caught.value) == (
        "job.yaml of the run: launch.setup[0]: the environment variable HF_TOKEN is not set. "
        "Set it, or give a default: ${HF_TOKEN:-...}."
    )


def test_a_stored_job_whose_prompts_and_model_are_axes_is_restored() -> None:
    loaded = load_text("matrix: {model: [tiny-video, tiny-image], prompts: [[a], [b]], seeds: [[1], [2]]}\n")
    job = restore(loaded.document, {}, fake_registries())
    assert (job.model.adapter, job.prompts, job.seeds) == ("tiny-video", ("a",), (1,))


def test_a_secret_may_not_be_part_of_an_item_and_no_message_shows_it() -> None:
    assert problems_of("model: tiny-video\nprompts: ['${MY_KEY}']\n", environ={"MY_KEY": "hidden"}) == [
        "job.yaml:2:11: prompts[0]: ${MY_KEY} looks like a secret. Items are stored: use a variable whose name does not "
        "end in TOKEN, KEY, SECRET or PASSWORD."
    ]
    (line,) = problems_of(f"{BASE}output: {{format: '${{MY_KEY}}'}}\n", environ={"MY_KEY": "hidden"})
    assert line.startswith(
        "job.yaml:3:18: output.format: ${MY_KEY} looks like a secret. It would be stored with the run"
    )
    (line,) = problems_of(f"{BASE}launch: {{kind: '${{MY_KEY}}'}}\n", environ={"MY_KEY": "hidden"})
    assert "hidden" not in line
    (line,) = problems_of("extends: ${MY_KEY}\n", environ={"MY_KEY": "hidden"})
    assert "hidden" not in line


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "API_KEY", "apikey", "DB_PASSWORD", "SECRET_2", "MY_SECRET", "AWS_CREDENTIALS"]
)
def test_names_that_look_secret(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize("name", ["MAX_TOKENS", "KEYFRAMES", "STEPS", "MONKEYS"])
def test_names_that_do_not_look_secret(name: str) -> None:
    assert not looks_secret(name)


def test_the_matrix_is_a_product_with_short_labels() -> None:
    items = items_of(f"{BASE}matrix: {{solver: [sequential, {{kind: window, workers: 4}}], sampling.steps: [2, 3]}}\n")
    assert [item.axes for item in items] == [
        {"solver": "sequential", "sampling.steps": "2"},
        {"solver": "sequential", "sampling.steps": "3"},
        {"solver": "window K=4", "sampling.steps": "2"},
        {"solver": "window K=4", "sampling.steps": "3"},
    ]


def test_an_axis_of_kinds_keeps_the_options_of_its_own_kind_only() -> None:
    text = f"{BASE}solver: {{kind: window, tolerance: 0.5}}\nmatrix: {{solver.kind: [sequential, window]}}\n"
    assert [item.solver.get("tolerance") for item in items_of(text)] == [None, 0.5]


def test_labels_that_would_be_equal_are_numbered() -> None:
    text = "model: tiny-video\nprompts: [a]\nmatrix: {sampling.negative_prompt: ['1', 'x', x]}\n"
    (line,) = problems_of(text)
    assert (
        line
        == "job.yaml:3:47: matrix.sampling.negative_prompt: 'x' is given twice, first at job.yaml:3:42. Remove one of them."
    )
    items = items_of(f"{BASE}matrix: {{sampling.options.a: [1, '1']}}\n")
    assert [item.axes["sampling.options.a"] for item in items] == ["1 #1", "1 #2"]


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ("{solver.windw: [1]}", "3:10: matrix.solver.windw: no such option. Did you mean 'solver.window'?"),
        ("{sampling.stepz: [1]}", "3:10: matrix.sampling.stepz: no such option. Did you mean 'sampling.steps'?"),
        (
            "{launch.kind: [inline]}",
            "3:10: matrix.launch.kind: launch does not change the pictures, so it cannot be an axis.",
        ),
        ("{solver: []}", "3:18: matrix.solver: wanted a list of values that is not empty, got an empty list."),
        ("{solver: window}", "3:18: matrix.solver: wanted a list of values that is not empty, got 'window'."),
        ("{seeds: [1]}", "3:18: seeds: wanted a list in a matrix, such as [0], got 1."),
        (
            "{sampling.steps: [1, x]}",
            "3:30: sampling.steps: wanted a whole number, got 'x'. (In the cell sampling.steps=x.)",
        ),
        (
            "{solver: [sequential, {kind: window, windw: 1}]}",
            "3:46: solver.windw: unknown option. Did you mean 'window'? (In the cell solver=window windw=1.)",
        ),
        (
            "{sampling.steps: [1, 2, 3], sampling.width: " + str(list(range(1, 500))) + "}",
            "3:1: matrix: 1,497 cells, more than 1,000. Split the job, or drop an axis.",
        ),
        ("[1]", "3:9: matrix: wanted a mapping, got a list."),
    ],
)
def test_a_bad_axis_is_named_with_its_place(matrix: str, message: str) -> None:
    assert f"job.yaml:{message}" in problems_of(f"{BASE}matrix: {matrix}\n")


def test_a_problem_of_every_cell_is_reported_once() -> None:
    text = f"{BASE}sampling: {{steps: 0}}\nmatrix: {{solver: [sequential, window]}}\n"
    assert problems_of(text) == ["job.yaml:3:19: sampling.steps: wanted at least 1, got 0."]


def test_cells_that_make_the_same_items_are_refused() -> None:
    text = f"{BASE}matrix: {{solver: [window, {{kind: window, workers: 1}}]}}\n"
    assert problems_of(text) == [
        "job.yaml:3:19: matrix: solver=window and solver=window K=1 make the same items. Remove one of them."
    ]


HOSTILE = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(str.strip)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(st.lists(HOSTILE, min_size=1, max_size=5, unique=True))
def test_the_resolved_document_is_a_job_file_with_the_same_items(prompts: list[str]) -> None:
    written = "".join(f"  - {scalar(prompt.replace('${', '$${'))}\n" for prompt in prompts)
    loaded = load_text(f"model: tiny-video\nprompts:\n{written}solver: window\nsampling: {{steps: 3}}\n")
    items = items_of(f"model: tiny-video\nprompts:\n{written}solver: window\nsampling: {{steps: 3}}\n")
    assert [item.prompt for item in items] == prompts
    again = items_of(render(loaded.document, loaded.origin))
    assert (ids(again), [item.prompt for item in again]) == (ids(items), prompts)


@given(st.one_of(st.text(), st.integers(), st.floats(allow_nan=False), st.booleans(), st.none()))
@settings(max_examples=200)
def test_a_rendered_value_reads_back_the_same(value: object) -> None:
    if isinstance(value, int) and abs(value) > 10**20:
        return
    assert bare(parse(f"a: {scalar(value)}", lambda _line, _column: Origin("x"))) == {"a": value}


def test_errors_name_no_origin_twice() -> None:
    with pytest.raises(JobFileError) as caught:
        load_text("model: tiny-video\nprompts: [a]\nseeds: [x, x]\n")
    assert len(caught.value.problems) == len(set(caught.value.problems)) == 2
