"""kill -9 at random file operations, and whether the same command again makes the run whole.

    python -m tests.bench.kills --kills 1000            # about an hour on two cores; --json FILE keeps every trial
    python -m tests.bench.kills --kills 40 --ways inline,score

A trial starts a command (`submit` inline, under torchrun or on a real Slurm, `score`, `report`, `export`, `nightly`), kills
one of its processes before a file operation in the folder of runs, or in the middle of a write, drawn by seed from all that
the command makes. Then the same command runs again, unharmed, and the run is looked at:

    lost         an item that is not done, or was done before and is not what it was
    doubled      a second run, a second file of one item, or an item that was done and is made again
    left behind  a temporary file, a lease, or anything hidden that an unharmed run does not have
    not clean    `genrun verify` finds something

Workers are those of tests/fakes, which need no torch; store, queue, launchers and commands are the real ones.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from genrun.runner.store.folder import RunFolder
from genrun.runner.store.lease import holdings
from genrun.runner.store.verify import verify
from tests.slurm.cluster import missing, running

ROOT = Path(__file__).parents[2]
FAKES = ROOT / "tests" / "fakes"
CLI = str(FAKES / "cli.py")
KILLER = FAKES / "killer"
VARIABLE = "GENRUN_TEST_KILL"
TIMEOUT_S = 300
FAULTS = ("lost", "doubled", "left behind", "not clean", "failed")

JOB = {
    "name": "kill",
    "model": "test/fake",
    "prompts": ["one", "two", "three"],
    "matrix": {"solver": ["sequential", {"kind": "ropa", "workers": 4}]},
    "output": {"save_latents": True},
    "score": ["latent_rmse", "psnr"],
    "launch": {"kind": "inline"},
}
SLURM = {"kind": "slurm", "agent": "srun", "array": 2, "gpus": 2, "partition": "gpu", "time": "00:10:00"}


@dataclass(frozen=True)
class Way:
    """A command that is killed.

    Attributes:
        name: in the table.
        command: genrun's arguments.
        launch: of the job.
        share: how many of 100 kills it gets.
        roles: of its processes, those that may die.
        prepare: what runs before, unharmed.
        codes: exit codes of an unharmed run.
    """

    name: str
    command: tuple[str, ...]
    share: int
    launch: Mapping[str, Any] = field(default_factory=lambda: {"kind": "inline"})
    roles: tuple[str, ...] = ("command",)
    prepare: tuple[tuple[str, ...], ...] = ()
    codes: tuple[int, ...] = (0,)


SUBMIT = ("submit", "job.yaml")
WAYS = (
    Way("submit, inline", SUBMIT, 44, roles=("command", "worker")),
    Way("submit, torchrun", SUBMIT, 8, {"kind": "torchrun", "processes": 2}, ("command", "worker")),
    Way("submit, Slurm", (*SUBMIT, "--wait"), 8, SLURM, ("command", "worker")),
    Way("score", ("score", "kill"), 12, prepare=(SUBMIT,)),
    Way("report", ("report", "kill"), 10, prepare=(SUBMIT,)),
    Way("export", ("export", "kill", "--to", "runs-exported", "--csv"), 4, prepare=(SUBMIT,)),
    # The fakes' pictures are none, so that a gate on scores stays open: exit code 3.
    Way("nightly", ("nightly", "job.yaml"), 14, roles=("command", "worker"), codes=(0, 3)),
)


@dataclass(frozen=True)
class Trial:
    """What came of one kill.

    Attributes:
        way: the command.
        role: of the process that was to die.
        at: the operation before which it died.
        died: whether anything did: an operation may be made by a process that ends sooner this time.
        faults: what was found afterwards, by kind.
    """

    way: str
    role: str
    at: int
    died: bool
    faults: dict[str, list[str]]


class Bench:
    """Runs trials of one way in folders of their own."""

    def __init__(self, way: Way, root: Path, environ: Mapping[str, str]) -> None:
        self.way, self.root, self.environ = way, root, environ
        self.model = root / "model"
        self.model.mkdir(parents=True)
        (self.model / "job.yaml").write_text(yaml.safe_dump({**JOB, "launch": dict(way.launch)}))
        for arguments in way.prepare:
            self._must(self.model, arguments)
        whole = self._copy("whole")
        self.operations = {role: self._count(whole, role) for role in way.roles}
        self.usual = hidden(whole)

    def trial(self, number: int, seed: int) -> Trial:
        """Kill at an operation drawn by seed, run again, and look."""
        drawn = random.Random(f"{seed} {self.way.name} {number}")
        role = drawn.choice(self.way.roles)
        at = drawn.randint(1, self.operations[role])
        folder = self._copy(f"trial-{number}")
        token = folder / "token"
        token.touch()
        self._run(folder, self.way.command, self._killer(folder, role, at, token))
        died = not token.exists()
        before = finished(folder)
        again = self._run(folder, self.way.command)
        faults = inspect(folder, before, self.usual, is_night=self.way.command[0] == "nightly")
        if again.returncode not in self.way.codes:
            faults["failed"] = [f"exit code {again.returncode}: {again.stderr[-600:]}"]
        if not faults:
            shutil.rmtree(folder)
        return Trial(self.way.name, role, at, died, faults)

    def _copy(self, name: str) -> Path:
        folder = self.root / name
        shutil.copytree(self.model, folder, symlinks=True)
        return folder

    def _count(self, folder: Path, role: str) -> int:
        """Count the operations of the role's busiest process in an unharmed run."""
        counts = folder / "counts"
        shutil.rmtree(counts, ignore_errors=True)
        counts.mkdir()
        if role != self.way.roles[0]:
            shutil.rmtree(folder / "runs", ignore_errors=True)
        self._must(folder, self.way.command, self._killer(folder, role, 0, folder / "token"))
        found = [int(path.read_text()) for path in counts.glob(f"{role}.*")]
        if not found or not max(found):
            raise RuntimeError(f"{self.way.name}: no file operations of a {role} were seen")
        return max(found)

    def _killer(self, folder: Path, role: str, at: int, token: Path) -> dict[str, str]:
        (folder / "counts").mkdir(exist_ok=True)
        plan = {
            "scope": str(folder / "runs"),
            "role": role,
            "at": at,
            "token": str(token),
            "counts": str(folder / "counts"),
        }
        return {VARIABLE: json.dumps(plan), "PYTHONPATH": f"{KILLER}{os.pathsep}{ROOT}"}

    def _must(self, folder: Path, arguments: tuple[str, ...], extra: Mapping[str, str] | None = None) -> None:
        ran = self._run(folder, arguments, extra)
        if ran.returncode not in self.way.codes:
            raise RuntimeError(f"genrun {' '.join(arguments)}: exit code {ran.returncode}\n{ran.stdout}\n{ran.stderr}")

    def _run(
        self, folder: Path, arguments: tuple[str, ...], extra: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **self.environ, **(extra or {})}
        process = subprocess.Popen(
            [sys.executable, CLI, *arguments],
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        stdout, stderr = process.communicate(timeout=TIMEOUT_S)
        return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)


