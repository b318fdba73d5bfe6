"""Strict loading: refuse models with missing, extra or misshapen tensors; errors of loading in a sentence, with a remedy."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from genrun.adapters.checkpoint.index import AGAIN, CheckpointError, Files, choose, download_command

# Names of tensors in a message: enough to recognise the model by.
SHOWN = 3
UNTRAINED = "num_batches_tracked"
"""Suffix of the names of buffers that no evaluation reads."""

NUMBER = re.compile(r"\.(\d+)(?=\.)")
"""Number of a block in the name of a tensor, such as transformer_blocks.7.norm.weight."""

OTHER_SHAPE = re.compile(
    r"because (\S+) expected shape torch\.Size\(\[([\d, ]*)\]\), but got torch\.Size\(\[([\d, ]*)\]\)"
)
"""Message of diffusers about a tensor of the wrong shape: its name and both shapes, but not its file."""

OF_TWO = "The weights and the config.json beside them are of two models: get both from one place."


@contextmanager
def complete_models(variant: str | None) -> Iterator[None]:
    """Have every model that is loaded in the block checked, and read from its variant's files.

    Both libraries load a model whose file lacks a tensor: transformers draws random numbers for it and logs a warning,
    diffusers leaves it without memory. They tell on request (`output_loading_info`), but a pipeline does not request.

    Args:
        variant: of the weights that a job asks for, or None.

    Raises:
        CheckpointError: a model's files lack a tensor, or have one of another shape.
    """
    from diffusers.models.modeling_utils import ModelMixin
    from transformers import PreTrainedModel

    with ExitStack() as stack:
        for library, base in (("diffusers", ModelMixin), ("transformers", PreTrainedModel)):
            loader = _checked(base.from_pretrained.__func__, library, variant)
            stack.enter_context(patch.object(base, "from_pretrained", classmethod(loader)))
        yield


def _checked(load: Callable[..., Any], library: str, variant: str | None) -> Callable[..., Any]:
    def from_pretrained(cls: type, path: Any, *args: Any, **kwargs: Any) -> Any:
        files = choose(Path(path, kwargs.get("subfolder") or ""), library, variant)
        if files is not None and files.variant is not None:
            kwargs["variant"] = files.variant
        is_asked = kwargs.pop("output_loading_info", False)
        # Shapes that differ are told by name below; transformers would only say that there are some.
        ways = {"ignore_mismatched_sizes": True} if library == "transformers" else {}
        try:
            model, info = load(cls, path, *args, output_loading_info=True, **{**ways, **kwargs})
        except ValueError as error:
            told = OTHER_SHAPE.search(str(error))
            if told is None:
                raise
            raise _of_other_shape(told[1], _where(files, Path(path).name), *map(_shape, told.groups()[1:])) from error
        _check(cls, model, library, files, Path(path).name, info)
        return (model, info) if is_asked else model

    return from_pretrained


def _check(cls: type, model: Any, library: str, files: Files | None, part: str, info: Mapping[str, Any]) -> None:
    where = _where(files, part)
    mismatched: Iterable[tuple[str, Any, Any]] = info.get("mismatched_keys") or ()
    for name, stored, wanted in sorted(mismatched, key=str):
        raise _of_other_shape(name, where, tuple(wanted), tuple(stored))
    missing = sorted(name for name in info.get("missing_keys") or () if not name.endswith(UNTRAINED))
    unknown = sorted(info.get("unexpected_keys") or ())
    if missing:
        other = f"; it has {_some(unknown)}, which {cls.__name__} does not know" if unknown else ""
        raise CheckpointError(f"{where} lacks {_some(missing)}{other}")
    # Text encoders are shortened on purpose, to use an earlier layer; a denoiser or a VAE is not.
    beyond = _beyond(unknown, model.state_dict()) if unknown and library == "diffusers" else []
    if beyond:
        message = f"{where} has {_some(beyond)}, and the configuration of {cls.__name__} has fewer blocks"
        raise CheckpointError(message, OF_TWO)


def _of_other_shape(name: str, where: str, wanted: tuple[int, ...], stored: tuple[int, ...]) -> CheckpointError:
    said = "the weights have another shape than the configuration says"
    message = f"{said}: {name!r} in {where} is {stored}, and {wanted} is wanted"
    return CheckpointError(message, OF_TWO)


def _shape(sizes: str) -> tuple[int, ...]:
    return tuple(int(size) for size in re.findall(r"\d+", sizes))


def _beyond(unknown: Iterable[str], known: Iterable[str]) -> list[str]:
    """List the tensors of blocks beyond the last one that a model has."""
    last: dict[str, int] = {}
    for name in known:
        for found in NUMBER.finditer(name):
            blocks = name[: found.start()]
            last[blocks] = max(last.get(blocks, 0), int(found[1]))
    return [
        name
        for name in unknown
        if any(int(found[1]) > last.get(name[: found.start()], int(found[1])) for found in NUMBER.finditer(name))
    ]


def _where(files: Files | None, part: str) -> str:
    """Name the file of a component's weights, or the list of several."""
    if files is None:
        return part
    path = files.single or files.index
    assert path is not None
    return f"{files.folder.name}/{path.name}"


def _some(names: Iterable[str]) -> str:
    """Name some tensors, and count the rest."""
    first, rest = list(names)[:SHOWN], list(names)[SHOWN:]
    more = f" and {len(rest):,} more" if rest else ""
    return f"the tensor{'s' if len(first) > 1 else ''} {', '.join(map(repr, first))}{more}"


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
        "{source}: needs a package that is not installed, or too old: {said}",
        "Install or upgrade it with pip (`genrun doctor` names what is too old), and run the same command again.",
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
