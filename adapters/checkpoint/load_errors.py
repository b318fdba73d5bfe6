"""Errors of loading a checkpoint: what is wrong in one sentence, and a remedy."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from genrun.adapters.checkpoint.index import AGAIN, CheckpointError, download_command

HUB = "https://huggingface.co"
# Of an exception's own text, which may list every tensor of a model.
MESSAGE_LENGTH = 600


class LoadError(Exception):
    """A model that cannot be loaded.

    Attributes:
        remedy: what to do about it.
    """

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


@contextmanager
def explained(source: str) -> Iterator[None]:
    """Turn what goes wrong while a checkpoint is loaded into LoadError; running out of memory stays what it is.

    Args:
        source: the folder or hub id.
    """
    try:
        yield
    except LoadError:
        raise
    except CheckpointError as error:
        remedy = _remedy(DOWNLOAD_AGAIN, source) if error.remedy == AGAIN else f"{error.remedy.rstrip('.')}."
        raise LoadError(f"{source}: {error.message}", remedy) from error
    except Exception as error:
        if "memory" in type(error).__name__.lower():
            raise
        raise explain(source, error) from error


@dataclass(frozen=True)
class Rule:
    """A known error: how its exception is recognised, its message and its remedy.

    Attributes:
        kinds: classes of the exception, by name: the hub's are not imported before they are met.
        says: texts, one of which is in its message; empty for any message.
        message: what is wrong with {source}; {said} is the exception's own text.
        remedy: what to do; {download} is a command that gets the files of {source}.
    """

    kinds: tuple[str, ...]
    message: str
    remedy: str
    says: tuple[str, ...] = ()

    def fits(self, error: BaseException) -> bool:
        """Return whether an exception is this error."""
        names = {kind.__name__ for kind in type(error).__mro__}
        said = str(error).lower()
        return not names.isdisjoint(self.kinds) and (not self.says or any(text in said for text in self.says))


LOG_IN = "log in with `hf auth login` (or set HF_TOKEN)"
DOWNLOAD_AGAIN = "Get the files again: {download}."

RULES = (
    Rule(
        ("GatedRepoError",),
        "{source}: is gated: its owners ask for your agreement",
        f"Agree on {HUB}/{{source}}, then {LOG_IN}, and run the same command again.",
    ),
    Rule(("RevisionNotFoundError",), "{source}: has no such revision", f"See {HUB}/{{source}}/commits/main."),
    Rule(
        ("RepositoryNotFoundError",),
        "{source}: the hub has no such model, or it is private",
        f"Check the name on {HUB}/models; for a private one {LOG_IN}.",
    ),
    Rule(
        ("OfflineModeIsEnabled", "LocalEntryNotFoundError", "ConnectionError", "NetworkError", "ConnectError"),
        "{source}: is not on this machine, and the hub cannot be reached",
        "Download it where there is a network: hf download {source}; or name a folder.",
    ),
    Rule(
        ("SafetensorError",),
        "{source}: a weights file is damaged or was not downloaded to its end: {said}",
        DOWNLOAD_AGAIN,
    ),
    Rule(
        ("ValueError", "RuntimeError"),
        "{source}: the weights have another shape than the configuration says: {said}",
        "The weights and the config.json beside them are of two models: get both from one place.",
        says=("expected shape", "size mismatch", "ignore_mismatched_sizes"),
    ),
    Rule(
        ("ImportError",),
        "{source}: needs a package that is not installed: {said}",
        "Install it with pip, and run the same command again.",
        says=("not found in your environment", "no module named"),
    ),
    Rule(
        ("OSError", "ValueError"),
        "{source}: a component is missing: {said}",
        DOWNLOAD_AGAIN,
        says=("no file named", "does not appear to have a file", "is not a local folder"),
    ),
)


def explain(source: str, error: Exception) -> LoadError:
    """Say what is wrong by the chain of causes, as diffusers wraps the hub's errors in its own; the first rule wins."""
    chain = list(_chain(error))
    for rule in RULES:
        for cause in chain:
            if rule.fits(cause):
                said = str(cause).strip()[:MESSAGE_LENGTH]
                return LoadError(rule.message.format(source=source, said=said), _remedy(rule.remedy, source))
    said = f"{type(error).__name__}: {error}"[:MESSAGE_LENGTH]
    part = _component_of(error)
    if part is None:
        return LoadError(f"{source}: cannot be loaded: {said}", "See the log for the traceback.")
    message = f"{source}: its component {part!r} cannot be loaded: {said}"
    return LoadError(message, f"{_remedy(DOWNLOAD_AGAIN, source)} The log has the traceback.")


def _remedy(text: str, source: str) -> str:
    return text.format(source=source, download=download_command(source))


def _component_of(error: BaseException) -> str | None:
    """Name the component that a pipeline was loading when it failed, which diffusers does not say."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "load_sub_model":
            name = frame.f_locals.get("name")
            return name if isinstance(name, str) else None
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