def run_folders(folder: Path) -> list[RunFolder]:
    """Return the runs of a trial."""
    return [RunFolder.open(path.parent) for path in sorted(folder.glob("runs/kill/2*/plan.jsonl"))]


def finished(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """Return the files of records that are there, each with its time and content."""
    records = sorted(folder.glob("runs/kill/2*/items/*/[0-9a-f]*.json"))
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in records}


def hidden(folder: Path) -> set[str]:
    """Return what is hidden in a folder of runs, without what is particular to one run."""
    found = (path.relative_to(folder).as_posix() for path in folder.glob("runs/**/.*"))
    return {re.sub(r"\d{4}-\d\d-\d\dT[\d-]+-[0-9a-f]+|[0-9a-f]{8,}|\d{8}T\d{6}", "*", name) for name in found}


def inspect(
    folder: Path, before: Mapping[Path, tuple[int, bytes]], usual: set[str], *, is_night: bool
) -> dict[str, list[str]]:
    """Return what is wrong with a trial's runs, by kind."""
    faults: dict[str, list[str]] = {kind: [] for kind in FAULTS}
    runs = run_folders(folder)
    if len(runs) != 1:
        faults["doubled"].append(f"{len(runs)} runs" + (" of one night" if is_night else ""))
    for run in runs:
        records = run.records()
        faults["lost"] += [item.id for item in run.items() if getattr(records.get(item.id), "status", "") != "done"]
        files = Counter(path.stem for path in run.result_files() if path.suffix == ".png")
        faults["doubled"] += [item_id for item_id, count in files.items() if count > 1]
        faults["not clean"] += [str(flaw) for flaw in verify(run)]
        faults["left behind"] += [f"lease of {item_id}" for item_id in holdings(run)]
    now = finished(folder)
    faults["lost"] += [path.stem for path in before if path not in now]
    faults["doubled"] += [path.stem for path, known in before.items() if path in now and now[path] != known]
    faults["left behind"] += sorted(hidden(folder) - usual)
    return {kind: found for kind, found in faults.items() if found}


