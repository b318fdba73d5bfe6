"""The producer of real pictures: one pipeline at a time, kept as long as items ask for it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.adapters import media, registry
from genrun.runner.store.records import SamplerStats
from genrun.runner.work.failures import DecodeError
from genrun.runner.work.team import Solo, Team

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from genrun.adapters.adapter import Adapter
    from genrun.adapters.exchange import Exchange
    from genrun.adapters.generate import Request, Sampled
    from genrun.runner.plan import WorkItem

LATENTS = "latents"
"""Name of the tensor in a latents file."""


@dataclass(frozen=True)
class PipelineSample:
    """A sampled item: its latents, and the pipeline that decodes them."""

    sampled: Sampled
    decode_latents: Callable[[Tensor], np.ndarray]

    @property
    def stats(self) -> SamplerStats:
        """What sampling cost."""
        solution = self.sampled.solution
        return SamplerStats(
            self.sampled.num_steps,
            solution.rounds,
            solution.nfe,
            tuple(solution.fronts),
            solution.converged_by,
            solution.skipped,
        )

    def decode(self) -> np.ndarray:
        """Return the frames, uint8 (T, H, W, 3)."""
        return self.decode_latents(self.sampled.latents)

    def save_latents(self, path: Path) -> None:
        """Write the final latents as safetensors.

        Raises:
            OSError: the file cannot be written.
        """
        from safetensors.torch import save

        path.write_bytes(save({LATENTS: self.sampled.latents.detach().cpu().contiguous()}))


class Engine:
    """Samples items with diffusers pipelines.

    Args:
        document: the resolved job: its sections model, output and launch.
        team: the ranks that sample an item together.
        local_rank: this rank on its machine, which chooses the GPU.
    """

    def __init__(self, document: Mapping[str, Any], team: Team | None = None, local_rank: int = 0) -> None:
        import torch

        self._threads = int((document.get("launch") or {}).get("threads") or 1)
        torch.set_num_threads(self._threads)
        self._output = document.get("output") or {}
        self._team = team or Solo()
        self._device = choose_device((document.get("model") or {}).get("device") or "auto", local_rank)
        self._loaded: tuple[Any, ...] | None = None
        self._pipe: Any = None

    @property
    def device(self) -> str:
        """Name of the device."""
        import torch

        return torch.cuda.get_device_name(self._device) if self._device.startswith("cuda") else "cpu"

    def prepare(self, item: WorkItem) -> None:
        """Load the item's pipeline, unless it is the one in use."""
        self._pipeline(item, registry.get(item.model["adapter"]))

    def suffix(self, item: WorkItem, frames: np.ndarray) -> str:
        """.mp4 or .png: as the job says, else a clip for a video model and wherever there are several frames."""
        wanted = self._output.get("format") or "auto"
        if wanted == "auto":
            is_clip = len(frames) > 1 or registry.get(item.model["adapter"]).kind == "video"
            wanted = "mp4" if is_clip else "png"
        return f".{wanted}"

    def sample(self, item: WorkItem, on_round: Callable[[int, int], None]) -> PipelineSample:
        """Sample an item; every rank of the team calls this alike."""
        from genrun.adapters import generate
        from genrun.solvers import registry as solvers

        adapter = registry.get(item.model["adapter"])
        pipe = self._pipeline(item, adapter)
        options = {key: value for key, value in item.solver.items() if key != "kind"}
        sampled = generate.sample(
            pipe,
            adapter,
            request_of(item),
            solvers.get(item.solver["kind"])(**options),
            self._exchange(),
            lambda progress: on_round(progress.front, progress.num_steps),
        )
        return PipelineSample(sampled, lambda latents: self.decode(item, latents))

    def decode(self, item: WorkItem, latents: Tensor) -> np.ndarray:
        """Return the frames of an item's final latents, uint8 (T, H, W, 3)."""
        from genrun.adapters import generate

        adapter = registry.get(item.model["adapter"])
        return generate.decode(self._pipeline(item, adapter), adapter, request_of(item), latents)

    def write(self, path: Path, frames: np.ndarray, metadata: dict[str, Any]) -> None:
        """Write frames as the media file that the suffix of `path` names, with its metadata embedded.

        What the file's bytes depend on beside the item is added to the metadata as "made".

        Raises:
            DecodeError: several frames for a picture.
            OSError: the file cannot be written.
        """
        made: dict[str, Any] = {"threads": self._threads}
        if path.suffix == ".mp4":
            fps = self._output.get("fps") or registry.get(metadata["item"]["model"]["adapter"]).fps
            made |= {"fps": fps, "crf": self._output.get("crf", media.DEFAULT_CRF)}
            media.write_video(path, frames, made["fps"], made["crf"], {**metadata, "made": made})
        elif len(frames) == 1:
            media.write_image(path, frames[0], {**metadata, "made": made})
        else:
            raise DecodeError(f"{len(frames)} frames do not fit into one PNG: set output.format: mp4")

    def _pipeline(self, item: WorkItem, adapter: Adapter) -> Any:
        model = item.model
        wanted = (model["adapter"], model.get("checkpoint"), model.get("revision"), model.get("dtype"))
        if self._loaded != wanted:
            self._forget()
            from genrun.adapters import generate

            self._pipe = generate.load(adapter, wanted[1], dtype=wanted[3], device=self._device, revision=wanted[2])
            self._loaded = wanted
        return self._pipe

    def _forget(self) -> None:
        """Free the old pipeline's memory before the next one is loaded."""
        import torch

        self._pipe = self._loaded = None
        gc.collect()
        if self._device.startswith("cuda"):
            torch.cuda.empty_cache()

    def _exchange(self) -> Exchange:
        from genrun.adapters.exchange import GroupExchange, LocalExchange

        return LocalExchange() if self._team.points is None else GroupExchange(self._team.points)


def request_of(item: WorkItem) -> Request:
    """Return what generates an item, besides the model and the solver."""
    from genrun.adapters.generate import Request

    return Request(item.prompt, item.seed, item.sampling, item.negative_prompt)


def read_latents(path: Path) -> Tensor:
    """Read final latents.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no latents.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(path.read_bytes())[LATENTS]
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path}: not a file of latents: {error}") from error


def choose_device(wanted: str, local_rank: int = 0) -> str:
    """Return the torch device for "auto", "cpu" or "cuda": ranks of a machine share its GPUs in turn."""
    import torch

    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return "cpu"
    return f"cuda:{local_rank % max(1, torch.cuda.device_count())}"
