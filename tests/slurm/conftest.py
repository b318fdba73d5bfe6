"""A real Slurm for every test, and a command line whose workers need no torch."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from genrun.runner.store.folder import RunFolder
from genrun.runner.store.lease import holdings
from genrun.runner.store.verify import verify
from tests.fakes import faults, worker
from tests.slurm.cluster import Cluster, missing, running, tail, until

ROOT = Path(__file__).parents[2]
ACCOUNTING = "GENRUN_SLURM_ACCOUNTING"
CLI = ROOT / "tests" / "fakes" / "cli.py"


@dataclass(frozen=True)
class Lab:
    """A folder with a job and a cluster to run it on.

    Attributes:
        cluster: the cluster.
        path: the folder in which genrun is called.
        environ: what a caller has in the environment beside the test's own.
        program: Python's arguments for genrun.
    """

    cluster: Cluster
    path: Path
    environ: Mapping[str, str]
    program: Sequence[str] = (str(CLI),)

    def write_job(self, count: int = 6, **changes: Any) -> dict[str, Any]:
        """Write job.yaml: `count` items in an array of two tasks with two ranks each, unless told otherwise."""
        launch = {"kind": "slurm", "agent": "srun", "array": 2, "gpus": 2, "partition": "gpu", "time": "00:10:00"}
        launch |= changes.pop("launch", {})
        prompts = [f"prompt {number}" for number in range(count)]
        job = {"name": "lab", "model": "test/fake", "prompts": prompts, "launch": launch, **changes}
        (self.path / "job.yaml").write_text(yaml.safe_dump(job, allow_unicode=True), encoding="utf-8")
        return job

    def start(self, *args: str, environ: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start genrun, and do not wait for it."""
        return subprocess.Popen(
            [sys.executable, *self.program, *args],
            cwd=self.path,
            env={**os.environ, **self.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def genrun(self, *args: str, exit_code: int = 0, environ: Mapping[str, str] | None = None) -> Said:
        """Call genrun."""
        process = self.start(*args, environ=environ)
        stdout, stderr = process.communicate(timeout=240)
        assert process.returncode == exit_code, f"exit code {process.returncode}\n{stdout}\n{stderr}"
        return Said(stdout, stderr)

    def submit(self, *args: str, nap: float = 0.0, exit_code: int = 0) -> str:
        """Submit job.yaml, and return the job's number."""
        said = self.genrun("submit", "job.yaml", "--json", *args, exit_code=exit_code, environ={worker.NAP: str(nap)})
        return str(said.json["jobs"][0])

    @property
    def run(self) -> RunFolder:
        """The newest run."""
        return RunFolder.open(self.path / "runs" / "lab" / "latest")

    def status(self) -> dict[str, Any]:
        """What `genrun status --json` says."""
        return self.genrun("status", "--json").json

    def wait_over(self, job: str, timeout_s: float = 120.0) -> None:
        """Wait until no task of a job waits or runs."""
        over = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"}
        until(lambda: set(self.cluster.states(job)) <= over, f"job {job} to end", timeout_s)

    def wait_done(self, count: int, timeout_s: float = 90.0) -> None:
        """Wait until so many items are done."""
        until(lambda: self.run.tally().done >= count, f"{count} items", timeout_s)

    def finish(self) -> None:
        """Submit again until the run is whole: one more time must do."""
        self.genrun("submit", "job.yaml", "--wait")
        self.check_whole()

    def check_whole(self) -> None:
        """Every item is done exactly once, with the right bytes, and nothing else lies about."""
        folder = self.run
        assert verify(folder) == []
        items = folder.items()
        assert len(folder.record_files()) == len(folder.result_files()) == len(items)
        assert folder.temporary_files() == []
        for item in items:
            assert folder.media_path(item, ".png").read_bytes() == worker.picture(item)

    def fault(self, moment: str, **details: Any) -> None:
        """Place a fault for a worker to meet."""
        faults.put(self.path / "faults", moment, **details)

    def describe(self) -> str:
        """Return how far the runs are, and the ends of their logs: for whoever reads a failure."""
        parts = [self.cluster.describe()]
        for plan in sorted(self.path.rglob("plan.jsonl")):
            folder = RunFolder.open(plan.parent)
            parts.append(f"--- {folder.path}\n{folder.tally()}\n{holdings(folder)}")
            parts += [tail(notes, 30) for notes in sorted(folder.logs.rglob("*.events"))]
            parts += [tail(log, 12) for log in sorted(folder.logs.rglob("*.log"))]
        return "\n".join(parts)


@dataclass(frozen=True)
class Said:
    """What a command wrote."""

    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The last line of stdout, as JSON."""
        return json.loads(self.stdout.splitlines()[-1])


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Function) -> Generator[None, Any, None]:
    """Add to a failure what the cluster and the runs look like at that moment."""
    outcome = yield
    report = outcome.get_result()
    if report.failed and report.when == "call":
        for lent in item.funcargs.values():
            if isinstance(lent, Lab):
                report.sections.append(("Slurm and the runs", lent.describe()))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that may ask the accounts on a cluster without them, and on one with them."""
    if "accounting" in metafunc.fixturenames and metafunc.definition.get_closest_marker("accounts"):
        metafunc.parametrize("accounting", [False, True], ids=["plain", "accounts"], indirect=True)


@pytest.fixture
def accounting(request: pytest.FixtureRequest) -> bool:
    """Whether the test's cluster keeps accounts: where ACCOUNTING is set all of them do."""
    return bool(getattr(request, "param", False) or os.environ.get(ACCOUNTING))


@pytest.fixture
def cluster(request: pytest.FixtureRequest, accounting: bool) -> Iterator[Cluster]:
    """A cluster of its own for one test: it starts in half a second, with accounts in two.

    With accounts genrun does nothing else than ask them where slurmctld has forgotten a job. That this needs no other test
    than those with the mark `accounts` is looked at here.
    """
    lacking = missing(accounting=accounting)
    if lacking:
        pytest.skip(f"no {', '.join(lacking)}: see README.md beside this file")
    with running(accounting=accounting) as found:
        yield found
        asked = found.asked.read_text() if found.asked.exists() else ""
    assert not asked or accounting or request.node.get_closest_marker("accounts"), f"the mark `accounts` lacks: {asked}"


@pytest.fixture
def lab(cluster: Cluster, tmp_path: Path) -> Lab:
    """A folder and a cluster."""
    return make_lab(cluster, tmp_path)


def make_lab(cluster: Cluster, path: Path) -> Lab:
    """Return a lab in a folder."""
    environ = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", faults.FOLDER: str(path / "faults")}
    return Lab(cluster, path, {**cluster.environ, **environ})


def wrap(lab: Lab, program: str, text: str) -> Lab:
    """Put a program of the test's own before Slurm's."""
    real = lab.cluster.run("which", program).strip()
    folder = lab.path / "bin"
    folder.mkdir(exist_ok=True)
    path = folder / program
    path.write_text(f"#!/bin/bash\n{text.replace('REAL', real)}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return Lab(lab.cluster, lab.path, {**lab.environ, "PATH": f"{folder}:{lab.environ['PATH']}"})
