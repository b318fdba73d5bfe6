"""Measurement of VBench's dimensions on samples; failures are told by dimension and video."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrun.adapters.scorers.contract import Sample, UnscoredError
from genrun.adapters.scorers.vbench.dimensions import ALL, Dimension
from genrun.adapters.scorers.vbench.process import Bridge, BridgeError
from genrun.adapters.scorers.vbench.video_folder import MODES, PAIRS, Staged, stage, stage_pairs

# Importing vbench reads gigabytes, perhaps from a network file system.
START_TIMEOUT_S = 600.0

# Videos that a message names.
SHOWN = 5

PACKAGES = {
    "detectron2": "it is not on PyPI; its README tells how to build it",
    "dreamsim": "PYTHON -m pip install dreamsim==0.1.3, where PYTHON is that environment's",
}
"""Packages that `pip install vbench` does not bring, and the way to each."""


@dataclass(frozen=True)
class DimensionResult:
    """The result of a dimension.

    Attributes:
        value: as vbench averages it; None when it failed, or gave something for a part of the videos only.
        reason: why there is no value, or what is to be known of it.
        items: sample name -> its number, or the reason why there is none.
    """

    value: float | None
    reason: str | None
    items: Mapping[str, float | str]


@dataclass
class VBenchMeasurer:
    """Measures dimensions, one after the other, with one process as long as that lives.

    Attributes:
        bridge: to vbench's Python.
        device: where vbench runs.
        cache: vbench's folder of weights, or None for its own default.
        timeout_s: the longest silence.
        workspace: a folder for links and results.
    """

    bridge: Bridge
    device: str
    cache: Path | None
    timeout_s: float
    workspace: Path

    def hello(self) -> Mapping[str, Any]:
        """Return what the environment says of itself; starts the process if there is none.

        Raises:
            UnscoredError: it does not start.
        """
        if not self.bridge.alive:
            modules = sorted({name for dimension in ALL.values() for name in dimension.modules})
            hub = sorted({name for dimension in ALL.values() for name in dimension.hub})
            about = {"cache": str(self.cache) if self.cache else None, "modules": modules, "hub": hub}
            try:
                self.bridge.start(about, max(self.timeout_s, START_TIMEOUT_S))
            except BridgeError as error:
                raise UnscoredError(f"vbench: {error}") from error
        return self.bridge.hello

    def measure(
        self, dimension: Dimension, samples: Sequence[Sample], suite: Sequence[Mapping[str, Any]], full_info: Path
    ) -> DimensionResult:
        """Measure a dimension; `suite` is empty for custom prompts."""
        if not suite and not dimension.custom:
            return DimensionResult(None, "vbench measures it on its own prompts only: prompts: {suite: vbench}", {})
        try:
            lacking = missing(dimension, self.hello())
        except UnscoredError as error:
            return DimensionResult(None, str(error), {})
        if lacking:
            return DimensionResult(None, f"{dimension.name} needs what is not there: {'; '.join(lacking)}", {})
        folder = self.workspace / dimension.name
        compares = dimension.kind == "i2v"
        if compares:
            own = [entry for entry in suite if dimension.name in entry["dimension"]]
            staged, full_info = stage_pairs(samples, dimension.name, own, folder), folder / PAIRS
        else:
            staged = stage(samples, dimension.name, suite, folder / "videos")
        if not staged.items:
            why = f"no sample is of one of the {staged.planned} prompts of this dimension"
            return DimensionResult(
                None, "no sample has a start image" if compares and not staged.planned else why, staged.refused
            )
        request = {
            "dimension": dimension.name,
            "pairs": compares,
            "device": self.device,
            "folder": str(staged.folder),
            "mode": MODES["standard" if suite else "custom"],
            "prompts": staged.prompts,
            "full_info": str(full_info),
            "out": str(folder / "out"),
        }
        return self._asked(dimension, staged, request)

    def _asked(self, dimension: Dimension, staged: Staged, request: Mapping[str, Any]) -> DimensionResult:
        at = ""
        try:
            for event in self.bridge.ask(request, self.timeout_s):
                if event["event"] == "video":
                    at = Path(event["path"]).name
                elif event["event"] == "error":
                    return _failed(dimension, staged, at, f"{event.get('kind')}: {event.get('message')}")
                elif event["event"] == "result":
                    return judged(dimension, staged, event)
        except BridgeError as error:
            return _failed(dimension, staged, at, str(error))
        return _failed(dimension, staged, at, "no answer")


def missing(dimension: Dimension, hello: Mapping[str, Any]) -> list[str]:
    """List what a dimension lacks in an environment, each with where it goes and where it comes from."""
    cache = Path(hello["cache"])
    files = [
        f"{cache / weights.path} (from {weights.source})"
        for weights in dimension.needs
        if not (cache / weights.path).exists()
    ]
    modules = [
        f"the package {name} in vbench's environment ({PACKAGES[name]})"
        for name in dimension.modules
        if name not in hello.get("modules", ())
    ]
    hub = [
        f"{name} in the Hugging Face cache (huggingface-cli download {name})"
        for name in dimension.hub
        if name not in hello.get("hub", ())
    ]
    return files + modules + hub


def judged(dimension: Dimension, staged: Staged, answer: Mapping[str, Any]) -> DimensionResult:
    """Check an answer: a finite number for every video, and a finite average."""
    found: dict[str, Any] = {Path(path).name: value for path, value in answer.get("videos") or ()}
    items: dict[str, float | str] = dict(staged.refused)
    wrong = []
    for name, sample in staged.items.items():
        value = found.get(name)
        if isinstance(value, int | float) and math.isfinite(value):
            items[sample] = value / dimension.unit
        else:
            said = "nothing" if name not in found else str(value)
            items[sample] = f"{dimension.name}: vbench gave {said} for this video"
            wrong.append(sample)
    average = answer.get("average")
    if wrong:
        some = ", ".join(wrong[:SHOWN]) + (f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else "")
        count = f"{len(wrong)} of {len(staged.items)} videos"
        return DimensionResult(None, f"{dimension.name}: vbench gave no number for {count}: {some}", items)
    if not (isinstance(average, int | float) and math.isfinite(average)):
        return DimensionResult(None, f"{dimension.name}: vbench's average is {average}", items)
    return DimensionResult(float(average), _coverage(staged), items)


def _coverage(staged: Staged) -> str | None:
    """Say how much of the suite a number is of, when not every prompt has its five samples."""
    wanted = staged.planned * 5
    if len(staged.items) >= wanted:
        return None
    return f"over {len(staged.items)} of the suite's {wanted} videos: not comparable with the leaderboard"


def _failed(dimension: Dimension, staged: Staged, at: str, why: str) -> DimensionResult:
    """Return the result of a dimension that failed, perhaps at a video."""
    sample = staged.items.get(at)
    where = f" at {sample}" if sample else ""
    message = f"{dimension.name} failed{where}: {why}"
    items: dict[str, float | str] = dict(staged.refused)
    if sample:
        items[sample] = message
    return DimensionResult(None, message, items)
