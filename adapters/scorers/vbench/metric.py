"""VBench (Huang et al., 2024): 16 dimensions of video quality and of fit to the prompt, measured by vbench itself.

    vbench          = total   = (4 quality + semantic) / 5
    vbench.quality  = weighted mean of 7 scaled dimensions, vbench.semantic of 9
    vbench.<dimension>        = as vbench gives it, for every clip and for the set

See `adapters/scorers/vbench/dimensions.py` for ranges and weights. vbench runs in an environment of its own (`genrun doctor
--install vbench`), as a process that is asked for one dimension after the other. When every caption is one of VBench's own
prompts, its standard protocol is followed (five samples of each, by seed); otherwise its protocol for custom prompts, which
has ten of the dimensions.

`suite: i2v` is for clips that begin from a picture: i2v_subject and i2v_background of vbench2_beta_i2v, which compare them
with it, and the seven dimensions of quality.

All but temporal_flickering need weights: `genrun doctor --weights vbench` lists them.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from genrun.adapters.scorers._options import Device, device_of, identity
from genrun.adapters.scorers.contract import Sample, SetPart, UnscoredError
from genrun.adapters.scorers.vbench.dimensions import (
    ALL,
    CAMERA_MOTION,
    DIMENSIONS,
    I2V,
    I2V_SUITE,
    NO_TRACKER,
    combined,
)
from genrun.adapters.scorers.vbench.measurer import VBenchMeasurer
from genrun.adapters.scorers.vbench.process import Bridge
from genrun.adapters.scorers.vbench.video_folder import read_suite

NOT_THERE = (
    "vbench is not installed: genrun doctor --install vbench makes an environment for it; one that is there already is "
    "named by GENRUN_VBENCH_PYTHON"
)


@dataclass(frozen=True)
class VBenchOptions:
    """Options of `vbench`.

    Attributes:
        suite: t2v, or i2v for clips made from a picture: which dimensions there are by default.
        dimensions: which ones; all 16 of t2v, and all 9 of i2v that vbench's package can measure, by default.
        prompts: whether captions are VBench's own (standard) or others (custom); auto looks.
        full_info: VBench's list of prompts; the installed vbench's own by default.
        python: the interpreter of vbench's environment; GENRUN_VBENCH_PYTHON, or what doctor installed, by default.
        weights: the folder of weights; vbench's own (VBENCH_CACHE_DIR, ~/.cache/vbench) by default.
        device: where to run.
        timeout_s: the longest silence: a dimension that says nothing for so long is ended.
    """

    suite: Literal["t2v", "i2v"] = "t2v"
    dimensions: tuple[str, ...] | None = None
    prompts: Literal["auto", "standard", "custom"] = "auto"
    full_info: Path | None = None
    python: Path | None = None
    weights: Path | None = None
    device: Device = "auto"
    timeout_s: float = 1800.0

    def __post_init__(self) -> None:
        for name in self.measured:
            if name == CAMERA_MOTION:
                raise ValueError(f"dimensions: {NO_TRACKER}; leave it out")
            if name not in ALL:
                raise ValueError(f"dimensions: there is no {name!r}; there are: {', '.join(ALL)}")
        if not self.measured:
            raise ValueError("dimensions: wanted at least one")
        if self.timeout_s <= 0:
            raise ValueError("timeout_s: wanted more than 0")

    @property
    def measured(self) -> tuple[str, ...]:
        """The dimensions to measure."""
        return (
            self.dimensions if self.dimensions is not None else I2V_SUITE if self.suite == "i2v" else tuple(DIMENSIONS)
        )


@dataclass(frozen=True)
class VBenchMetric:
    """VBench's total, quality, semantic and dimensions."""

    options: VBenchOptions = field(default_factory=VBenchOptions)
    name: str = "vbench"
    version: int = 1
    title: str = "VBench"
    definition: str = (
        "VBench's total: four parts quality (7 dimensions) and one part semantic (9), each dimension scaled by the "
        "leaderboard's ranges; present only when all 16 were measured."
    )
    needs: str = "vbench's own environment"
    higher_is_better: bool = True
    style: Literal["number"] = "number"
    reads: Literal["media"] = "media"
    compares: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """The dimensions asked for."""
        return tuple(f"{self.name}.{dimension}" for dimension in self.options.measured)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The fields of a prompt, one of which a clip is compared with; none where it is not."""
        return ("image",) if set(self.options.measured) & set(I2V) else ()

    @property
    def settings(self) -> Mapping[str, Any]:
        """The options that decide values: the protocol and the list of prompts, not where things are."""
        full_info = self.options.full_info
        return {"prompts": self.options.prompts, "full_info": None if full_info is None else identity(full_info)}

    def measure_set(self, samples: Sequence[Sample], parts: Sequence[str], workspace: Path, /) -> Iterator[SetPart]:
        """Measure dimensions, each given as soon as vbench answers.

        Raises:
            UnscoredError: there is no vbench that works, or no clip that can be read.
        """
        if self.options.python is None:
            raise UnscoredError(NOT_THERE)
        broken = unreadable(samples)
        whole = [sample for sample in samples if sample.name not in broken]
        if not whole:
            raise UnscoredError(f"no clip can be read: {next(iter(broken.values()))}")
        bridge = Bridge(self.options.python, workspace / "vbench.log")
        workspace.mkdir(parents=True, exist_ok=True)
        try:
            # A folder of its own: other processes may measure other sets of the same run.
            _remove_folders_of_the_dead(workspace)
            with tempfile.TemporaryDirectory(dir=workspace, prefix=_prefix_of(os.getpid())) as folder:
                device = device_of(self.options.device)
                measurer = VBenchMeasurer(bridge, device, self.options.weights, self.options.timeout_s, Path(folder))
                full_info = self.options.full_info or Path(measurer.hello()["full_info"])
                suite = self._suite(whole, full_info)
                for part in parts:
                    dimension = ALL[part.partition(".")[2]]
                    result = measurer.measure(dimension, whole, suite, full_info)
                    yield SetPart(part, result.value, result.reason, {**result.items, **broken})
        finally:
            bridge.close()

    def combine(self, values: Mapping[str, float], /) -> Mapping[str, float]:
        """Return quality, semantic and total, of those whose dimensions are all there."""
        found = combined({name.partition(".")[2]: value for name, value in values.items()})
        return {self.name if name == "total" else f"{self.name}.{name}": value for name, value in found.items()}

    def _suite(self, samples: Sequence[Sample], full_info: Path) -> Sequence[Mapping[str, Any]]:
        """Return VBench's list of prompts when its standard protocol is to be followed, else nothing."""
        if self.options.prompts == "custom":
            return ()
        try:
            suite = read_suite(full_info)
        except ValueError as error:
            raise UnscoredError(str(error)) from error
        known = {entry["prompt_en"] for entry in suite}
        foreign = [sample for sample in samples if sample.caption not in known]
        if self.options.prompts == "standard" and len(foreign) == len(samples):
            raise UnscoredError(f"no caption is one of the {len(known)} prompts in {full_info}")
        return () if foreign and self.options.prompts == "auto" else suite


def _prefix_of(pid: int | str) -> str:
    return f"room-{platform.node()}-{pid}."


def _remove_folders_of_the_dead(workspace: Path) -> None:
    """Remove the folders of this machine's processes that were killed."""
    import psutil

    for folder in workspace.glob(f"{_prefix_of('*')}*"):
        pid = folder.name.removeprefix(_prefix_of("").removesuffix(".")).partition(".")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def unreadable(samples: Sequence[Sample]) -> dict[str, str]:
    """Sample name -> why its frames cannot be read; vbench would drop it in silence, or crash."""
    found = {}
    for sample in samples:
        try:
            # A copy, so that no more than one clip's frames are in memory.
            _ = dataclasses.replace(sample).frames
        except UnscoredError as error:
            found[sample.name] = str(error)
    return found


METRIC = VBenchMetric()
