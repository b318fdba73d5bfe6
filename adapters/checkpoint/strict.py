"""Strict loading: read models from their variant's files, and refuse those with missing, extra or misshapen tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from genrun.adapters.checkpoint.index import CheckpointError
from genrun.adapters.checkpoint.variants import Files, choose

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
