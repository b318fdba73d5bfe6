"""What `genrun doctor` does for vbench: makes its environment, lists its weights."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.adapters.scorers.vbench.environment import vbench_home, vbench_python, vbench_weights
from genrun.runner.cli.output import put, put_json, say
from genrun.runner.errors import RunError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from genrun.adapters.scorers.vbench.dimensions import Dimension

HELLO_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class DimensionWeights:
    """What a dimension of vbench needs, and what of it is there.

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


def install_vbench(base: Path, python: str | None, dry_run: bool) -> None:
    """Make vbench's environment beside the runs, or say what that takes.

    Raises:
        UsageError: there is no Python that vbench works with.
        RunError: it could not be made, or does not work.
    """
    from genrun.adapters.scorers.vbench.install import COSTS, InstallError, make, plan

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


def list_weights(base: Path, as_json: bool) -> None:
    """List all 16 dimensions, with the weights that each needs and what of them is there."""
    from genrun.adapters.scorers.vbench.dimensions import DIMENSIONS

    python = vbench_python(base)
    folder = vbench_weights()
    environment = _environment(python, folder, base)
    rows = [_weights(dimension, environment) for dimension in DIMENSIONS.values()]
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


def _weights(dimension: Dimension, environment: Mapping[str, Any]) -> DimensionWeights:
    from genrun.adapters.scorers.vbench.measurer import missing

    lacking = tuple(missing(dimension, environment))
    paths = [Path(environment["cache"]) / weights.path for weights in dimension.needs]
    return DimensionWeights(dimension.name, not lacking, tuple(str(path) for path in paths if path.exists()), lacking)


def _environment(python: Path | None, folder: Path, base: Path) -> Mapping[str, Any]:
    """What vbench's environment says of itself; without one, the folder of weights alone."""
    if python is None:
        say("vbench itself is not installed: genrun doctor --install vbench.")
        return {"cache": str(folder)}
    return {**_hello(python, vbench_home(base).parent / ".vbench.log"), "cache": str(folder)}


def _hello(python: Path, log: Path) -> Mapping[str, Any]:
    from genrun.adapters.scorers.contract import UnscoredError
    from genrun.adapters.scorers.vbench.measurer import Measurer
    from genrun.adapters.scorers.vbench.process import Bridge

    bridge = Bridge(python, log)
    try:
        return Measurer(bridge, "cpu", None, HELLO_TIMEOUT_S, log.parent).hello()
    except UnscoredError as error:
        raise RunError(str(error), remedy="genrun doctor --install vbench -n prints how to make another.") from error
    finally:
        bridge.close()
