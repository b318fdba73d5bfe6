"""kill -9 at random file operations, and whether the same command again makes the run whole.

    python -m tests.bench.kills --kills 1000            # about an hour on two cores; --json FILE keeps every trial
    python -m tests.bench.kills --kills 40 --ways inline,score

A trial starts a command (`submit` inline, under torchrun or on a real Slurm, `score`, `report`, `compare`, `pin`, `export`,
`nightly`), kills one of its processes before a file operation in the folder of runs, or in the middle of a write, drawn by
seed from all that the command makes (`tests/fakes/killer` lists them). Then the same command runs again, unharmed, and
everything that is there is held against what the command makes where nothing is killed:

    lost         an item that is not done, or a file (result, scores, page, export) that is missing or not what it should be
    doubled      a second run, a second array in Slurm's queue, or an item that was done and is made again
    left behind  any file or folder that there is not where nothing was killed, or a lease
    not clean    `genrun verify` finds something
    failed       the command does not end as it should

Workers are those of tests/fakes, which need no torch; store, queue, launchers and commands are the real ones.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from genrun.runner.errors import GenrunError
from genrun.runner.history import read as read_history
from genrun.runner.store.folder import RunFolder, is_run
from genrun.runner.store.lease import holdings
from genrun.runner.store.scores import SCORE_FIELDS
from genrun.runner.store.verify import verify
from tests.fakes.killer.sitecustomize import TOKEN_SUFFIX, VARIABLE
from tests.fakes.metrics import publish
from tests.slurm.cluster import missing, running

ROOT = Path(__file__).parents[2]
FAKES = ROOT / "tests" / "fakes"
CLI = str(FAKES / "cli.py")
KILLER = FAKES / "killer"
TIMEOUT_S = 300
DRAWS = 8
"""How often a kill is drawn again that nothing met: an operation of a process that ended sooner this time."""

FAULTS = ("lost", "doubled", "left behind", "not clean", "failed")

JOB = {
    "name": "kill",
    "model": "test/fake",
    "prompts": ["one", "two", "three"],
    "matrix": {"solver": ["sequential", {"kind": "ropa", "workers": 4}]},
    "output": {"save_latents": True},
    "score": ["mean_byte", "same_bytes"],
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
    """

    name: str
    command: tuple[str, ...]
    share: int
    launch: Mapping[str, Any] = field(default_factory=lambda: {"kind": "inline"})
    roles: tuple[str, ...] = ("command",)
    prepare: tuple[tuple[str, ...], ...] = ()


SUBMIT = ("submit", "job.yaml")
SCORE = ("score", "kill")
WAYS = (
    Way("submit, inline", SUBMIT, 44, roles=("command", "worker")),
    Way("submit, torchrun", SUBMIT, 8, {"kind": "torchrun", "processes": 2}, ("command", "worker")),
    Way("submit, Slurm", (*SUBMIT, "--wait"), 8, SLURM, ("command", "worker")),
    Way("score", SCORE, 12, prepare=(SUBMIT,)),
    Way("report", ("report", "kill"), 10, prepare=(SUBMIT, SCORE)),
    Way(
        "compare", ("compare", "kill", "--drift", "same_bytes", "--junit", "runs/junit.xml"), 4, prepare=(SUBMIT, SCORE)
    ),
    Way("pin", ("pin", "kill"), 2, prepare=(SUBMIT,)),
    Way("export", ("export", "kill", "--to", "runs-exported", "--csv"), 4, prepare=(SUBMIT, SCORE)),
    Way("nightly", ("nightly", "job.yaml"), 14, roles=("command", "worker")),
)


@dataclass(frozen=True)
class Trial:
    """What came of one kill.

    Attributes:
        way: the command.
        role: of the process that was to die.
        at: the operation before which it died.
        killed: that operation; "" when nothing died.
        faults: what was found afterwards, by kind.
    """

    way: str
    role: str
    at: int
    killed: str
    faults: dict[str, list[str]]


