"""The producer that runs diffusers pipelines: one pipeline at a time, kept loaded while items use its model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.adapters import media, registry
from genrun.adapters.pipeline.additions import CONTENTS, SWAPPED, base_of
from genrun.adapters.sound import MOST_CHANNELS
from genrun.runner.job.checks.output import format_problem, sound_problems
from genrun.runner.notes import BLANK, FPS_ASSUMED, PROMPT_TRUNCATED, SAFETY_CHECKER
from genrun.runner.parallel.team import Solo, Team
from genrun.runner.store.records import Note, SamplerStats
from genrun.runner.worker.failures import DecodeError
from genrun.runner.worker.previews import Previews
from genrun.runner.worker.producer import Decoded, PipelineSample, SavedSample, read_latents, read_others
from genrun.runner.worker.prompts import DecodedInputs, PromptStage, has_stage, load_options_of, request_of
from genrun.runner.worker.rank import MemoryUsage, choose_device, memory_usage, release_memory, reset_peak_memory, say

if TYPE_CHECKING:
    from torch import Tensor

    from genrun.adapters.adapter import Adapter
    from genrun.adapters.checkpoint.strict import LoadError
    from genrun.adapters.parallel.exchange import Exchange
    from genrun.adapters.pipeline.encoders import Cut, Seen
    from genrun.adapters.pipeline.pictures import Pictures
    from genrun.adapters.sampling.call import SamplingRequest
    from genrun.adapters.scheduler.rows import CallProgress
    from genrun.adapters.sound import Sound
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.store.folder import RunFolder


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
        self._model: dict[str, Any] | None = None
        self._is_staged = False
        self._broken: tuple[dict[str, Any], LoadError] | None = None
        self._pipe: Any = None
        self._stage: PromptStage | None = None
        self._inputs = DecodedInputs(None)
        self._previews: Previews | None = None
        self._evaluations = 0

    @property
    def device(self) -> str:
        """Name of the device."""
        import torch

        return torch.cuda.get_device_name(self._device) if self._device.startswith("cuda") else "cpu"

    @property
    def memory(self) -> MemoryUsage:
        """Memory of this rank."""
        return memory_usage(self._device)

    @property
    def evaluations(self) -> int:
        """Model evaluations that this rank has made of the item in work, one after the other."""
        return self._evaluations

    def begin(self, folder: RunFolder, items: Sequence[WorkItem]) -> None:
        """Prepare for the run: from now on its prompts are encoded in a stage of their own and kept in its folder."""
        self._stage = PromptStage(folder, items, self._device, say)
        self.find_inputs(folder)
        if self._output.get("previews"):
            self._previews = Previews(folder, self._output["previews"], self._device, self._threads)

    def find_inputs(self, folder: RunFolder) -> None:
        """Take the pictures and clips that items are made from out of a run."""
        self._inputs = DecodedInputs(folder)

    def _request(self, item: WorkItem) -> SamplingRequest:
        return replace(request_of(item), inputs=self._inputs.of(item))

    def is_ready(self, item: WorkItem) -> bool:
        """Return True when there is nothing to encode or to load for the item."""
        is_encoded = not self._is_staged or self._stage is None or (not item.inputs and self._stage.has(item))
        return self._pipe is not None and item.model == self._model and is_encoded

    def prepare(self, item: WorkItem) -> None:
        """Encode the item's prompt and load its pipeline, unless it is the one in use."""
        self._pipeline(item, registry.get(item.model["adapter"]))
        reset_peak_memory(self._device)

    def suffix(self, item: WorkItem, frames: Decoded) -> str:
        """Return .mp4 or .png: as the job says, else a clip for a video model and wherever there are several frames."""
        wanted = self._output.get("format") or "auto"
        if wanted == "auto":
            is_clip = len(frames.frames) > 1 or registry.get(item.model["adapter"]).kind == "video"
            wanted = "mp4" if is_clip else "png"
        return f".{wanted}"

    def sample(self, item: WorkItem, on_round: Callable[[int, int], None]) -> PipelineSample:
        """Sample an item; every rank of the team calls this alike."""
        from genrun.adapters.caches import registry as caches
        from genrun.adapters.pipeline.denoisers import attention_of
        from genrun.adapters.pipeline.encoders import watching
        from genrun.adapters.sampling.generate import sample
        from genrun.solvers import registry as solvers

        pipe = self._pipeline(item, registry.get(item.model["adapter"]))
        adapter = _adapter_of(item, pipe)
        options = {key: value for key, value in item.solver.items() if key != "kind"}
        try:
            self._check_format(pipe, adapter, item)
            with (
                self._encoded(pipe, item),
                watching(pipe, item.sampling.get("options")) as seen,
                attention_of(pipe, item.attention),
                nullcontext() if self._previews is None else self._previews.of(item, pipe, adapter),
            ):
                sampled = sample(
                    pipe,
                    adapter,
                    self._request(item),
                    solvers.get(item.solver["kind"])(**options),
                    self._exchange(),
                    self._counting(on_round),
                    caches.make(item.cache),
                )
        except Exception as error:
            self._team.failed(error)
            raise
        other = self._decoding_copy(pipe)
        return PipelineSample(
            sampled,
            lambda latents, save: self._decode(
                item, latents, sampled.others, save=save, pipe=other, pictures=sampled.pictures
            ),
            other is not None,
            tuple(Note(PROMPT_TRUNCATED, str(each)) for each in self._cut(item, seen)),
        )

    def _counting(self, on_round: Callable[[int, int], None]) -> Callable[[CallProgress], None]:
        """Return what counts this rank's share of each round's evaluations, and tells of the round."""
        ranks, seen = self._team.mesh.time, 0
        self._evaluations = 0

        def told(progress: CallProgress) -> None:
            nonlocal seen
            self._evaluations += ceil((progress.nfe - seen) / ranks)
            seen = progress.nfe
            on_round(progress.front, progress.num_steps)
            if self._previews is not None and self._team.leads:
                self._previews.offer(progress)

        return told

    def _cut(self, item: WorkItem, seen: Sequence[Seen]) -> tuple[Cut, ...]:
        """Return what the text encoders did not see of an item's prompt, in the stage or now."""
        from genrun.adapters.pipeline.encoders import cuts

        if self._stage is not None and self._is_staged:
            return self._stage.cut(item)
        return cuts(seen, item.prompt, item.negative_prompt)

    def _check_format(self, pipe: Any, adapter: Adapter, item: WorkItem) -> None:
        """Refuse a file that cannot hold the pipeline's output, or not as asked, where only a loaded pipeline tells.

        Raises:
            PictureError: clips as PNG, pictures as mp4, or sound that is not made, or for another pace.
        """
        from genrun.adapters.pipeline.families import fps_asked, has_sound, parts_of
        from genrun.adapters.pipeline.pictures import NOT_AS_ASKED, PictureError
        from genrun.adapters.sampling.call import kind_made

        num_frames = adapter.resolve(item.sampling).get("num_frames")
        wrong = format_problem(self._output.get("format"), kind_made(pipe, adapter), num_frames)
        sound, fps = self._output.get("sound"), self._output.get("fps")
        pace = fps_asked(adapter.resolve(item.sampling)) or adapter.fps
        found = (
            [("format", wrong)] if wrong else list(sound_problems(sound, fps, pace, makes=has_sound(parts_of(pipe))))
        )
        for name, problem in found:
            message = f"output.{name}: {type(pipe).__name__} {problem}"
            raise PictureError(NOT_AS_ASKED, message, "Change it in the job, and submit it again.")

    def restore(self, item: WorkItem, latents: Path, stats: SamplerStats) -> SavedSample:
        """Return an item as it was sampled, from its saved latents.

        Raises:
            OSError: the file cannot be read.
            ValueError: it holds no latents.
        """
        saved, others = read_latents(latents), read_others(latents)
        return SavedSample(stats, latents, saved, lambda latents, save: self._decode(item, latents, others, save=save))

    def decode(self, item: WorkItem, latents: Tensor, others: Sequence[Tensor] = ()) -> Decoded:
        """Return the frames of an item's final latents, and its sound from what was sampled beside them."""
        return self._decode(item, latents, others, save=False)[0]

    def _decoding_copy(self, pipe: Any) -> Any | None:
        """Return a pipeline for decoding in another thread, or None where that is unsafe or useless."""
        from genrun.adapters.sampling.call import decoding_copy

        # Not where prompts are encoded at each call: tokenizers belong to one thread. Nor on a GPU, which has no time left
        # beside denoising, and would have to hold what both need at once.
        return decoding_copy(pipe) if self._is_staged and self._device == "cpu" else None

    def _decode(
        self,
        item: WorkItem,
        latents: Tensor,
        others: Sequence[Tensor],
        *,
        save: bool,
        pipe: Any | None = None,
        pictures: Pictures | None = None,
    ) -> tuple[Decoded, tuple[str, ...]]:
        """Decode, with `save` in the least memory that the VAE allows; return the frames and the means used to save it."""
        import torch

        from genrun.adapters.pipeline.families import fps_asked, informed, parts_of
        from genrun.adapters.pipeline.placement import can_save_memory, saving_memory
        from genrun.adapters.sampling.call import decode

        torch.set_num_threads(self._threads)  # each thread of Python has its own number
        pipe = self._pipeline(item, registry.get(item.model["adapter"])) if pipe is None else pipe
        adapter = _adapter_of(item, pipe)
        means = can_save_memory(pipe) if save else []
        if save:
            release_memory(self._device)
        with saving_memory(pipe, means), self._encoded(pipe, item):
            is_whole = pictures is not None  # then the latents are those of the last of several loops
            pictures = pictures or decode(pipe, adapter, self._request(item), latents, others)
        if self._previews is not None and not (is_whole or pictures.flagged):
            self._previews.learn(item, pipe, latents, pictures.frames)
        known = informed(adapter, parts_of(pipe))
        fps = self._output.get("fps") or fps_asked(adapter.resolve(item.sampling))
        return Decoded(pictures, fps or known.fps, bool(fps) or known.knows_fps), tuple(means)

    def notes(self, item: WorkItem, frames: Decoded) -> tuple[Note, ...]:
        """Return notes on an item's pictures."""
        if frames.pictures.flagged:
            return (Note(SAFETY_CHECKER, "the checkpoint's safety checker flagged the picture and made it black"),)
        found = []
        if frames.pictures.is_blank:
            colour = ", ".join(map(str, frames.frames[0, 0, 0].tolist()))
            found.append(Note(BLANK, f"every pixel has the same colour: ({colour}) of 255"))
        if len(frames.frames) > 1 and not frames.knows_fps:
            found.append(Note(FPS_ASSUMED, f"{frames.fps:g} frames a second were assumed"))
        return tuple(found)

    def _heard(self, frames: Decoded) -> Sound | None:
        """Return the sound that is written with frames: theirs, unless the job leaves it out."""
        return None if self._output.get("sound") is False else frames.pictures.sound

    def sound(self, frames: Decoded) -> dict[str, int]:
        """Return the rate and the channels of the sound that is written with frames; {} for none."""
        heard = self._heard(frames)
        return {} if heard is None else {"rate": heard.rate, "channels": min(len(heard.samples), MOST_CHANNELS)}

    def write(self, path: Path, frames: Decoded, metadata: dict[str, Any]) -> None:
        """Write frames as the media file that the suffix of `path` names, with its metadata embedded.

        Whatever else the file's bytes depend on, apart from the item, is added to the metadata as "made".

        Raises:
            DecodeError: several frames for a picture.
            OSError: the file cannot be written.
        """
        made: dict[str, Any] = {"threads": self._threads}
        if path.suffix == ".mp4":
            made |= {"fps": frames.fps, "crf": max(self._output.get("crf", media.DEFAULT_CRF), media.FINEST_CRF)}
            sound = self._heard(frames)
            made |= {"sound": False} if frames.pictures.sound is not None and sound is None else {}
            media.write_video(path, frames.frames, made["fps"], made["crf"], {**metadata, "made": made}, sound)
        elif len(frames.frames) == 1:
            media.write_image(path, frames.frames[0], {**metadata, "made": made})
        else:
            raise DecodeError(f"{len(frames.frames)} frames do not fit into one PNG: set output.format: mp4")

    def _pipeline(self, item: WorkItem, adapter: Adapter) -> Any:
        """Return the pipeline of an item's model, without text encoders where a stage has encoded the item's prompt."""
        from genrun.adapters.checkpoint.strict import LoadError

        if self._broken is not None and self._broken[0] == item.model:
            # A model that cannot be loaded is not tried again for each of a thousand items.
            raise LoadError(str(self._broken[1]), self._broken[1].remedy)
        try:
            return self._ready(item, adapter)
        except LoadError as error:
            self._broken = (item.model, error)
            raise

    def _ready(self, item: WorkItem, adapter: Adapter) -> Any:
        from genrun.runner.job.checkpoint import refuse_changed

        if self._pipe is None or item.model != self._model:
            refuse_changed(item.model.get(CONTENTS) or {})
        if self._model is None or self._base_of(item) != self._base_of(item, self._model):
            self._forget()
        if item.model != self._model:
            is_staged = self._stage is not None and has_stage(item)
            if is_staged != self._is_staged:
                self._forget()
            self._is_staged = is_staged
        elif item.inputs and self._is_staged:
            # It is encoded together with its pictures. With the text encoders loaded, so are all that come after it.
            self._forget()
            self._is_staged = False
        if self._is_staged and self._stage is not None and not self._stage.has(item):
            self._forget()
            self._stage.run(item)
        if self._pipe is None:
            if checkpoint := item.model.get("checkpoint"):
                refuse_changed({checkpoint: item.model.get("fingerprint", "")})
            self._pipe = self._load(item, adapter)
            if self._team.slot is not None:
                from genrun.adapters.parallel.enable import enable_parallelism

                enable_parallelism(self._pipe, self._team.slot)
        elif item.model != self._model:
            from genrun.adapters.pipeline.parts import put_loras

            # Should a LoRA fail, the model without any stays for the others.
            self._model = {**base_of(item.model), SWAPPED: None}
            put_loras(self._pipe, load_options_of(item).additions.loras)
        self._model = item.model
        return self._pipe

    def _base_of(self, item: WorkItem, model: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what of a model has to be loaded anew when it changes, by default of the item's: all but its LoRAs."""
        model = item.model if model is None else model
        slot = self._team.slot
        # Layers that are compiled, or that share tokens with other ranks, cannot be put into others.
        return model if model.get("compile") or slot is not None else base_of(model)

    def _load(self, item: WorkItem, adapter: Adapter) -> Any:
        from genrun.adapters.pipeline.loading import load

        model, load_options = item.model, load_options_of(item)
        if self._device == "cpu" and load_options.offload != "none":
            say(f"model.offload: {load_options.offload}: does nothing on the CPU")
        return load(
            adapter,
            model.get("checkpoint"),
            dtype=None,
            device=self._device,
            revision=model.get("revision"),
            load_options=load_options,
            encoders=not self._is_staged,
        )

    def _forget(self) -> None:
        """Free the old pipeline's memory before the next one is loaded."""
        self._pipe = self._model = None
        release_memory(self._device)

    @contextmanager
    def _encoded(self, pipe: Any, item: WorkItem) -> Iterator[None]:
        """Have the pipeline use the encodings that the stage made of the item's prompt."""
        if self._stage is None or not self._is_staged:
            yield
            return
        from genrun.adapters.pipeline.encoders import encode_once

        with encode_once(pipe, self._stage.read(item), is_complete=True):
            yield

    def _exchange(self) -> Exchange:
        from genrun.adapters.parallel.exchange import GroupExchange, LocalExchange

        return LocalExchange() if self._team.exchange_group is None else GroupExchange(self._team.exchange_group)


def _adapter_of(item: WorkItem, pipe: Any) -> Adapter:
    """Return the adapter of an item, in the form of its pipeline."""
    from genrun.adapters.pipeline.families import as_pipeline, parts_of

    return as_pipeline(registry.get(item.model["adapter"]), parts_of(pipe))