@contextmanager
def benches(ways: list[Way], root: Path) -> Iterator[list[Bench]]:
    """Set up every way; with a cluster where Slurm is meant."""
    with ExitStack() as stack:
        made = []
        for number, way in enumerate(ways):
            environ: Mapping[str, str] = {}
            if way.launch["kind"] == "slurm":
                environ = stack.enter_context(running()).environ
            made.append(Bench(way, root / f"way-{number}", environ))
            print(f"{way.name}: {made[-1].operations} file operations", file=sys.stderr, flush=True)
        yield made


def measure(ways: list[Way], kills: int, seed: int, jobs: int, root: Path) -> list[Trial]:
    """Make the trials, `jobs` at a time."""
    total = sum(way.share for way in ways)
    trials: list[Trial] = []
    with benches(ways, root) as made, ThreadPoolExecutor(jobs) as pool:
        calls = [
            partial(bench.trial, number, seed)
            for bench in made
            for number in range(max(1, round(kills * bench.way.share / total)))
        ]
        for trial in pool.map(lambda call: call(), calls):
            trials.append(trial)
            if trial.faults:
                print(f"{len(trials)}/{len(calls)} {trial}", file=sys.stderr, flush=True)
            elif len(trials) % 20 == 0:
                print(f"{len(trials)}/{len(calls)}", file=sys.stderr, flush=True)
    return trials


def table(trials: list[Trial]) -> str:
    """Return the table of docs/reliability.md."""
    lines = ["| killed | kills | " + " | ".join(FAULTS) + " |", "|---|---|" + "---|" * len(FAULTS)]
    names = dict.fromkeys(trial.way for trial in trials)
    for name in [*names, "all"]:
        found = [trial for trial in trials if trial.died and name in (trial.way, "all")]
        counts = [sum(kind in trial.faults for trial in found) for kind in FAULTS]
        lines.append(f"| {name} | {len(found)} | " + " | ".join(str(count) for count in counts) + " |")
    return "\n".join(lines)


def main() -> int:
    """Measure, print the table, and fail when anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--ways", default="", help="parts of their names, separated by commas; all when empty")
    parser.add_argument("--json", type=Path, help="a file for every trial")
    parser.add_argument("--keep", type=Path, help="a folder, not there yet, in which trials with faults stay")
    given = parser.parse_args()
    ways = [way for way in WAYS if any(part in way.name for part in given.ways.split(","))]
    lacking = missing(accounting=False)
    if lacking and any(way.launch["kind"] == "slurm" for way in ways):
        parser.error(f"no {', '.join(lacking)}: name other --ways")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="kills-") as temporary:
        trials = measure(ways, given.kills, given.seed, given.jobs, given.keep or Path(temporary))
    if given.json:
        given.json.write_text(json.dumps([asdict(trial) for trial in trials], indent=1))
    print(table(trials))
    return int(any(trial.faults for trial in trials))


if __name__ == "__main__":
    sys.exit(main())
