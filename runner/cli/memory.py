"""`genrun plan --memory`: what a rank will need."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from genrun.runner.cli.output import put_json, put_table, say
from genrun.runner.errors import RunError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from genrun.runner.job import Cell, LoadedJob
    from genrun.runner.memory.estimate import Estimate, Subject

GIB = 2**30
UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4, "KI": 2**10, "MI": 2**20, "GI": GIB, "TI": 2**40}


class Size(click.ParamType):
    """A size such as 24GB or 22.5GiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return bytes."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?", str(value).strip().upper())
        if not found or not float(found[1]):
            self.fail(f"{value!r} is no size such as 24GB.", param, ctx)
        return int(float(found[1]) * UNITS[found[2]])


def put_memory(loaded: LoadedJob, gpu_bytes: int | None, *, as_json: bool) -> None:
    """Print the modes of each model and size of a job, and which of them fits.

    Raises:
        UsageError: a checkpoint is not on this machine, or its size cannot be told.
        RunError: nothing fits.
    """
    from genrun.runner.memory.estimate import estimates, fastest

    tables = [(subject, _checked(estimates, subject)) for subject in _subjects(loaded.cells)]
    if as_json:
        put_json([_json(subject, found, gpu_bytes) for subject, found in tables])
    for subject, found in () if as_json else tables:
        shape = subject.shape
        say(f"{subject.folder.name}, {shape.width}x{shape.height}, {shape.num_frames} frames, {subject.holding.dtype}:")
        put_table(
            ("offload", "vae", "encode", "denoise", "decode", "peak GiB", *_fits(gpu_bytes)), _rows(found, gpu_bytes)
        )
    if gpu_bytes is None:
        return
    for _, found in tables:
        best = fastest(found, gpu_bytes)
        if best is None:
            least = min(each.peak_bytes for each in found)
            remedy = "Make fewer pixels or frames, use model.dtype: bfloat16, or model.quantization."
            raise RunError(f"Nothing fits: the least is {least / GIB:.1f} GiB of {gpu_bytes / GIB:.1f}.", remedy=remedy)
        say(f"Use `model: {{{best.options}}}`." if best.options else "All of it fits: nothing need be offloaded.")


def _subjects(cells: Sequence[Cell]) -> Iterator[Subject]:
    """What differs among the cells in what memory depends on."""
    from genrun.adapters.pipeline.load_options import LoadOptions
    from genrun.runner.memory.estimate import Subject, folder_of, shape_of

    seen = []
    for cell in cells:
        model = cell.job.model
        folder = folder_of(cell.checkpoint, model.revision)
        held = LoadOptions.of({**model.model_dump(mode="json"), "dtype": cell.dtype}, "float32")
        sampling = cell.sampling
        shape = _checked(shape_of, folder, sampling, held)
        guidance = float(sampling.get("guidance_scale") or 0) > 1
        subject = Subject(folder, held, shape, int(sampling.get("steps") or 50), guidance)
        if subject not in seen:
            seen.append(subject)
            yield subject


def _checked(work: Any, *arguments: Any) -> Any:
    try:
        return work(*arguments)
    except (ValueError, OSError) as error:
        raise UsageError(f"{arguments[0] if len(arguments) > 1 else arguments[0].folder}: {error}.") from error


def _rows(found: Sequence[Estimate], gpu_bytes: int | None) -> list[tuple[str, ...]]:
    return [
        (
            each.mode,
            "tiles" if each.tiled else "whole",
            *(
                f"{size / GIB:.1f}"
                for size in (each.encode_bytes, each.denoise_bytes, each.decode_bytes, each.peak_bytes)
            ),
            *([] if gpu_bytes is None else ["yes" if each.peak_bytes <= gpu_bytes else "no"]),
        )
        for each in found
    ]


def _fits(gpu_bytes: int | None) -> tuple[str, ...]:
    return () if gpu_bytes is None else (f"fits {gpu_bytes / GIB:.1f}",)


def _json(subject: Subject, found: Sequence[Estimate], gpu_bytes: int | None) -> dict[str, Any]:
    from genrun.runner.memory.estimate import fastest

    best = None if gpu_bytes is None else fastest(found, gpu_bytes)
    return {
        "checkpoint": str(subject.folder),
        "shape": asdict(subject.shape),
        "modes": [{**asdict(each), "peak_bytes": each.peak_bytes} for each in found],
        "fits": best and {"mode": best.mode, "tiled": best.tiled},
    }
