"""Failures of items, as records describe them: kind, message and remedy, found without importing torch."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

from genrun.runner.store.records import CANCELLED
from genrun.runner.worker.rank import say

if TYPE_CHECKING:
    from genrun.runner.store.records import Record

MESSAGE_LENGTH = 2000
"""Characters of a message that a record keeps: torch quotes whole tensors in some."""

OUT_OF_MEMORY = "out_of_memory"
"""Kind of failure of an item for which memory ran out."""

OUT_OF_VAE = "out_of_memory_in_vae"
"""Kind of failure of an item that was sampled and could not be decoded, not even by tiles and slices."""

LOST = "lost"
"""Kind of failure of an item that was done, and whose files are gone or changed since."""

OUTDATED = "outdated"
"""Kind of failure of an item whose media file has to be written again, since the job asks for another one now."""

_FULL = ("can't allocate memory", "not enough memory", "out of memory", "alloc_failed")
"""Phrases in a RuntimeError by which libraries report that memory ran out."""

_KINDS = {
    "OutOfMemoryError": OUT_OF_MEMORY,
    "MemoryError": OUT_OF_MEMORY,
    "NonFiniteError": "non_finite",
    "SolverError": "solver",
    "LoadError": "load",
    "OptionsError": "options",
    "OutOfVaeMemoryError": OUT_OF_VAE,
    "DecodeError": "decode",
    "CancelledError": CANCELLED,
    "LostError": LOST,
    "OutdatedError": OUTDATED,
}

_REMEDIES = {
    OUT_OF_MEMORY: "Try model.offload: model (or group, sequential), fewer pixels or frames, model.dtype: bfloat16, or a "
    "larger device; genrun plan JOB --memory says what fits.",
    "non_finite": "So does the plain pipeline: submit the job with model.dtype: float32 or bfloat16 where it is float16, or "
    "with another scheduler, guidance_scale or number of steps.",
    "RefusedError": "Change the job as the message says, and submit it again.",
    "solver": "See the log for the solver's message; solver: sequential always works.",
    OUT_OF_VAE: "The latents are saved: genrun decode tries again, on a larger device or an idle one. Or sample with "
    "model.offload: model, or fewer pixels or frames.",
    "decode": "The latents are saved: genrun decode tries again without sampling.",
    CANCELLED: "To make it after all: genrun retry.",
    LOST: "To make it again: genrun submit with the same job, or genrun retry.",
    OUTDATED: "It is written again from its latents: genrun submit with the same job, or genrun retry.",
}


class DecodeError(Exception):
    """Latents that could not be decoded or written as a picture or clip.

    Attributes:
        kind: of the failure, where a closer one is known.
        remedy: where a better one is known than for the kind.
    """

    def __init__(self, message: str, kind: str | None = None, remedy: str | None = None) -> None:
        super().__init__(message)
        self.kind, self.remedy = kind, remedy

    @classmethod
    def of(cls, error: Exception) -> DecodeError:
        """Return the error of a picture that another error kept from being made."""
        kind = getattr(error, "kind", None)
        if isinstance(error, DecodeError):
            return error
        message = str(error) if kind else f"{type(error).__name__}: {error}"
        remedy = getattr(error, "remedy", None)
        return cls(message, kind, f"The latents are kept. {remedy}" if kind and remedy else remedy)


class OutOfVaeMemoryError(DecodeError):
    """Latents that could not be decoded for want of memory, not even by tiles and slices."""


class CancelledError(Exception):
    """An item that was cancelled while it was being made."""

    def __init__(self) -> None:
        super().__init__("taken out of the work by genrun cancel")


class LostError(Exception):
    """Files of a finished item that are gone, or no longer what was written."""


class OutdatedError(Exception):
    """A media file that was written with other values of `output` than the job has now."""


def is_decoded_again(record: Record) -> bool:
    """Return True when a failed item was done before, so that its saved latents suffice to write its file again."""
    was_done = record.media is not None or (record.error or {}).get("kind") in (LOST, OUTDATED)
    return record.status == "failed" and record.latents is not None and was_done


def describe(error: BaseException, *, rank: int, log: str) -> dict[str, Any]:
    """Describe `error` for a record.

    Returns:
        {"kind", "message", "remedy", "rank", "log"}; `kind` is out_of_memory, out_of_memory_in_vae, non_finite,
        not_as_asked, solver, decode, load, options, cancelled, or the name of the exception's class.
    """
    kind = kind_of(error)
    message = str(error).strip() or type(error).__name__
    remedy = getattr(error, "remedy", None) or _REMEDIES.get(kind, "See the log for the traceback, then: genrun retry.")
    return {"kind": kind, "message": message[:MESSAGE_LENGTH], "remedy": remedy, "rank": rank, "log": log}


def log_failure(error: Exception, item_id: str, *, rank: int, log: str) -> dict[str, Any]:
    """Write a failure's traceback to the log, and describe it for a record."""
    say(f"{item_id}: {kind_of(error)}\n" + "".join(traceback.format_exception(error)).rstrip())
    return describe(error, rank=rank, log=log)


def kind_of(error: BaseException) -> str:
    """Return the kind of a failure: what its exception says, or by the names of its classes, the nearest first."""
    said = getattr(error, "kind", None)
    if isinstance(said, str):
        return said
    names = [cls.__name__ for cls in type(error).__mro__]
    if "RuntimeError" in names and any(text in str(error).lower() for text in _FULL):
        return OUT_OF_MEMORY
    return next((_KINDS[name] for name in names if name in _KINDS), names[0])
