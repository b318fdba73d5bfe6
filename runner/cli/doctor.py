"""`genrun doctor`: checks of this machine, each with its fix; and the environment and weights of vbench."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrun.adapters.scorers.vbench.environment import VBENCH_PYTHON, vbench_home, vbench_python, vbench_weights
from genrun.runner.cli.base import Verb, runs_option
from genrun.runner.cli.output import json_option, put, put_json, say
from genrun.runner.errors import RunError, UsageError

if TYPE_CHECKING:
    from genrun.adapters.scorers.vbench.dimensions import Dimension

MIN_PYTHON = (3, 11)
MIN_FREE_GIB = 5
PROBE_TIMEOUT_S = 300
HELLO_TIMEOUT_S = 600.0
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")

# Runs in a process of its own: this one must not import torch, and a broken library must not end the report.
PROBE = """
import json
found = {}
def probe(name, look):
    try:
        found[name] = {"ok": True, "found": look()}
    except BaseException as error:
        found[name] = {"ok": False, "found": f"{type(error).__name__}: {error}"}
def version(name):
    return lambda: __import__(name).__version__
def device():
    import torch
    if not torch.cuda.is_available():
        return f"cpu, {torch.get_num_threads()} threads"
    count, memory = torch.cuda.device_count(), torch.cuda.get_device_properties(0).total_memory
    return f"{count} x {torch.cuda.get_device_name(0)}, {memory / 2**30:.0f} GiB"
def gloo():
    import torch.distributed as dist
    if not (dist.is_available() and dist.is_gloo_available()):
        raise RuntimeError("torch.distributed has no gloo backend")
    return "nccl, gloo" if dist.is_nccl_available() else "gloo"
def libx264():
    import av
    av.codec.Codec("libx264", "w")
    return f"PyAV {av.__version__}"
for name in ("torch", "diffusers", "transformers"):
    probe(name, version(name))
