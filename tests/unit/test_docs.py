"""The README, the pages of docs/ and what stands beside them say what is so: short, linked, valid and fresh."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest
import torch
import yaml
from docs.tools import architecture, tables

import genrun
from genrun.adapters.adapter import Adapter
from genrun.runner.cli import VERBS
from genrun.runner.job import load
from genrun.runner.job.errors import JobFileError
from genrun.runner.job.options import describe
from genrun.runner.job.plan import plan
from genrun.solvers import drive, registry, solve
from genrun.solvers.analytic import WORLDS, evaluator

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
MOST_WORDS = 700
BROUGHT = re.compile("there is no (such )?file|is not installed|cannot be read|is neither a folder nor a hub id")


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(path: Path, language: str) -> list[str]:
    return [body for _, found, body in FENCE.findall(text(path)) if found == language]


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text(path)), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.lower())).strip("-") for heading in headings}


def test_the_readme_is_short() -> None:
    assert len(text(ROOT / "README.md").split()) <= MOST_WORDS


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(FENCE.sub("", text(page))):
        path = page.parent / target if target else page
        assert path.exists(), f"{page.name}: {target}"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), f"{page.name}: {target}#{anchor}"


def jobs() -> Iterator[tuple[str, int, str]]:
    for page in PAGES:
        for number, block in enumerate(blocks(page, "yaml")):
            if yaml.safe_load(block) is not None:
                yield page.name, number, block


@pytest.mark.parametrize(("page", "number", "block"), list(jobs()), ids=lambda value: str(value)[:12])
def test_jobs_and_parts_of_jobs_are_valid(page: str, number: int, block: str, tmp_path: Path) -> None:
    """A part is laid over a job; what the reader brings (files, packages) may be missing, except on pages for beginners."""
    job, keys = tmp_path / "part.yaml", yaml.safe_load(block).keys()
    base = {} if "extends" in keys else {"model": "demo-video", "prompts": ["a red square"]}
    rest = {key: value for key, value in base.items() if key not in keys}
    (tmp_path / "job.yaml").write_text(
        yaml.safe_dump(base or {"model": "demo-image", "prompts": ["x"]}), encoding="utf-8"
    )
    whole = page in ("README.md", "getting-started.md")
    job.write_text(block if whole or not rest else f"{yaml.safe_dump(rest)}{block}", encoding="utf-8")
    try:
        assert plan(load(job)), f"{page}, job {number + 1}"
    except JobFileError as error:
        assert not whole, error
        assert all(BROUGHT.search(problem.message) for problem in error.problems), error


def commands() -> dict[str, Any]:
    return {name: line for verbs in VERBS.values() for name, line in verbs.items()}


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "cli.md"], ids=lambda path: path.name)
def test_commands_are_there_with_their_options(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", text(ROOT / "Makefile"), re.MULTILINE))
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    inline = re.findall(r"`((?:genrun|make) [a-z][^`\n]*)`", text(page))
    for line in [*lines, *inline]:
        words = shlex.split(re.split(r"> |\\?\| ", line)[0], comments=True)
        if words[:1] == ["make"]:
            assert words[1] in targets, line
        elif words[:1] == ["genrun"]:
            assert words[1] in commands(), line
            parse(commands()[words[1]].load(), words[1:], line, whole=line in lines)


def parse(verb: click.Command, words: list[str], line: str, *, whole: bool) -> None:
    """Read a command line as the verb would; in a sentence its arguments may be left out."""
    try:
        verb.make_context(words[0], words[1:])
    except click.MissingParameter as error:
        assert not whole, f"{line}: {error.message}"
    except click.UsageError as error:
        pytest.fail(f"{line}: {error.message}")


def test_every_solver_has_its_section_and_its_options() -> None:
    page = text(DOCS / "solvers.md")
    for name in registry.names():
        _, found, section = page.partition(f"\n## {name}\n")
        assert found, name
        section = section.partition("\n## ")[0]
        options = [option.name for option in describe(registry.get(name))]
        assert f"<!-- table: solver {name} -->" in section or not options, name
        assert all(f"\n| `{option}` |" in section for option in options), name


@pytest.mark.parametrize("page", tables.pages(), ids=lambda path: path.name)
def test_tables_are_fresh(page: Path) -> None:
    assert tables.fill(text(page)) == text(page), "stale: run `make docs`"


def test_every_section_of_a_job_has_its_table() -> None:
    wanted = {"ModelSpec", "SamplingSpec", "ParallelSpec", "LaunchSpec", "OutputSpec", "GateSpec", "NightlySpec"}
    found = set(re.findall(r"<!-- table: section (\w+) -->", text(DOCS / "jobs.md")))
    assert wanted <= found


def test_the_picture_of_the_packages_is_fresh() -> None:
    assert text(DOCS / "architecture.svg") == architecture.draw(), "stale: run `make docs`"


def test_an_arrow_that_follows_from_others_is_left_out_and_a_ring_is_one_group() -> None:
    edges = {"a": frozenset("bcd"), "b": frozenset("c"), "c": frozenset("bd"), "d": frozenset()}
    reached = architecture.grouped(edges)
    assert reached == {("a",): {("b", "c"), ("d",)}, ("b", "c"): {("d",)}, ("d",): set()}
    assert list(architecture.essential(reached)) == [(("a",), ("b", "c")), (("b", "c"), ("d",))]
    assert architecture.levels(reached) == [[("a",)], [("b", "c")], [("d",)]]


def test_every_answer_to_where_is_there() -> None:
    table = text(DOCS / "architecture.md").partition("\n## Where is ...?\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 18
    for question, files, name in rows:
        paths = [ROOT / path for path in re.findall("`(.+?)`", files)]
        assert paths, question
        assert all(path.is_file() for path in paths), f"{question}: {files}"
        pattern = rf"^ *(def |class )?{name.strip('`')}\b"
        assert re.search(pattern, text(paths[0]), re.MULTILINE), f"{question}: {name} is not in {files}"


def test_every_package_of_runner_is_in_the_table_of_layers() -> None:
    table = text(DOCS / "architecture.md").partition("\n| layer ")[2].partition("\n\n")[0]
    told = [name for line in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", line.split(" | ")[1])]
    linter = tomllib.loads(text(ROOT / "pyproject.toml"))["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in linter if contract.get("containers") == ["genrun.runner"]]
    place = {name: number for number, layer in enumerate(layers) for name in layer.split(" | ")}
    assert sorted(told) == sorted(place)
    assert told == sorted(told, key=place.__getitem__)


def test_the_stages_in_the_picture_are_packages() -> None:
    assert set(architecture.STAGES) <= set(architecture.read())


def test_terms_are_explained_once() -> None:
    terms = re.findall(r"^(\S.*)\n:   ", text(DOCS / "glossary.md"), re.MULTILINE)
    single = [term.strip() for line in terms for term in line.split(",")]
    assert len(single) == len(set(single)) > 50


# CONTRIBUTING.md


def example(number: int) -> dict[str, Any]:
    """Run a Python example of CONTRIBUTING.md."""
    code = blocks(ROOT / "CONTRIBUTING.md", "python")[number]
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(re.sub(r"^ {4}", "", code, flags=re.MULTILINE), "CONTRIBUTING.md", "exec", dont_inherit=True), names)
    return names


def test_the_example_of_a_solver_solves() -> None:
    problem = WORLDS["mixture"].problem(8, seed=0)
    evaluate = evaluator(problem, WORLDS["mixture"].denoiser())
    exact = solve(problem, evaluate, "sequential").x
    mine = example(0)["Mine"]
    assert torch.equal(drive(mine(tolerance=0), problem, evaluate).x, exact)
    found = drive(mine(), problem, evaluate)
    assert found.rounds < 8
    assert (found.x - exact).square().mean().sqrt() < 0.1


def test_the_example_of_a_model_is_an_adapter() -> None:
    adapter = example(1)["ADAPTER"]
    assert isinstance(adapter, Adapter)
    assert not adapter.validate(adapter.defaults)
    assert adapter.validate({"height": 500})


@pytest.mark.parametrize("level", [0, 255])
def test_the_example_of_a_metric_measures(level: int) -> None:
    metric = example(2)["METRIC"]
    sample = SimpleNamespace(frames=np.full((1, 4, 4, 3), level, dtype=np.uint8))
    assert metric.measure(sample, None) == {"brightness": level / 255}


# What stands beside


def test_the_hooks_use_the_versions_of_the_constraints() -> None:
    pins = dict(line.split("==") for line in text(ROOT / "constraints.txt").splitlines() if "==" in line)
    hooks = yaml.safe_load(text(ROOT / ".pre-commit-config.yaml"))
    (ruff,) = [repo for repo in hooks["repos"] if repo["repo"].endswith("ruff-pre-commit")]
    assert ruff["rev"] == f"v{pins['ruff']}"


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load(text(ROOT / "CITATION.cff"))
    assert citation["version"] == genrun.__version__
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()


def test_hosted_continuous_integration_runs_what_runs_here() -> None:
    workflow = yaml.safe_load(text(ROOT / ".github" / "workflows" / "ci.yml"))
    assert {"run": ".ci/run"} in workflow["jobs"]["ci"]["steps"]


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_issue_forms_are_whole(name: str) -> None:
    form = yaml.safe_load(text(ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml"))
    assert {"name", "description", "body"} <= form.keys()
    fields = [(field["type"], field.get("id")) for field in form["body"]]
    assert len(set(fields)) == len(fields)


def test_every_page_is_in_the_navigation() -> None:
    written = text(ROOT / "mkdocs.yml")
    assert all(re.search(rf"[ -]{page.name}$", written, re.MULTILINE) for page in DOCS.glob("*.md"))


def test_every_option_of_every_table_is_explained() -> None:
    for page, cell in product(tables.pages(), ("job", "section", "solver", "cache")):
        for name in re.findall(rf"<!-- table: {cell} ?([\w-]*) -->", text(page)):
            rows = tables.table(*([cell, name] if name else [cell])).splitlines()[2:]
            assert all(row.rsplit("|", 2)[1].strip() for row in rows), f"{page.name}: {cell} {name}"


def test_every_table_of_the_papers_is_measured() -> None:
    blocks = re.findall(r"<!-- measured: ([\w-]+) -->\n(.*?)<!-- end -->", text(DOCS / "papers.md"), re.DOTALL)
    assert {name for name, _ in blocks} == {"turbo-ddpm", "turbo-ddim", "turbo-rho", "ropa", "ropa-parts"}
    assert all("\n|---|" in table for _, table in blocks)
