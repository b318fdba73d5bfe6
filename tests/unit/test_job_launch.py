"""The section `launch`: what it may say, and what is wrong with it, with its place."""

from pathlib import Path

import pytest

from genrun.runner.job import restore
from genrun.runner.submit.follow import request_of
from tests.fakes.jobs import BASE, load_text, problems_of
from tests.fakes.registries import fake_registries


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


FULL = f"""{BASE}launch:
  kind: slurm
  partition: gpu
  array: 16
  at_once: 4
  nodes: 2
  gpus: h200:8
  time: 04:00:00
  agent: srun
  setup: [module load cuda]
  options: {{mail-type: END, exclusive: true, mem: null, nice: 10}}
  then: [score, {{step: report, options: {{partition: cpu}}}}]
"""


def test_everything_that_may_be_asked_of_a_cluster_reaches_the_launcher() -> None:
    loaded = load_text(FULL)
    cluster = request_of(loaded.job, loaded.document, {}).cluster
    assert cluster is not None
    assert (cluster.name, cluster.partition, cluster.array, cluster.at_once) == ("job", "gpu", 16, 4)
    assert (cluster.nodes, cluster.gpus, cluster.time, cluster.agent) == (2, "h200:8", "04:00:00", "srun")
    assert cluster.options == {"mail-type": "END", "exclusive": True, "mem": None, "nice": 10}
    assert [(step.name, step.options) for step in cluster.then] == [("score", {}), ("report", {"partition": "cpu"})]
    assert cluster.setup == ("module load cuda",)


def test_a_stored_job_asks_for_the_same() -> None:
    loaded = load_text(FULL)
    restored = restore(loaded.document, {}, fake_registries())
    assert restored.launch == loaded.job.launch
    assert request_of(restored, loaded.document, {}) == request_of(loaded.job, loaded.document, {})


def test_what_may_be_changed_when_a_run_is_joined_is_how_it_runs_and_nothing_else() -> None:
    document = load_text(FULL).document
    assert restore(document, {}, fake_registries(), ["launch.array=2"]).launch.array == 2
    with pytest.raises(Exception, match=r"--set seeds=\[3\]: only launch and parallel may be changed here"):
        restore(document, {}, fake_registries(), ["seeds=[3]"])


@pytest.mark.parametrize(
    ("launch", "problem"),
    [
        ("{time: 5}", 'launch.time: wanted a time in quotes such as "04:00:00" or "2-12:00:00" (days-hours), got 5.'),
        ("{time: soon}", "launch.time: wanted a time in quotes such as"),
        ("{gpus: many}", "launch.gpus: wanted a whole number, or a type and a number such as h200:8, got 'many'."),
        ("{gpus: 'a b:2'}", "launch.gpus: wanted a whole number"),
        ("{array: 0}", "launch.array: wanted a whole number of at least 1, or auto, got 0."),
        ("{agent: mpirun}", "launch.agent: wanted torchrun or srun, got 'mpirun'."),
        ("{then: [cook]}", "launch.then[0].step: wanted score or report, got 'cook'."),
        ("{then: [{stp: score}]}", "launch.then[0].stp: unknown option. Did you mean 'step'?"),
        ("{options: {mail_type: END}}", "launch.options.mail_type: no option of sbatch: wanted its long name"),
        ("{options: {mem: [1]}}", "launch.options.mem: wanted text, a number, true for a flag, or null to leave"),
        ("{options: {array: 3}}", "launch.options.array: write launch.array."),
        ("{options: {partition: x}}", "launch.options.partition: write launch.partition."),
        ("{options: {job-name: x}}", "launch.options.job-name: genrun names its jobs itself"),
        ('{options: {comment: "a\\nb"}}', "launch.options.comment: a #SBATCH line cannot hold line breaks"),
        (
            "{options: {comment: '${MY_KEY}'}}",
            "launch.options.comment: made from a secret, and batch scripts are stored.",
        ),
        (
            "{then: [{step: score, options: {output: x}}]}",
            "launch.then[0].options.output: logs lie in the run's folder.",
        ),
        ("{template: nope.j2}", "launch.template: there is no file 'nope.j2' in '.'."),
        (
            "{kind: slurm, gpus: 3}\nparallel: {time: 2}",
            "launch.gpus: 3 cannot be shared out in groups of parallel.time",
        ),
        (
            "{kind: slurm, gpus: 2, nodes: 2}\nparallel: {data: 3}",
            "launch.gpus: 4 is not parallel.data x parallel.time",
        ),
        (
            "{kind: slurm, processes: 3, nodes: 2}",
            "launch.processes: 3 ranks cannot be shared out evenly over 2 nodes.",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place(launch: str, problem: str) -> None:
    lines = problems_of(f"{BASE}launch: {launch}\n", environ={"MY_KEY": "hush"})
    assert all(line.startswith("job.yaml:3:") for line in lines)
    assert any(problem in line for line in lines)


def test_a_template_is_stored_by_its_absolute_path_wherever_it_was_named(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "mine.j2").touch()
    (tmp_path / "parts" / "base.yaml").write_text(f"{BASE}launch: {{kind: slurm, template: mine.j2}}\n")
    loaded = load_text("extends: parts/base.yaml\n")
    expected = str(tmp_path / "parts" / "mine.j2")
    assert loaded.job.launch.template == expected
    assert loaded.document["launch"]["template"] == expected


def test_a_secret_in_a_setup_line_stays_a_variable_for_the_shell() -> None:
    loaded = load_text(
        f"{BASE}launch: {{setup: ['export T=${{MY_TOKEN}} H=${{HOST}} $${{x}}']}}\n",
        environ={"MY_TOKEN": "hush", "HOST": "here"},
    )
    request = request_of(loaded.job, loaded.document, {})
    assert request.setup == ("export T=hush H=here ${x}",)
    assert request.cluster is not None
    assert request.cluster.setup == ("export T=${MY_TOKEN} H=${HOST} ${x}",)