class Bench:
    """Runs trials of one way in folders of their own."""

    def __init__(self, way: Way, root: Path, environ: Mapping[str, str]) -> None:
        self.way, self.root, self.environ = way, root, environ
        self.plugins = root / "plugins"
        publish(self.plugins)
        self.model = root / "model"
        self.model.mkdir(parents=True)
        (self.model / "job.yaml").write_text(yaml.safe_dump({**JOB, "launch": dict(way.launch)}))
        for arguments in way.prepare:
            self._must(self.model, arguments)
        whole = self._copy("whole")
        self.operations = self._count(whole)
        # What a repeat makes of a whole run (locks, notes of the second call) is no fault.
        self._must(whole, way.command)
        self.known = contents(whole)

    def trial(self, number: int, seed: int) -> Trial:
        """Kill at an operation drawn by seed, run again, and look."""
        drawn = random.Random(f"{seed} {self.way.name} {number}")
        for draw in range(DRAWS):
            role = drawn.choice(self.way.roles)
            at = drawn.randint(1, self.operations[role])
            folder = self._copy(f"trial-{number}-{draw}")
            token = folder / "token"
            token.touch()
            self._run(folder, self.way.command, self._killer(folder, role, at, token))
            used = token.with_name(f"{token.name}{TOKEN_SUFFIX}")
            killed = used.read_text() if used.exists() else ""
            if killed:
                break
            shutil.rmtree(folder)
        else:
            raise RuntimeError(f"{self.way.name}: nothing died in {DRAWS} tries")
        before = finished(folder)
        again = self._run(folder, self.way.command)
        try:
            faults = inspect(folder, before, self.known)
        except GenrunError as error:
            faults = {"not clean": [str(error)]}
        if again.returncode:
            faults["failed"] = [f"exit code {again.returncode}: {again.stderr[-600:]}"]
        if role == "command" and self.way.launch["kind"] == "slurm" and (arrays := self._arrays(folder)) != 1:
            faults.setdefault("doubled", []).append(f"{arrays} arrays in Slurm's queue")
        if not faults:
            shutil.rmtree(folder)
        return Trial(self.way.name, role, at, killed.replace(str(folder), ""), faults)

    def _arrays(self, folder: Path) -> int:
        """Count the arrays that were submitted from a folder, also those that have ended."""
        listed = subprocess.run(
            ["squeue", "--states=all", "--noheader", "--format=%F %Z"],
            env={**os.environ, **self.environ},
            capture_output=True,
            text=True,
            check=True,
            timeout=TIMEOUT_S,
        )
        found = (line.split(None, 1) for line in listed.stdout.splitlines())
        return len({job for job, workdir in found if Path(workdir).is_relative_to(folder)})

    def _copy(self, name: str) -> Path:
        folder = self.root / name
        shutil.copytree(self.model, folder, symlinks=True)
        return folder

    def _count(self, folder: Path) -> dict[str, int]:
        """Count the operations of each role's busiest process in an unharmed run."""
        self._must(folder, self.way.command, self._killer(folder, "any", 0, folder / "token"))
        found = dict.fromkeys(self.way.roles, 0)
        for path in (folder / "counts").iterdir():
            role = path.name.partition(".")[0]
            found[role] = max(found.get(role, 0), int(path.read_text()))
        if lacking := [role for role in self.way.roles if not found[role]]:
            raise RuntimeError(f"{self.way.name}: no file operations of a {lacking[0]} were seen")
        return {role: found[role] for role in self.way.roles}

    def _killer(self, folder: Path, role: str, at: int, token: Path) -> dict[str, str]:
        (folder / "counts").mkdir(exist_ok=True)
        plan = {
            "scope": str(folder / "runs"),
            "role": role,
            "at": at,
            "token": str(token),
            "counts": str(folder / "counts"),
        }
        return {VARIABLE: json.dumps(plan), "PYTHONPATH": os.pathsep.join(map(str, (KILLER, ROOT, self.plugins)))}

    def _must(self, folder: Path, arguments: tuple[str, ...], extra: Mapping[str, str] | None = None) -> None:
        ran = self._run(folder, arguments, extra)
        if ran.returncode:
            raise RuntimeError(f"genrun {' '.join(arguments)}: exit code {ran.returncode}\n{ran.stdout}\n{ran.stderr}")

    def _run(
        self, folder: Path, arguments: tuple[str, ...], extra: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        environ = {
            **os.environ,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{self.plugins}",
            "OMP_NUM_THREADS": "1",
            **self.environ,
            **(extra or {}),
        }
        process = subprocess.Popen(
            [sys.executable, CLI, *arguments],
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            stdout, stderr = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            # To hang is a fault, too.
            process.kill()
            stdout, stderr = process.communicate()
            stderr += f"\nno end in {TIMEOUT_S} s"
        return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)


def run_folders(folder: Path) -> list[RunFolder]:
    """Return the runs of a trial."""
    return [RunFolder.open(path) for path in sorted(folder.glob("runs/kill/2*")) if is_run(path)]


def finished(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """Return the files of records that are there, each with its time and content."""
    records = sorted(folder.glob("runs/kill/2*/items/*/[0-9a-f]*.json"))
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in records}


def contents(folder: Path) -> dict[str, str]:
    """Return everything below the folders of runs and exports by name, with a digest where it is always the same.

    Folders of runs are named alike. Of logs only what does not belong there counts, as a launch more has its own.
    """
    found = {}
    for path in sorted(path for top in folder.glob("runs*") for path in top.rglob("*")):
        name = path.relative_to(folder).as_posix()
        is_log = "/logs/" in name and not path.name.startswith(".") and not re.search(r"\btmp\b", path.name)
        if not is_log:
            found[re.sub(r"\d{4}-\d\d-\d\dT[\d-]+-[0-9a-f]+", "RUN", name)] = digest(path)
    return found


def digest(path: Path) -> str:
    """Say what is in a file, as far as that is the same in every run of the job."""
    if path.is_symlink() or path.is_dir():
        return "link" if path.is_symlink() else "folder"
    if path.parent.name == "scores" and path.suffix == ".jsonl":
        try:
            rows = [json.loads(line) for line in path.read_text().splitlines()]
        except ValueError:
            return "no JSON"
        return json.dumps([[row[name] for name in (*SCORE_FIELDS, "inputs")] for row in rows])
    if path.suffix == ".html":
        return f"a page, {'whole' if path.read_text().rstrip().endswith('</html>') else 'cut off'}"
    if path.name == "history.sqlite3":
        return json.dumps(
            [(night.job, night.state, night.done, len(night.measures)) for night in read_history(path.parent)]
        )
    if path.suffix in (".png", ".safetensors") or path.name == "plan.jsonl":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    if "runs-exported" in path.parts:
        return str(len(path.read_bytes().splitlines()))
    return ""


def inspect(folder: Path, before: Mapping[Path, tuple[int, bytes]], known: Mapping[str, str]) -> dict[str, list[str]]:
    """Return what is wrong with a trial, by kind.

    Args:
        folder: of the trial.
        before: records that were there when the command was killed.
        known: `contents` of a folder in which nothing was killed.
    """
    faults: dict[str, list[str]] = {kind: [] for kind in FAULTS}
    runs = run_folders(folder)
    if len(runs) != 1:
        faults["doubled"].append(f"{len(runs)} runs")
    for run in runs:
        records = run.records()
        faults["lost"] += [
            item.id for item in run.plan().items if getattr(records.get(item.id), "status", "") != "done"
        ]
        faults["not clean"] += [str(flaw) for flaw in verify(run)]
        faults["left behind"] += [f"lease of {item_id}" for item_id in holdings(run)]
    now, there = finished(folder), contents(folder)
    faults["doubled"] += [path.stem for path, known_as in before.items() if path in now and now[path] != known_as]
    faults["lost"] += [name for name in known if name not in there]
    faults["lost"] += [f"{name}: {there[name]}" for name in known if there.get(name, known[name]) != known[name]]
    faults["left behind"] += [name for name in there if name not in known]
    return {kind: found for kind, found in faults.items() if found}


@contextmanager
def benches(ways: Sequence[Way], root: Path) -> Iterator[list[Bench]]:
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


def measure(made: Sequence[Bench], kills: int, seed: int, jobs: int) -> list[Trial]:
    """Make the trials, `jobs` at a time, all ways mixed."""
    total = sum(bench.way.share for bench in made)
    calls = [
        partial(bench.trial, number, seed)
        for bench in made
        for number in range(max(1, round(kills * bench.way.share / total)))
    ]
    random.Random(seed).shuffle(calls)
    trials: list[Trial] = []
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for done in as_completed([pool.submit(call) for call in calls]):
                trials.append(trial := done.result())
                if trial.faults or len(trials) % 20 == 0:
                    note = f" {trial}" if trial.faults else ""
                    print(f"{len(trials)}/{len(calls)}{note}", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            pass  # whoever stops it gets the table of what there is
        finally:
            pool.shutdown(cancel_futures=True)
    return trials


def table(trials: list[Trial]) -> str:
    """Return the table of docs/reliability.md."""
    lines = ["| killed | kills | " + " | ".join(FAULTS) + " |", "|---|---|" + "---|" * len(FAULTS)]
    tried = {trial.way for trial in trials}
    for name in [*(way.name for way in WAYS if way.name in tried), "all"]:
        found = [trial for trial in trials if name in (trial.way, "all")]
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
    with (
        tempfile.TemporaryDirectory(prefix="kills-") as temporary,
        benches(ways, given.keep or Path(temporary)) as made,
    ):
        trials = measure(made, given.kills, given.seed, given.jobs)
    if given.json:
        given.json.write_text(json.dumps([asdict(trial) for trial in trials], indent=1))
    print(table(trials))
    return int(any(trial.faults for trial in trials))


if __name__ == "__main__":
    sys.exit(main())