probe("device", device)
probe("ranks", gloo)
probe("libx264", libx264)
print(json.dumps(found))
"""

FIXES = {
    "torch": "pip install torch",
    "diffusers": "pip install --upgrade diffusers",
    "transformers": "pip install --upgrade transformers",
    "device": "install a torch build for this machine's driver: https://pytorch.org/get-started/locally",
    "ranks": "install a torch build with distributed support; until then use `launch: inline`",
    "libx264": "pip install --force-reinstall av; until then use `output: {format: png}`",
}


@dataclass(frozen=True)
class Finding:
    """Finding about this machine.

    Attributes:
        name: what.
        ok: whether it will do.
        found: version, size or error.
        fix: the command or change that helps, or "".
        needed: whether genrun cannot do without it.
    """

    name: str
    ok: bool
    found: str
    fix: str = ""
    needed: bool = True

    def __str__(self) -> str:
        mark = "ok  " if self.ok else "FAIL" if self.needed else "note"
        fix = "" if self.ok or not self.fix else f"\n      fix: {self.fix}"
        return f"{mark}  {self.name}: {self.found}{fix}"


@dataclass(frozen=True)
class DimensionWeights:
    """Weights that a dimension of vbench needs, and which of them are there.

    Attributes:
        dimension: its name.
        ready: whether nothing is lacking.
        there: files that are there.
        lacking: what is not, each with where it goes and where it comes from.
    """

    dimension: str
    ready: bool
    there: tuple[str, ...]
    lacking: tuple[str, ...]


@click.command(
    cls=Verb,
    examples=(
        "genrun doctor",
        "genrun doctor --install vbench -n",
        "genrun doctor --weights vbench",
        "genrun doctor --json",
    ),
)
@click.option("--install", type=click.Choice(["vbench"]), help="Make the environment of a tool that needs its own.")
@click.option("-n", "--dry-run", is_flag=True, help="With --install: say what would be done, and what it takes.")
@click.option("--python", "interpreter", metavar="PATH", help="With --install: the Python to make it of.")
@click.option("--weights", type=click.Choice(["vbench"]), help="List the weights of a tool, with what is there.")
@runs_option
@json_option
def doctor(
    install: str | None, dry_run: bool, interpreter: str | None, weights: str | None, base: Path, as_json: bool
) -> None:
    """Check this machine; each failing line names its fix.

    Exit code 1 if something that genrun needs is missing. A `note` is about something optional.
    """
    if install or weights:
        if install:
            _install_vbench(base, interpreter, dry_run)
        if weights:
            _list_weights(base, as_json)
        return
    findings = [
        _python(),
        *_libraries(probe()),
        *packages(),
        *_weights(),
        *_launchers(),
        _disk(base),
        _browser(),
        _vbench(base),
    ]
    if as_json:
        put_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            put(str(finding))
    if any(finding.needed and not finding.ok for finding in findings):
        raise click.exceptions.Exit(1)


def probe(program: str = PROBE) -> Mapping[str, Mapping[str, Any]]:
    """Look at the heavy libraries in a process of its own.

    Returns:
        Name -> {"ok": bool, "found": text}; for every name an error when the process gave no answer.
    """
    try:
        ran = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False
        )
        return json.loads(ran.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError) as error:
        reason = f"looking for it failed: {type(error).__name__}"
        return {name: {"ok": False, "found": reason} for name in FIXES}


def _libraries(found: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    return [Finding(name, found[name]["ok"], str(found[name]["found"]), fix) for name, fix in FIXES.items()]


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    wanted = ".".join(str(part) for part in MIN_PYTHON)
    return Finding("python", sys.version_info >= MIN_PYTHON, version, f"use Python {wanted} or newer")


def packages() -> list[Finding]:
    """Compare what is installed with what genrun needs: of the packages of an extra, those that are there.

    An older one may import and yet give other pictures or colours.
    """
    from packaging.requirements import Requirement

    try:
        needs = [Requirement(line) for line in metadata.requires("genrun") or ()]
    except metadata.PackageNotFoundError:
        return [
            Finding(
                "packages",
                ok=False,
                found="genrun itself is not installed, so that its needs are not known",
                fix="pip install .",
                needed=False,
            )
        ]
    findings, count = list[Finding](), 0
    for wanted in needs:
        needed = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            version = None
        if version is not None and wanted.specifier.contains(version, prereleases=True):
            count += 1
        elif version is not None or needed:
            found = f"{version or 'not installed'}, and genrun needs {wanted.specifier or 'it'}"
            findings.append(
                Finding(wanted.name, False, found, f"pip install '{wanted.name}{wanted.specifier}'", needed)
            )
    return findings or [Finding("packages", True, f"{count}, none too old", "pip install --upgrade genrun")]


def _weights() -> list[Finding]:
    from genrun.runner.job.options import Registries

    adapters = Registries.installed().adapters
    findings = []
    for name in adapters.names():
        folder = adapters.get(name).checkpoint
        if isinstance(folder, Path):
            there = (folder / "model_index.json").is_file()
            found = "packaged" if there else f"not in {folder}"
            findings.append(Finding(f"weights of {name}", there, found, "reinstall genrun", needed=False))
    return findings


def _launchers() -> list[Finding]:
    from genrun.runner.launch.jobs import doctor as examine

    return [Finding(check.name, check.ok, check.found, check.fix, needed=False) for check in examine(os.environ)]


def _disk(runs: Path) -> Finding:
    """Look at the disk of the folder of runs, or of the nearest folder above it that is there."""
    folder = next(path for path in (runs.absolute(), *runs.absolute().parents) if path.is_dir())
    free_gib = shutil.disk_usage(folder).free / 2**30
    fix = f"free {MIN_FREE_GIB} GiB, or set output.dir to another disk"
    return Finding("disk", free_gib >= MIN_FREE_GIB, f"{free_gib:.1f} GiB free for {runs}", fix, needed=False)


def _browser() -> Finding:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    fix = "apt install chromium (only the tests of reports use it)"
    return Finding("chromium", found is not None, found or "not found", fix, needed=False)


def _vbench(base: Path) -> Finding:
    from genrun.adapters.scorers.vbench.environment import vbench_python

    python = vbench_python(base)
    there = python is not None and python.exists()
    fix = f"genrun doctor --install vbench, or {VBENCH_PYTHON}=/path/to/python (only the metric vbench uses it)"
    found = f"environment {python}" if there else f"there is no {python}" if python else "no environment for it"
    return Finding("vbench", there, found, fix, needed=False)


def _install_vbench(base: Path, python: str | None, dry_run: bool) -> None:
    """Make vbench's environment beside the runs, or say what that takes.

    Raises:
        UsageError: there is no Python that vbench works with.
        RunError: it could not be made, or does not work.
    """
    from genrun.adapters.scorers.vbench.environment import COSTS, InstallError, make, plan

    home = vbench_home(base)
    try:
        wanted = plan(home, python)
    except InstallError as error:
        raise UsageError(str(error)) from error
    say(f"vbench in {home}: {COSTS}.")
    for command in wanted.commands:
        put(shlex.join(command))
    if dry_run:
        return
    try:
        make(wanted)
    except InstallError as error:
        raise RunError(str(error)) from error
    hello = _hello(wanted.python, home / "doctor.log")
    say(f"vbench {hello['version']} with torch {hello['torch']} is ready: genrun score --metrics vbench")


def _list_weights(base: Path, as_json: bool) -> None:
    """List all dimensions, with the weights that each needs and those that are installed."""
    from genrun.adapters.scorers.vbench.dimensions import ALL

    python = vbench_python(base)
    folder = vbench_weights()
    environment = _vbench_environment(python, folder, base)
    rows = [_weights_of(dimension, environment) for dimension in ALL.values()]
    if as_json:
        put_json([asdict(row) for row in rows])
        return
    say(f"vbench's weights lie in {environment['cache']} (VBENCH_CACHE_DIR).")
    for row in rows:
        put(
            f"{'ok  ' if row.ready else 'note'}  {row.dimension}{'' if row.there or row.lacking else ': needs no weights'}"
        )
        for path in row.there:
            put(f"      there:   {path}")
        for text in row.lacking:
            put(f"      lacking: {text}")


def _weights_of(dimension: Dimension, environment: Mapping[str, Any]) -> DimensionWeights:
    from genrun.adapters.scorers.vbench.measurer import missing

    lacking = tuple(missing(dimension, environment))
    paths = [Path(environment["cache"]) / weights.path for weights in dimension.needs]
    return DimensionWeights(dimension.name, not lacking, tuple(str(path) for path in paths if path.exists()), lacking)


def _vbench_environment(python: Path | None, folder: Path, base: Path) -> Mapping[str, Any]:
    """Return what vbench's environment says of itself; without one, the folder of weights alone."""
    if python is None:
        say("vbench itself is not installed: genrun doctor --install vbench.")
        return {"cache": str(folder)}
    return {**_hello(python, vbench_home(base).parent / ".vbench.log"), "cache": str(folder)}


def _hello(python: Path, log: Path) -> Mapping[str, Any]:
    from genrun.adapters.scorers.contract import UnscoredError
    from genrun.adapters.scorers.vbench.measurer import VBenchMeasurer
    from genrun.adapters.scorers.vbench.process import Bridge

    bridge = Bridge(python, log)
    try:
        return VBenchMeasurer(bridge, "cpu", None, HELLO_TIMEOUT_S, log.parent).hello()
    except UnscoredError as error:
        raise RunError(str(error), remedy="genrun doctor --install vbench -n prints how to make another.") from error
    finally:
        bridge.close()
