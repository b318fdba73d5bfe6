"""What people do in their first days with genrun, from the first minute to the paper's table, and what they then see."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import pty
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from PIL import Image

import genrun as package
from genrun import api
from genrun.adapters.sampling.parallelize import parallelize
from genrun.runner.api import launching
from genrun.runner.cli import doctor, main
from genrun.runner.cli.logs import as_it_stands
from genrun.runner.errors import UsageError
from genrun.runner.launch import local
from genrun.runner.numbers import escape
from genrun.runner.progress import Pace
from genrun.runner.score.summary import calls_in_a_row, summarize
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.nights import write_night
from genrun.runner.store.order import ActivityFile, RankActivity, activities
from genrun.runner.store.runs import pin, point_latest
from genrun.runner.submit import lock as locking
from genrun.solvers.contract import Solution
from tests.fakes import faults
from tests.fakes.nights import night
from tests.sample_run import ALL_SOLVERS, make_run

pytestmark = pytest.mark.e2e
Genrun = Callable[..., Result]
Write = Callable[..., dict[str, Any]]
ROOT = Path(__file__).parents[2]
STAMP = "2026-01-31T02-00-0{}-{}"


def runs_of(base: Path, job: str, *, count: int) -> list[RunFolder]:
    """Make finished runs of a job, the oldest first; the last one is `latest`."""
    made = [
        make_run(base / job / STAMP.format(number, f"a{number}b{number}"), image=True, latents=False, files=False)
        for number in range(count)
    ]
    point_latest(made[-1])
    return made


def on_terminal(*arguments: str, width: int = 80) -> list[str]:
    """Run genrun on a terminal of so many columns; return its lines without colours."""
    leader, follower = pty.openpty()
    environ = {**os.environ, "COLUMNS": str(width), "TERM": "xterm"}
    command = [sys.executable, "-m", "genrun", *arguments]
    process = subprocess.Popen(command, stdout=follower, stderr=follower, stdin=follower, env=environ)
    os.close(follower)
    text = b""
    try:
        while chunk := os.read(leader, 65536):
            text += chunk
    except OSError:
        pass  # Linux tells the end of a terminal by an error.
    os.close(leader)
    assert process.wait() == 0, text.decode()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.decode()).replace("\r", "").split("\n")


# The first five minutes.


@pytest.mark.parametrize(
    ("given", "kind"), [("{time: 2}", "torchrun"), ("{data: 4, time: 4}", "torchrun"), ("{time: 1}", "inline")]
)
def test_who_asks_for_ranks_gets_a_launcher_that_starts_them(genrun: Genrun, given: str, kind: str) -> None:
    Path("job.yaml").write_text(f"model: demo-image\nprompts: [x]\nparallel: {given}\n")
    assert json.loads(genrun("show", "job.yaml", "--json").stdout)["job"]["launch"]["kind"] == kind


def test_who_asks_for_ranks_in_one_process_is_taken_at_their_word(genrun: Genrun) -> None:
    Path("job.yaml").write_text("model: demo-image\nprompts: [x]\nparallel: {time: 2}\nlaunch: inline\n")
    assert json.loads(genrun("show", "job.yaml", "--json").stdout)["job"]["launch"]["kind"] == "inline"


def test_who_submits_is_told_what_was_won_in_calls_and_seconds_and_what_comes_next(
    genrun: Genrun, write_job: Write
) -> None:
    write_job(score=["psnr"])
    said = genrun("submit", "job.yaml").stderr
    assert re.search(r"Done in 0:00:\d\d: 6 of 6 items made\.", said)
    assert re.search(
        r"ropa[^:]*: 2 model calls in a row instead of 4 \(2\.00×\), [\d.]+ s an item instead of [\d.]+", said
    )
    assert "One rank makes the calls of a round one after the other; `parallel: {time: 4}` shares them" in said
    assert said.splitlines()[-1] == "Next: genrun score fake; genrun report fake"


def test_who_submits_a_finished_job_is_told_that_there_is_nothing_to_do(genrun: Genrun, write_job: Write) -> None:
    write_job()
    first = genrun("submit", "job.yaml")
    again = genrun("submit", "job.yaml")
    assert "6 done, nothing to do." in again.stderr
    assert again.stdout == first.stdout


def test_who_names_a_folder_of_runs_gets_it(genrun: Genrun, write_job: Write, tmp_path: Path) -> None:
    write_job()
    assert genrun("submit", "job.yaml", "--runs", "elsewhere").stdout.startswith(f"{tmp_path}/elsewhere/fake/")
    assert not Path("runs").exists()


def test_who_adds_a_prompt_makes_the_new_items_alone(genrun: Genrun, write_job: Write) -> None:
    job = write_job()
    genrun("submit", "job.yaml")
    write_job(prompts=[*job["prompts"], "a fish"])
    said = genrun("submit", "job.yaml").stderr
    assert "6 reused, 2 new." in said
    assert "2 of 8 items made." in said


def test_who_scores_on_80_columns_reads_a_line_for_each_solver(genrun: Genrun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "demo" / STAMP.format(0, "3f9c"), solvers=ALL_SOLVERS, image=True)
    arguments = ("score", str(run.path), "--metrics", "latent_rmse,latent_worst_block,psnr,ssim")
    wide = genrun(*arguments).stdout.splitlines()
    lines = on_terminal(*arguments)
    table = [line for line in lines if line.startswith(("solver", *(solver.label for solver in ALL_SOLVERS)))]
    assert len(table) == 1 + len(ALL_SOLVERS)
    assert max(map(len, table)) <= 80
    assert {"rounds", "PSNR"} <= set(table[0].split())
    assert any(line.startswith("Left out for want of room: intervals") for line in lines)
    # Where lines may be of any length, all is there.
    assert "[" in next(line for line in wide if line.startswith("ropa"))


@pytest.mark.parametrize(("prompts", "ranks", "seed"), [(24, 1, 0), (4, 1, 1), (12, 2, 2), (24, 4, 3)])
def test_who_waits_is_told_how_long_within_a_quarter(prompts: int, ranks: int, seed: int) -> None:
    # Five solvers in turn, whose items take from two to five seconds, after 20 s of loading.
    draw = random.Random(seed)
    seconds = {"sequential": 4.0, "paradigms": 5.0, "parasolver": 3.0, "ropa": 3.0, "collocation": 2.0}
    cells = {f"{prompt}-{solver}": solver for prompt in range(prompts) for solver in seconds}
    sampling = {item: seconds[solver] * draw.uniform(0.85, 1.15) for item, solver in cells.items()}
    free, spans = [20.0] * ranks, {}
    for item, takes in sampling.items():
        rank = free.index(min(free))
        spans[item] = (free[rank], free[rank] + takes + 0.8)
        free[rank] += takes
    end = max(ended for _, ended in spans.values())
    pace, now, ratios = Pace(cells, {}), 0.0, []
    while now < end:
        finished = {item: ended - began for item, (began, ended) in spans.items() if ended <= now}
        in_work = {
            item: min(1.0, (now - began) / sampling[item])
            for item, (began, ended) in spans.items()
            if began + 0.1 <= now < ended
        }
        pace.see(now, finished, in_work)
        assert pace.has_begun == bool(finished or in_work)
        left = pace.left_s(now, cells.keys() - finished.keys(), in_work)
        # The last few seconds are shown as they are.
        if len(finished) >= 3 and end - now > 4:
            assert left is not None
            ratios.append(left / (end - now))
        now += 0.5
    assert ratios
    assert min(ratios) >= 0.75 and max(ratios) <= 1.25


def test_who_waits_for_the_model_is_told_so(genrun: Genrun, write_job: Write) -> None:
    write_job()
    assert "0/6 done, loading the model, 0:00:00 elapsed" in genrun("submit", "job.yaml").stderr


def test_who_makes_the_demo_on_a_bare_machine_is_told_what_it_takes_first(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    # Not as a part of the make that may be running these tests, which says where it is.
    alone = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    ran = subprocess.run(["make", "-n", "demo"], cwd=tmp_path, env=alone, capture_output=True, text=True, check=True)
    lines = ran.stdout.splitlines()
    assert "GB of disk" in lines[0]
    assert next(line for line in lines if "pip install" in line).endswith("-e .")
    assert "dev" not in ran.stdout
    assert lines[-1] == ".venv/bin/genrun report demo"


def test_who_writes_a_report_is_told_what_was_won_and_where_to_look(genrun: Genrun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "demo" / STAMP.format(0, "3f9c"))
    said = genrun("report", str(run.path))
    page = run.report_dir / "index.html"
    assert said.stdout == f"{page}\n"
    assert said.stderr.splitlines()[-1] == f"Open: {page.as_uri()}"
    assert "ropa K=8: 7 model calls in a row instead of 20 (2.86×)" in said.stderr


def test_who_reports_before_scoring_is_told_the_command_that_scores(genrun: Genrun, write_job: Write) -> None:
    write_job(score=["psnr", "ssim"])
    genrun("submit", "job.yaml")
    assert "Not scored yet: psnr, ssim." in genrun("report").stderr
    assert "genrun score fake; genrun report fake" in genrun("report").stderr


# A machine that cannot.


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Be a laptop: no GPU, no Slurm, an empty cache of the hub, and no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(local, "gpu_names", list)
    return tmp_path


def test_who_submits_eight_gpus_work_on_a_laptop_is_told_at_once_what_is_missing(bare_machine: Path) -> None:
    began = time.process_time()
    result = CliRunner().invoke(main, ["submit", "jobs/hunyuan.yaml"])
    assert time.process_time() - began < 3
    assert result.exit_code == 2
    for words in (
        "GPUs: none here; 8 ranks",
        "weights: hunyuanvideo-community/HunyuanVideo",
        "hub: ",
        "cluster: no Slurm",
    ):
        assert words in result.stderr
    assert "What runs here: genrun submit jobs/demo.yaml" in result.stderr
    assert result.stdout == ""
    assert list(bare_machine.iterdir()) == []


@pytest.mark.parametrize("verb", ["nightly", "retry", "join"])
def test_who_goes_on_with_eight_gpus_work_on_a_laptop_is_told_at_once_too(bare_machine: Path, verb: str) -> None:
    loaded = api.load_job("jobs/hunyuan.yaml")
    run = RunFolder.create(bare_machine / "runs" / "h" / STAMP.format(0, "3f9c"), loaded.document, api.plan(loaded))
    before = sorted(bare_machine.rglob("*"))
    words = {"nightly": ["nightly", "jobs/hunyuan.yaml"], "retry": ["retry"], "join": ["submit", "--join"]}[verb]
    began = time.process_time()
    result = CliRunner().invoke(main, words if verb == "nightly" else [*words, str(run.path)])
    assert time.process_time() - began < 3
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("this machine cannot run the job:\n    GPUs: none here; 8 ranks")
    assert sorted(bare_machine.rglob("*")) == before


def test_who_has_one_of_two_models_gets_its_items(bare_machine: Path) -> None:
    job = {"prompts": ["x"], "matrix": {"model": ["demo-image", "flux"]}}
    Path("job.yaml").write_text(yaml.safe_dump(job))
    assert api.preview("job.yaml").to_run == 2
    loaded = api.load_job("job.yaml")
    launching.make_launcher(loaded.job, loaded.document, api.plan(loaded)).check_machine()


def test_who_has_weights_that_do_not_fit_is_told_before_anything_is_loaded(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local.psutil, "virtual_memory", lambda: SimpleNamespace(total=1000))
    Path("job.yaml").write_text("model: demo-image\nprompts: [x]\nparallel: {time: 2}\n")
    result = CliRunner().invoke(main, ["submit", "job.yaml"])
    assert result.exit_code == 2
    assert re.search(r"memory: 2 x [\d.]+ GiB of weights, and this machine has", result.stderr)
    assert not Path("runs").exists()


def test_who_says_in_setup_where_weights_lie_is_believed(bare_machine: Path) -> None:
    job = {"model": "flux", "prompts": ["x"], "launch": {"setup": ["export HF_HOME=/scratch/hub"]}}
    loaded = api.load_job(job)
    launching.make_launcher(loaded.job, loaded.document, api.plan(loaded)).check_machine()


def test_who_submits_to_slurm_without_a_cluster_is_told_what_to_write_instead(bare_machine: Path) -> None:
    Path("job.yaml").write_text("model: demo-image\nprompts: [x]\nlaunch: slurm\n")
    result = CliRunner().invoke(main, ["submit", "job.yaml"])
    assert result.exit_code == 2
    assert "no cluster answers" in result.stderr and "--set launch=torchrun" in result.stderr
    assert not Path("runs").exists()


def test_who_has_slurms_commands_and_no_cluster_reads_no_resolvers_words(bare_machine: Path) -> None:
    scontrol = bare_machine / "scontrol"
    scontrol.write_text(
        "#!/bin/sh\necho 'scontrol: error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host' >&2\nexit 1\n"
    )
    scontrol.chmod(0o755)
    Path("job.yaml").write_text("model: demo-image\nprompts: [x]\nlaunch: slurm\n")
    result = CliRunner().invoke(main, ["submit", "job.yaml"])
    assert (result.exit_code, "res_nsearch" in result.stderr) == (2, False)
    assert "no cluster answers: its commands find no configuration (SLURM_CONF)" in result.stderr


def test_who_asks_the_doctor_about_a_disk_is_told_of_that_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Path] = []
    usage = doctor.shutil.disk_usage
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: asked.append(Path(folder)) or usage(folder))
    monkeypatch.setattr(doctor, "probe", lambda: {name: {"ok": True, "found": ""} for name in doctor.FIXES})
    result = CliRunner().invoke(main, ["doctor", "--runs", str(tmp_path / "full" / "runs")])
    assert asked == [tmp_path]
    assert f"free for {tmp_path}/full/runs" in result.stdout


def test_who_limits_a_list_of_prompts_is_told_of_the_list(genrun: Genrun) -> None:
    Path("job.yaml").write_text("model: demo-image\nprompts: [x, y]\n")
    said = genrun("validate", "job.yaml", "--set", "prompts.limit=1", exit_code=2).stderr
    assert "prompts.limit: prompts is a list here" in said
    assert "prompts.file" not in said


# What a job may say.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("{image: start.png}", "StableDiffusionPipeline takes no 'image'. It takes "),
        (
            "{guidance_rescle: 0.5}",
            "StableDiffusionPipeline takes no 'guidance_rescle'. Did you mean 'guidance_rescale'?",
        ),
        ("{num_inference_steps: 3}", "num_inference_steps: is no option: write sampling.steps."),
    ],
)
def test_who_gives_an_option_that_the_model_does_not_take_is_told_before_it_is_loaded(
    genrun: Genrun, options: str, message: str
) -> None:
    Path("job.yaml").write_text(f"model: sd2\nprompts: [x]\nsampling: {{options: {options}}}\n")
    assert message in genrun("validate", "job.yaml", exit_code=2).stderr


@pytest.mark.parametrize(
    ("lines", "items"),
    [
        ("prompts: x.csv", 2),
        ("prompts: {file: x.csv}", 2),
        ("prompts: [{prompt: a, steps: 5}, b]", 2),
        ("prompts: [a]\nseeds: 10", 10),
        ("prompts: [a]\nseeds: 0..9", 10),
    ],
)
def test_who_writes_prompts_and_seeds_in_short_has_them_taken(genrun: Genrun, lines: str, items: int) -> None:
    Path("x.csv").write_text("prompt,height,width,steps\na kite,32,48,5\na boat,,,\n")
    Path("job.yaml").write_text(f"model: demo-image\n{lines}\n")
    planned = api.plan("job.yaml")
    assert len(planned) == items
    assert f"ok, {items} items" in genrun("validate", "job.yaml").stdout
    if "csv" in lines:
        assert [planned[0].sampling[name] for name in ("height", "width", "steps")] == [32, 48, 5]
        assert planned[1].sampling["height"] == 64


def test_whose_job_has_negative_prompts_reads_them_beside_the_pictures(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("model: demo-image\nprompts: [a kite]\nsampling: {negative_prompt: '<b>dull'}\n")
    run = RunFolder.create(
        tmp_path / "r", api.load_job(tmp_path / "job.yaml").document, api.plan(tmp_path / "job.yaml")
    )
    page = package.report(run.path).path.read_text()
    (text,) = re.findall(r"<script type=\"application/json\"[^>]*>(.*?)</script>", page, re.DOTALL)
    data = json.loads(text)
    assert data["negatives"] == ["<b>dull"]
    assert [row["g"] for row in data["rows"]] == [0]


# From Python and in a notebook.


def test_who_looks_into_the_package_finds_what_there_is() -> None:
    public = {
        "Run",
        "submit",
        "bench",
        "compare",
        "score",
        "report",
        "runs",
        "parallelize",
        "GenrunError",
        "__version__",
    }
    assert set(dir(package)) == public
    assert all(getattr(package, name) is not None for name in public)
    with pytest.raises(AttributeError, match=r"Did you mean 'submit'\?"):
        vars(package)["__getattr__"]("sumbit")


@pytest.mark.parametrize(
    ("function", "given", "named", "message"),
    [
        (package.submit, (5,), {}, r"a job is a file's name, YAML text .* or a mapping .*; got int\."),
        (package.submit, (None,), {}, r"a job is .*; got NoneType\."),
        (package.submit, ("job.yaml",), {"sets": "steps=4"}, r"sets is a list, such as \['steps=4'\]; got one text\."),
        (package.Run, (b"demo",), {}, r"a run is its folder, .*; got bytes\."),
        (package.compare, (5,), {}, r"a run is its folder, .*; got int\."),
        (package.runs, (5,), {}, r"job is the name of one, or None for all; got int\."),
        (package.score, ("demo", "psnr"), {}, r"metrics is a list, such as \['psnr'\]; got one text\."),
        (package.score, ("demo", [1]), {}, r"metrics is a list of texts; got \[1\]\."),
        (api.retry, ("demo", "3f9c"), {}, r"items is a list, such as \['3f9c'\]; got one text\."),
        (api.remove, ("demo/3f9c",), {}, r"names is a list, such as \['demo/3f9c'\]; got one text\."),
        (api.export, ("demo",), {"formats": "gif"}, r"formats is a list, such as \['gif'\]; got one text\."),
        (api.export, ("demo", 3), {}, r"to is a text or a path; got int\."),
        (api.export, ("demo",), {"sheet": "no"}, r"sheet is True or False; got 'no'\."),
        (api.compare, ("demo", 3), {}, r"a run is its folder, .*; got int\."),
        (api.compare, (), {"by": 3}, r"by is None or a text; got int\."),
        (api.compare, (), {"confidence": "95%"}, r"confidence is a number; got '95%'\."),
        (api.compare, (), {"gates": 3}, r"gates is None, a text, a path or a list of Gate; got int\."),
        (api.history, (3,), {}, r"job is the name of one, or None for all; got int\."),
        (api.bench, (3,), {}, r"model is None or a text; got int\."),
        (api.bench, (), {"solvers": 3}, r"solvers is a text or a list of texts; got int\."),
        (api.bench, (), {"workers": 8}, r"workers is a text or a list of whole numbers; got int\."),
        (api.bench, (), {"samples": True}, r"samples is a whole number; got bool\."),
        (
            api.bench,
            (),
            {"tolerances": {"ropa": 0.1}},
            r"tolerances is a list of numbers or texts or a mapping; got \{",
        ),
        (api.bench, (), {"listener": None}, r"listener is a Listener; got NoneType\."),
        (api.forecast, ("job.yaml", []), {}, r"loaded is a LoadedJob; got 'job\.yaml'\."),
        (api.score, ("demo",), {"options": {"psnr": 3}}, r"options is None or a mapping; got \{'psnr': 3\}\."),
        (package.Run, (), {"runs": None}, r"runs is a text or a path; got NoneType\."),
    ],
)
def test_who_passes_another_thing_than_is_wanted_is_told_what_is(
    function: Callable[..., object],
    given: tuple[object, ...],
    named: Mapping[str, object],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    runs_of(tmp_path / "runs", "demo", count=1)
    with pytest.raises(TypeError, match=message):
        function(*given, **named)


def test_every_argument_of_every_function_for_users_is_checked() -> None:
    functions = [each for name in api.__all__ if inspect.isfunction(each := getattr(api, name))]
    methods = [each for each in vars(api.Run).values() if inspect.isfunction(each)]
    asked = 0
    for function in (*functions, *methods):
        for name, parameter in inspect.signature(function).parameters.items():
            if name == "self":
                continue
            wrong = ([object()], {}) if parameter.kind is parameter.VAR_POSITIONAL else ([], {name: object()})
            with pytest.raises(TypeError, match=rf"^(a run|a job|{name}) is .*; got object\.$"):
                function(*([None] if function in methods else []), *wrong[0], **wrong[1])
            asked += 1
    assert asked > 100


@pytest.mark.parametrize("options", [{"wokers": 8}, {"tolerence": 0.1}])
def test_who_mistypes_an_option_of_a_solver_is_told_what_was_meant(options: Mapping[str, Any]) -> None:
    meant = {"wokers": "workers", "tolerence": "tolerance"}[next(iter(options))]
    with (
        pytest.raises(TypeError, match=rf"ropa has no option '{next(iter(options))}'\. Did you mean '{meant}'\?"),
        parallelize(None, "ropa", **options),
    ):
        pass


def test_who_gets_several_options_of_a_solver_wrong_is_told_of_all() -> None:
    wrong = (
        "workers: must be at least 1, got 0; tolerance: must be finite and not negative, got -1; warmup: must not be "
    )
    with (
        pytest.raises(ValueError, match=re.escape(wrong)),
        parallelize(None, "ropa", workers=0, tolerance=-1, warmup=-1),
    ):
        pass
    told = r"'wokers'\. Did you mean 'workers'\? .*'tolerence'\. .* There are: .*\. warmup: must not be negative, got -1\.$"
    with pytest.raises(TypeError, match=told), parallelize(None, "ropa", wokers=8, tolerence=0.1, warmup=-1):
        pass


def test_who_ends_a_cell_with_a_solution_sees_its_cost_and_its_fronts() -> None:
    solution = Solution(x=torch.zeros(1), rounds=4, nfe=12, fronts=(2, 5, 9, 20))
    assert repr(solution) == (
        "Solution(4 model calls in a row instead of 20 (5.00x), 12 evaluations, converged by tolerance)"
    )
    assert "4 instead of 20" in solution._repr_html_()
    assert solution.plot().svg in solution._repr_html_()
    assert len(re.findall(r"\d+\.\d,\d+\.\d", solution.plot()._repr_svg_())) == 2 + 1 + 4


def test_who_ends_a_cell_with_a_run_or_a_comparison_sees_tables_and_plots(tmp_path: Path) -> None:
    run = package.Run(make_run(tmp_path / "runs" / "<b>demo" / STAMP.format(0, "3f9c"), seeds=(0, 1)))
    with pytest.raises(UsageError, match=r"run\.score\(\) does it"):
        run.plot()
    run.score(["latent_rmse", "psnr"])
    assert "&lt;b&gt;demo" in run._repr_html_() and "<b>" not in run._repr_html_()
    assert "<td>ropa K=8</td>" in run._repr_html_()
    assert run.plot().axes[0].get_ylabel() == "latent_rmse"
    with pytest.raises(UsageError, match=r"Did you mean 'psnr'\?"):
        run.plot("pnsr")
    found = run.compare(by="solver")
    assert repr(found).startswith("Comparison(") and len(repr(found)) < 300
    assert "<td>ropa K=8</td>" in found._repr_html_()
    assert [axes.get_title() for axes in found.plot().axes][:2] == ["latent_rmse", "psnr"]


def test_who_submits_from_a_notebook_sees_how_far_it_is(
    genrun: Genrun, write_job: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    write_job()
    package.submit("job.yaml", listener=api.ConsoleListener())
    assert "0/6 done, loading the model" in capsys.readouterr().out


def test_who_has_a_run_measures_solvers_on_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    job = {"model": "demo-image", "prompts": ["x"], "sampling": {"steps": 6, "height": 32, "width": 32}}
    loaded = api.load_job(job)
    folder = RunFolder.create(tmp_path / "runs" / "job" / STAMP.format(0, "3f9c"), loaded.document, api.plan(loaded))
    found = package.Run(folder).bench("ropa", workers=[2], tolerances=[0.1], samples=1)
    (result,) = found.results
    assert (result.error, result.num_steps, len(result.samples)) == ("", 6, 1)


def test_who_works_in_python_finds_and_removes_runs(tmp_path: Path) -> None:
    made = runs_of(tmp_path, "demo", count=2)
    assert [run.name for run in package.runs(base=tmp_path)] == [f"demo/{run.path.name}" for run in reversed(made)]
    assert api.remove([made[0].path], base=tmp_path).removed == (made[0].path,)
    assert package.Run("demo", runs=tmp_path).path == made[1].path


# While it runs, and after it.


def in_work(run: RunFolder, item_id: str) -> None:
    """Be a worker that is at an item: hold its lease, and tell of it."""
    from genrun.runner.store.environment import current
    from genrun.runner.store.lease import Leases, Owner

    log = run.logs / "torchrun-20260131T020000-1234abcd" / "rank-0.log"
    log.parent.mkdir(parents=True)
    assert Leases(run, Owner(current(), "torchrun-20260131T020000-1234abcd.0", 0)).claim(item_id) is not None
    told = ActivityFile(log.with_suffix(".activity.json"), 0, lambda: 3 * 2**30)
    told.enter("loading", item_id)
    told.advance(1, 50, 1)
    time.sleep(1.05)
    told.advance(12, 50, 8)


def test_who_looks_while_it_runs_sees_phase_step_and_time_left_of_items_and_what_ranks_take(
    genrun: Genrun, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "runs" / "demo" / STAMP.format(0, "3f9c"), image=True, latents=False, pending=[3])
    item = run.items()[3]
    in_work(run, item.id)
    shown = genrun("status", str(run.path)).stdout
    assert re.search(rf"{item.id}\s+ropa K=8\s+sampling\s+12/50\s+0:00:\d\d", shown)
    assert re.search(rf"0\s+{item.id[:8]}\s+sampling\s+3\.00\s+0\.\d+", shown)
    told = json.loads(genrun("status", str(run.path), "--json").stdout)
    (rank,) = told["ranks"]
    assert (rank["item"], rank["memory_bytes"], rank["evaluations"]) == (item.id, 3 * 2**30, 8)
    assert rank["evaluation_s"] == pytest.approx(rank["phase_s"] / 7, rel=0.05)
    row = next(row for row in told["rows"] if row["id"] == item.id)
    assert (row["status"], row["phase"], row["step"], row["steps"]) == ("running", "sampling", 12, 50)
    assert row["left_s"] == pytest.approx(rank["phase_s"] * 38 / 12)


def test_who_looks_after_a_restart_sees_the_ranks_that_are_alive(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "demo" / STAMP.format(0, "3f9c"), image=True, latents=False, pending=[3])
    item = run.items()[3].id
    for launch, step in (("inline-2-b", 5), ("inline-1-a", 9)):
        log = run.logs / launch / "rank-0.activity.json"
        log.parent.mkdir(parents=True)
        told = ActivityFile(log, 0, lambda: 0)
        told.enter("loading", item)
        told.advance(step, 50, 1)
    assert [rank.front for rank in activities(run, [item])] == [9]


@pytest.mark.parametrize("text", ["", "[]", '{"rank": "x"}', '{"front": 1e999}', "x" * 10_000, "negative"])
def test_who_looks_at_a_rank_that_writes_nonsense_sees_nothing_of_it(tmp_path: Path, text: str) -> None:
    run = make_run(tmp_path / "runs" / "demo" / STAMP.format(0, "3f9c"), image=True, latents=False, files=False)
    if text == "negative":
        text = json.dumps(asdict(RankActivity(0, run.items()[0].id, "sampling", -5, 0)))
    log = run.logs / "inline-1-2" / "rank-0.activity.json"
    log.parent.mkdir(parents=True)
    log.write_text(text)
    assert activities(run, [item.id for item in run.items()]) == []


def test_who_watches_a_run_that_is_over_is_told_its_state_once(genrun: Genrun, write_job: Write) -> None:
    write_job()
    genrun("submit", "job.yaml")
    assert genrun("status", "--watch").stdout == genrun("status").stdout


def test_who_watches_a_run_sees_it_end(write_job: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    write_job()
    environ = {**os.environ, "GENRUN_TEST_NAP": "0.3", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "tests/fakes/cli.py"), "submit", "job.yaml"]
    with subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as submission:
        while not list(Path("runs").glob("fake/latest/logs/*/order.json")):
            time.sleep(0.05)
        looks = [
            json.loads(line) for line in CliRunner().invoke(main, ["status", "--watch", "--json"]).stdout.splitlines()
        ]
    assert submission.returncode == 0
    assert looks[0]["done"] < looks[-1]["done"] == 6
    assert len(looks) > 1


def test_who_is_away_is_told_when_the_work_ends(genrun: Genrun, write_job: Write, tmp_path: Path) -> None:
    write_job(notify={"command": ["tee", "told.json"]})
    genrun("submit", "job.yaml")
    told = json.loads(Path("told.json").read_text())
    assert (told["job"], told["state"], told["items"], told["done"]) == ("fake", "done", 6, 6)
    Path("told.json").unlink()
    genrun("submit", "job.yaml")
    assert not Path("told.json").exists()
    write_job(notify={"command": ["tee", "told.json"], "when": "trouble"}, seeds=[5])
    faults.put(tmp_path / "faults", "sampling", victim="error", times=2, item=api.plan("job.yaml")[0].id)
    genrun("submit", "job.yaml", exit_code=1)
    told = json.loads(Path("told.json").read_text())
    assert (told["state"], told["failed"]) == ("failed", 1)
    assert told["error"]


def test_who_is_told_by_a_command_that_is_not_there_still_has_the_run(genrun: Genrun, write_job: Write) -> None:
    write_job(notify={"command": ["no-such-command"]})
    assert "notify: no-such-command cannot be run" in genrun("submit", "job.yaml").stderr


def test_who_reads_a_log_sees_no_bars_and_may_ask_for_its_end(genrun: Genrun, write_job: Write) -> None:
    write_job()
    genrun("submit", "job.yaml")
    (log,) = Path("runs").glob("fake/2*/logs/*/rank-0.log")
    with log.open("a", newline="") as file:
        file.write("\rLoading:  0%\rLoading: 50%\x1b[A\rLoading: 100%\nthe end\n")
    lines = genrun("logs", "-n", "2").stdout.splitlines()
    assert lines == ["Loading: 100%", "the end"]
    assert as_it_stands("a\r\nb\rc\r\n") == "a\nc\n"


# The paper's table.


def test_who_writes_a_paper_gets_latex_and_pdf_of_a_comparison(genrun: Genrun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "demo" / STAMP.format(0, "3f9c"), seeds=(0, 1))
    genrun("score", str(run.path), "--metrics", "psnr")
    said = genrun("compare", str(run.path), "--by", "solver", "--latex", "table.tex", "--pdf", "figure.pdf")
    assert "Not judged: no gates are set." in said.stderr
    table = Path("table.tex").read_text()
    assert r"\begin{tabular}{llrrrlrr}" in table
    rows = [line for line in table.splitlines() if line.endswith(r"\\")]
    assert len({row.count(" & ") for row in rows}) == 1
    assert any(r"elapsed\_s" in row for row in rows)
    first = Path("figure.pdf").read_bytes()
    assert first.startswith(b"%PDF-")
    genrun("compare", str(run.path), "--by", "solver", "--pdf", "figure.pdf")
    assert Path("figure.pdf").read_bytes() == first


def test_who_writes_a_paper_gets_a_row_for_each_method_with_the_best_in_bold(genrun: Genrun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "demo" / STAMP.format(0, "3f9c"), solvers=ALL_SOLVERS, image=True)
    genrun("score", str(run.path), "--metrics", "latent_rmse,psnr", "--latex", "table.tex")
    rows = [line for line in Path("table.tex").read_text().splitlines() if line.endswith(r"\\")]
    assert len(rows) == 1 + len(ALL_SOLVERS)
    assert len({row.count(" & ") for row in rows}) == 1
    assert rows[0].startswith("    solver & n & rounds")
    assert any(r"\textbf{" in row for row in rows[1:])


def test_whose_labels_are_hostile_gets_them_as_they_are() -> None:
    assert escape("50%_a & $x^2$ {\\input{/etc/passwd}}") == (
        r"50\%\_a \& \$x\textasciicircum{}2\$ \{\textbackslash{}input\{/etc/passwd\}\}"
    )
    assert "\n" not in escape("a\nb") and escape("a\nb") != escape("ab")


def test_who_writes_a_paper_gets_latex_and_pdf_of_a_bench(genrun: Genrun) -> None:
    sweep = ("--problem", "mixture", "--solvers", "ropa", "--workers", "2,4", "--samples", "2", "--steps", "12")
    made = genrun("bench", *sweep, "--tolerances", "0.01,0.1", "--out", "out", "--latex", "--pdf").stdout
    assert r"\toprule" in Path("out/pareto.tex").read_text()
    assert "2 samples a cell" in Path("out/pareto.tex").read_text()
    figures = sorted(path.name for path in Path("out/figures").iterdir())
    assert figures[:2] == ["1-error-k2.pdf", "1-error-k4.pdf"]
    assert all(str(Path("out/figures", name).absolute()) in made for name in figures)
    page = Path("out/index.html").read_text(encoding="utf-8")
    assert "samples a cell, each compared" in page


def test_who_compares_without_gates_reads_that_nothing_was_judged(genrun: Genrun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "demo" / STAMP.format(0, "3f9c"))
    genrun("score", str(run.path), "--metrics", "psnr")
    genrun("compare", str(run.path), "--by", "solver", "--markdown", "summary.md")
    assert Path("summary.md").read_text().startswith("## genrun compare: not judged")


def test_who_compares_what_is_not_scored_reads_that_only_costs_were_compared(genrun: Genrun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "demo" / STAMP.format(0, "3f9c"))
    said = genrun("compare", str(run.path), exit_code=3)
    assert "rounds" in said.stdout
    assert said.stderr.splitlines()[-1].startswith("Only costs were compared: no pictures are scored. genrun score")


def test_who_reads_of_fewer_calls_reads_how_many_of_how_many(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "demo" / STAMP.format(0, "3f9c"), latents=False, files=False)
    said = [calls_in_a_row(group) for group in summarize(run.items(), run.records(), [])]
    assert said == ["20 model calls in a row", "7 model calls in a row instead of 20 (2.86×)"]


def test_who_hands_results_on_gets_files_that_say_what_they_are(genrun: Genrun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "demo" / STAMP.format(0, "3f9c"), image=True)
    genrun("export", str(run.path), "--to", "out", "--name", "{index:03}_{solver}_{seed}", "--sheet", "--csv")
    assert {"001_sequential_0.png", "002_ropa-K-8_0.png", "results.csv", "sheet.png"} <= {
        path.name for path in Path("out").iterdir()
    }


# Keeping house.


def test_who_asks_for_the_runs_sees_state_size_and_age(genrun: Genrun, tmp_path: Path) -> None:
    made = runs_of(tmp_path / "runs", "demo", count=2)
    pin(made[0])
    listed = json.loads(genrun("runs", "--json").stdout)
    assert [(row["run"], row["items"], row["latest"], row["pinned"]) for row in listed] == [
        (str(made[1].path), 4, True, False),
        (str(made[0].path), 4, False, True),
    ]
    assert all(row["size_bytes"] > 1000 and row["age_s"] < 60 for row in listed)
    assert re.search(rf"demo/{made[1].path.name}\s+failed\s+0\s+4\s+[\d.]+ KB\s+\d+ s\s+latest", genrun("runs").stdout)
    assert "Did you mean 'demo'?" in genrun("runs", "deno", exit_code=2).stderr


def test_who_types_the_beginning_of_a_run_or_its_digits_gets_it(genrun: Genrun, tmp_path: Path) -> None:
    made = runs_of(tmp_path / "runs", "demo", count=2)
    for short in ("a0b0", "demo/a0b0", f"demo/{made[0].path.name[:-3]}", made[0].path.name):
        assert genrun("status", short).stderr.startswith(f"{made[0].path}\n")
    assert genrun("status", "dem").stderr.startswith(f"{made[1].path}\n")
    assert "several runs are named so" in genrun("status", "demo/2026", exit_code=2).stderr
    assert "Jobs with runs in runs: demo." in genrun("status", "nothing", exit_code=2).stderr


def test_who_removes_a_run_removes_that_one(genrun: Genrun, tmp_path: Path) -> None:
    made = runs_of(tmp_path / "runs", "demo", count=3)
    assert "Nothing was." in genrun("rm", "a2b2", "-n").stderr
    assert made[2].path.is_dir()
    assert genrun("rm", "a2b2").stdout == f"{made[2].path}\n"
    assert not made[2].path.exists()
    assert genrun("status", "demo").stderr.startswith(f"{made[1].path}\n")
    assert "which of its runs?" in genrun("rm", "demo", exit_code=2).stderr
    assert made[0].path.is_dir() and made[1].path.is_dir()


@pytest.mark.parametrize("way", ["pinned", "at work", "outside", "link", "job is a link"])
def test_who_removes_what_is_needed_or_not_theirs_is_refused(genrun: Genrun, tmp_path: Path, way: str) -> None:
    first, last = runs_of(tmp_path / "runs", "demo", count=2)
    outside = make_run(
        tmp_path / "other" / "precious" / STAMP.format(5, "c0de"), image=True, latents=False, files=False
    )
    name = first.path.name
    if way == "pinned":
        pin(first)
    elif way == "at work":
        in_work(first, first.items()[0].id)
    elif way == "outside":
        name = str(outside.path)
    elif way == "link":
        (tmp_path / "runs" / "demo" / STAMP.format(7, "c0de")).symlink_to(outside.path)
        name = f"runs/demo/{STAMP.format(7, 'c0de')}"
    else:
        (tmp_path / "runs" / "linked").symlink_to(outside.path.parent)
        name = f"linked/{outside.path.name}"
    genrun("rm", name, exit_code=2)
    kept = genrun("gc", "--keep", "0")
    assert outside.path.is_dir() and len(outside.items()) == 4
    assert last.path.is_dir()
    assert first.path.is_dir() == (way in ("pinned", "at work"))
    assert kept.stdout.splitlines() == ([] if first.path.is_dir() else [str(first.path)])


def test_who_keeps_the_newest_runs_keeps_those(genrun: Genrun, tmp_path: Path) -> None:
    made = runs_of(tmp_path / "runs", "demo", count=4)
    other = runs_of(tmp_path / "runs", "other", count=1)
    planned = genrun("gc", "--keep", "2", "-n").stdout.splitlines()
    assert all(run.path.is_dir() for run in made)
    assert genrun("gc", "--keep", "2").stdout.splitlines() == planned
    assert [run.path.is_dir() for run in (*made, *other)] == [False, False, True, True, True]
    assert list((tmp_path / "runs" / "demo").glob(".*removing")) == []


def test_who_keeps_the_newest_runs_loses_none_to_a_damaged_one_nor_that_one(genrun: Genrun, tmp_path: Path) -> None:
    made = runs_of(tmp_path / "runs", "demo", count=4)
    for damaged in (made[0], made[2]):
        (damaged.path / "plan.jsonl").write_text("nonsense")
    kept = genrun("gc", "--keep", "2")
    assert kept.stdout == ""
    assert kept.stderr.count("is damaged: genrun verify tells how, genrun rm removes it") == 2
    assert genrun("gc", "--keep", "1").stdout.splitlines() == [str(made[1].path)]
    genrun("rm", made[0].path.name)
    assert [run.path.is_dir() for run in made] == [False, False, True, True]


def test_who_keeps_one_run_of_a_job_begun_anew_keeps_its_last_results(genrun: Genrun, tmp_path: Path) -> None:
    base = tmp_path / "runs" / "demo"
    made = [
        make_run(base / STAMP.format(number, f"a{number}b{number}"), image=True, latents=False, pending=pending)
        for number, pending in enumerate([(), (), (2, 3), (0, 1)])
    ]
    point_latest(made[-1])
    kept = genrun("gc", "--keep", "2")
    assert kept.stdout.splitlines() == [str(made[0].path)]
    assert f"{made[1].path}: kept: is the newest that is done." in kept.stderr
    assert genrun("gc", "--keep", "1").stdout.splitlines() == [str(made[2].path)]
    assert genrun("gc", "--keep", "0").stdout.splitlines() == [str(made[1].path)]


@pytest.mark.parametrize("command", [("gc", "--keep", "5"), ("rm", "a0b0")])
def test_who_repeats_a_removal_that_was_killed_ends_it(
    genrun: Genrun, tmp_path: Path, command: tuple[str, ...]
) -> None:
    made = runs_of(tmp_path / "runs", "demo", count=3)
    gone, job_folder = made[2].path, made[2].path.parent
    gone.rename(gone.with_name(f".{gone.name}.removing"))
    (tmp_path / "runs" / "other").mkdir()
    genrun(*command)
    assert not list(job_folder.glob("*removing*"))
    assert (job_folder / "latest").resolve() == made[1].path
    assert [path.is_dir() for path in (made[0].path, made[1].path)] == [command[0] == "gc", True]
    assert list((tmp_path / "runs" / "other").iterdir()) == []


def test_who_has_calibrated_a_job_reads_of_the_jobs_own_run(genrun: Genrun, tmp_path: Path) -> None:
    (own,) = runs_of(tmp_path / "runs", "demo", count=1)
    (calibration,) = runs_of(tmp_path / "runs", "demo-calibration", count=1)
    assert genrun("status").stderr.startswith(f"{calibration.path}\n")
    certificate = tmp_path / "runs" / ".certificates" / "3f9c.json"
    certificate.parent.mkdir()
    certificate.write_text(json.dumps({"run": f"demo-calibration/{calibration.path.name}"}))
    (certificate.parent / "damaged.json").write_text("[")
    assert genrun("status").stderr.startswith(f"{own.path}\n")
    assert genrun("status", "demo-calibration").stderr.startswith(f"{calibration.path}\n")
    genrun("rm", f"demo/{own.path.name}")
    assert genrun("status").stderr.startswith(f"{calibration.path}\n")


def test_who_removes_a_nights_run_keeps_what_it_measured(genrun: Genrun, tmp_path: Path) -> None:
    first, _ = runs_of(tmp_path / "runs", "demo", count=2)
    write_night(first.night_path, replace(night(1, 35.0), run=first.path.name))
    genrun("rm", first.path.name)
    (row,) = json.loads(genrun("history", "demo", "--json").stdout)
    assert (row["run"], row["is_removed"]) == (first.path.name, True)


def test_who_begins_with_a_model_gets_a_job_that_is_right(genrun: Genrun) -> None:
    assert genrun("init", "demo-video").stdout == "demo-video.yaml\n"
    text = Path("demo-video.yaml").read_text()
    assert "steps: 50" in text and text.count("#") > 8
    assert "ok, 4 items" in genrun("validate", "demo-video.yaml").stdout
    assert "is there already" in genrun("init", "demo-video", exit_code=2).stderr
    assert Path("demo-video.yaml").read_text() == text
    assert "auto: stands for any model of diffusers" in genrun("init", "auto", exit_code=2).stderr
    assert not Path("auto.yaml").exists()
    assert "Did you mean" in genrun("init", "demo-vidio", "-o", "-", exit_code=2).stderr


def test_who_begins_with_a_model_that_needs_a_picture_is_told_to_put_one(genrun: Genrun, tmp_path: Path) -> None:
    made = genrun("init", "wan2.1-i2v", "-o", "job.yaml")
    assert "image.png" in made.stderr
    assert "'image.png': there is no such file" in genrun("validate", "job.yaml", exit_code=2).stderr
    Image.new("RGB", (832, 480)).save("image.png")
    assert "ok, 4 items" in genrun("validate", "job.yaml").stdout


def test_who_pipes_a_job_may_extend_a_file(genrun: Genrun, write_job: Write) -> None:
    write_job()
    found = CliRunner().invoke(main, ["validate", "-"], input="extends: job.yaml\nseeds: 3\n")
    assert (found.exit_code, found.stderr) == (0, "") and found.stdout.startswith("-: ok, ")
    assert (
        "there is no file" in CliRunner().invoke(main, ["validate", "-"], input="extends: no.yaml\nseeds: 3\n").stderr
    )


@pytest.mark.parametrize("seeds", ["0", "-3", "0..9999999", "foo"])
def test_whose_seeds_are_no_seeds_reads_what_they_may_be(genrun: Genrun, write_job: Write, seeds: str) -> None:
    write_job()
    said = genrun("validate", "job.yaml", "--set", f"seeds={seeds}", exit_code=2).stderr
    assert "wanted a list, a range such as 0..9, or how many, 1 to 1,000,000, got" in said


@pytest.mark.parametrize("verb", [("rm", "{}"), ("gc", "--keep", "0")])
def test_two_who_remove_the_same_runs_both_succeed(
    genrun: Genrun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: Sequence[str]
) -> None:
    first, _ = runs_of(tmp_path / "runs", "demo", count=2)
    lock = locking.of_job

    @contextlib.contextmanager
    def overtaken(job_folder: Path, say: Callable[[str], None]) -> Iterator[None]:
        shutil.rmtree(first.path)
        with lock(job_folder, say):
            yield

    monkeypatch.setattr(locking, "of_job", overtaken)
    found = json.loads(genrun(*(word.format(first.path.name) for word in verb), "--json").stdout)
    assert found == {"removed": [], "kept": {}, "freed_bytes": 0, "dry_run": False}


def test_whose_folders_have_hostile_names_gets_them_on_one_line_and_never_completed(
    genrun: Genrun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("demo", "new\nline", "$(touch pwned)", "two words"):
        runs_of(tmp_path / "runs", name, count=1)
    assert len(genrun("runs").stdout.splitlines()) == 5
    monkeypatch.setenv("COMP_WORDS", "genrun status ")
    monkeypatch.setenv("COMP_CWORD", "2")
    found = CliRunner().invoke(main, [], prog_name="genrun", env={"_GENRUN_COMPLETE": "bash_complete"})
    assert found.stdout.splitlines() == ["plain,demo"]


def test_who_pipes_a_job_has_it_checked(genrun: Genrun) -> None:
    call = CliRunner()
    good = call.invoke(main, ["validate", "-"], input="model: demo-image\nprompts: [x]")
    assert (good.exit_code, good.stdout) == (0, "-: ok, 1 items\n")
    bad = call.invoke(main, ["validate", "-"], input="model: demo-image\nprompts: [x]\nsolvr: ropa\n")
    assert bad.exit_code == 2
    assert "<stdin>:3:1: solvr: unknown option. Did you mean 'solver'?" in bad.stderr
    huge = call.invoke(main, ["validate", "-"], input="#" * (2**20 + 1))
    assert (huge.exit_code, "more than the 1,048,576 bytes" in huge.stderr) == (2, True)


def test_who_sets_a_variable_has_runs_there(
    genrun: Genrun, write_job: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_job()
    monkeypatch.setenv("GENRUN_RUNS", str(tmp_path / "mine"))
    folder = genrun("submit", "job.yaml").stdout.strip()
    assert Path(folder).parent == tmp_path / "mine" / "fake"
    assert genrun("status", "fake").stderr.startswith(folder)
    assert str(package.Run("fake").path) == folder
    write_job(output={"dir": "theirs"})
    assert Path(genrun("submit", "job.yaml").stdout.strip()).parents[1] == tmp_path / "theirs"


def test_who_has_defaults_has_them_where_a_job_says_nothing(
    genrun: Genrun, write_job: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENRUN_CONFIG", "defaults.yaml")
    assert genrun("config", "--write").stdout == "defaults.yaml\n"
    genrun("config", "--write", exit_code=2)
    assert json.loads(genrun("config", "--json").stdout)["values"]["runs"] == {"value": "runs", "from": "default"}
    Path("defaults.yaml").write_text("runs: mine\ntalk: quiet\njob:\n  launch: {threads: 3}\n  output: {crf: 30}\n")
    write_job(output={"crf": 20})
    shown = json.loads(genrun("show", "job.yaml", "--json", "--origin").stdout)
    assert (shown["job"]["launch"]["threads"], shown["job"]["output"]["crf"], shown["job"]["output"]["dir"]) == (
        3,
        20,
        "mine",
    )
    assert shown["origin"]["launch.threads"].startswith("defaults.yaml:4:")
    ids = [item.id for item in api.plan("job.yaml")]
    assert genrun("submit", "job.yaml").stderr == ""
    monkeypatch.delenv("GENRUN_CONFIG")
    assert [item.id for item in api.plan("job.yaml")] == ids


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rusn: x\n", r"defaults.yaml:1:1: rusn: .*Did you mean 'runs'\?"),
        ("job: {solver: {kind: ropa}}\n", r"defaults.yaml:1:7: job.solver: jobs alone say what changes pictures"),
        ("talk: loud\n", r"defaults.yaml:1:7: talk: wanted quiet, normal, verbose, got 'loud'"),
        ("- x\n", r"wanted a mapping"),
        ("runs: [\n", r"defaults.yaml:2:1"),
        ("job: {launch: fast}\n", r"wanted keys of launch"),
    ],
)
def test_whose_defaults_are_wrong_is_told_where(
    genrun: Genrun, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.setenv("GENRUN_CONFIG", "defaults.yaml")
    Path("defaults.yaml").write_text(text)
    assert re.search(message, genrun("config", exit_code=2).stderr)


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop"])
def test_whose_defaults_are_no_file_is_told_so_and_waits_for_nothing(
    genrun: Genrun, write_job: Write, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    write_job()
    monkeypatch.setenv("GENRUN_CONFIG", "defaults.yaml")
    make = {"folder": os.mkdir, "pipe": os.mkfifo, "loop": lambda name: Path(name).symlink_to(name)}
    make[kind]("defaults.yaml")
    for words in (("config",), ("config", "--write"), ("runs",), ("submit", "job.yaml")):
        said = genrun(*words, exit_code=2).stderr
        assert said.startswith("defaults.yaml: ")
    assert "cannot be read: " in said
    assert not Path("runs").exists()


def test_whose_defaults_are_named_and_not_there_is_told_so(
    genrun: Genrun, write_job: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_job()
    monkeypatch.setenv("GENRUN_CONFIG", "defaults.yaml")
    for words in (("config",), ("submit", "job.yaml")):
        said = genrun(*words, exit_code=2).stderr
        assert "defaults.yaml: GENRUN_CONFIG names it, and it is not there. genrun config --write makes it" in said
    genrun("config", "--write")
    genrun("config")


def test_defaults_that_do_nothing_for_a_job_are_not_wrong(
    genrun: Genrun, write_job: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENRUN_CONFIG", "defaults.yaml")
    Path("defaults.yaml").write_text("job:\n  launch: {partition: long}\n  output: {crf: 30}\n")
    write_job(model="demo-image")
    genrun("validate", "job.yaml")


@pytest.mark.parametrize("before", [True, False])
def test_who_wants_quiet_hears_results_and_errors_alone(
    genrun: Genrun, write_job: Write, tmp_path: Path, before: bool
) -> None:
    write_job()
    arguments = ("-q", "submit", "job.yaml") if before else ("submit", "job.yaml", "-q")
    made = genrun(*arguments)
    assert (made.stderr, made.stdout.count("\n")) == ("", 1)
    assert "no such run" in genrun("-q", "status", "nothing", exit_code=2).stderr
    write_job(seeds=[5])
    faults.put(tmp_path / "faults", "sampling", victim="error", times=2, item=api.plan("job.yaml")[0].id)
    assert "1 items failed" in genrun(*arguments, exit_code=1).stderr
    assert genrun("-v", "submit", "job.yaml", "--set", "seeds=[6]").stderr.count("/6 done") >= 2
    # The next command says what it did before.
    assert "nothing to do" not in genrun("submit", "job.yaml", "--set", "seeds=[0]", "-q").stderr
    assert "nothing to do" in genrun("submit", "job.yaml", "--set", "seeds=[0]").stderr


@pytest.mark.parametrize(
    ("shell", "words", "found"),
    [
        ("bash", "genrun stat", "status"),
        ("zsh", "genrun stat", "status"),
        ("fish", "genrun stat", "status"),
        ("bash", "genrun status de", "demo"),
        ("bash", "genrun rm demo/2026", "demo/2026-01-31T02-00-00-a0b0"),
        ("bash", "genrun solvers ro", "ropa"),
        ("bash", "genrun bench --solvers ropa,coll", "ropa,collocation"),
        ("bash", "genrun init demo-v", "demo-video"),
        ("bash", "genrun submit jobs/dem", "jobs/demo.yaml"),
    ],
)
def test_who_presses_tab_has_words_completed(
    genrun: Genrun, tmp_path: Path, shell: str, words: str, found: str
) -> None:
    runs_of(tmp_path / "runs", "demo", count=1)
    script = genrun("completion", shell).stdout
    assert "_GENRUN_COMPLETE" in script
    line = words.split()
    typed = {"COMP_WORDS": words, "COMP_CWORD": line[-1] if shell == "fish" else str(len(line) - 1)}
    said = CliRunner().invoke(main, [], prog_name="genrun", env={"_GENRUN_COMPLETE": f"{shell}_complete", **typed})
    assert found in re.split(r"[\n,\t]", said.stdout) or any(each.endswith(found) for each in said.stdout.splitlines())


@pytest.mark.parametrize(("verb", "most"), [(["--help"], 150), (["validate", "jobs/demo-image.yaml"], 450)])
def test_who_asks_for_help_or_a_check_waits_for_neither(verb: list[str], most: int) -> None:
    """A tenth of a second and six: what is loaded is what takes them, and can be counted on any machine."""
    program = "import sys\nfrom genrun.runner.cli import main\ntry: main()\nfinally: print('\\n', len(sys.modules))"
    said = subprocess.run([sys.executable, "-c", program, *verb], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 0 < int(said.stdout.split()[-1]) <= most
