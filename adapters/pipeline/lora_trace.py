"""Follow a LoRA's tensors through diffusers' conversion and onto the modules: what it leaves out, it says to nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_iter, tree_map_only

from genrun.adapters.checkpoint.index import CheckpointError
from genrun.adapters.checkpoint.lora import LAYER

PARTIAL = "Add `partial: true` to the LoRA to go without them, as diffusers does, or name one that is for this pipeline"


class Traced(Tensor):
    """A tensor that knows which tensors of a file it was made from, in `sources`."""

    sources: frozenset[str]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation; what comes out of it has the sources of all that went in."""
        found = super().__torch_function__(func, types, args, kwargs or {})
        sources = frozenset[str]().union(*(_sources(each) for each in tree_iter((args, kwargs))))

        def mark(value: Traced) -> Traced:
            value.sources = sources | _sources(value)
            return value

        return tree_map_only(Traced, mark, found)


def _sources(value: object) -> frozenset[str]:
    return vars(value).get("sources", frozenset()) if isinstance(value, Traced) else frozenset()


def left_out(file: Mapping[str, Tensor], convert: Callable[[dict[str, Tensor]], Any]) -> list[str]:
    """Name the tensors of a file that a conversion leaves out, but those without effect and single numbers as alpha.

    Args:
        file: its tensors, by name.
        convert: takes the tensors, and returns a mapping of tensors, perhaps first of several values.
    """
    traced: dict[str, Tensor] = {}
    for name, value in file.items():
        # A copy: conversions scale in place.
        traced[name] = each = value.clone().as_subclass(Traced)
        each.sources = frozenset((name,))
    found = convert(traced)
    used = frozenset[str]().union(*(_sources(each) for each in tree_iter(found)))
    idle = set(_without_effect(file))
    return [name for name, value in file.items() if value.numel() > 1 and name not in used and name not in idle]


def _without_effect(file: Mapping[str, Tensor]) -> Iterator[str]:
    """Name tensors that are zero, and the other half of a layer's where one is."""
    zero = {name for name, value in file.items() if not value.any()}
    modules = {found["module"] for name in zero if (found := LAYER.fullmatch(name))}
    for name in file:
        found = LAYER.fullmatch(name)
        if name in zero or (found is not None and found["module"] in modules):
            yield name


def check_taken(state: Mapping[str, Tensor], parts: Mapping[str, Any], adapter: str) -> None:
    """Check that all layers of a converted LoRA are on the modules.

    Args:
        state: its tensors, by the names that diffusers gives them.
        parts: components of the pipeline.
        adapter: what peft calls the LoRA.

    Raises:
        CheckpointError: some have no place.
    """
    wanted = [key for key, value in state.items() if ("lora" in key or "lokr" in key) and value.numel() > 1]
    there = {
        f"{component}.{path}"
        for component, part in parts.items()
        if isinstance(part, nn.Module)
        for path, _ in part.named_parameters()
        if adapter in path.split(".")
    }
    if len(there) < len(wanted):
        names = {key.replace(f".{adapter}", "") for key in there}
        # Formats of old have names that are changed once more: of those, what is for no component is told first.
        lost = [key for key in wanted if key.partition(".")[0] not in parts]
        lost += [key for key in wanted if key not in names]
        refuse(len(wanted) - len(there), (lost or wanted)[0], len(wanted))


def check_filled(parts: Mapping[str, Any], adapter: str) -> None:
    """Check that every layer that was made for a LoRA has values: diffusers leaves those that the file lacks without memory.

    Args:
        parts: components of the pipeline.
        adapter: what peft calls the LoRA.

    Raises:
        CheckpointError: one has none.
    """
    for component, part in parts.items():
        for path, module in part.named_modules() if isinstance(part, nn.Module) else ():
            # With a hook of accelerate, weights are elsewhere, and not missing.
            for name, value in module.named_parameters(recurse=False) if not hasattr(module, "_hf_hook") else ():
                if value.is_meta and adapter in f"{path}.{name}".split("."):
                    missing = f"{component}.{path}.{name}".replace(f".{adapter}", "")
                    message = f"it has no values for {missing!r}, while other layers of it have such"
                    raise CheckpointError(message, "It is not whole: get it again, or remove those of the other layers")


def refuse(count: int, first: str, of: int) -> None:
    """Raise CheckpointError for some of a LoRA's tensors, of which the first is named, that would have no effect."""
    raise CheckpointError(f"{count:,} of its {of:,} tensors would change nothing here, {first!r} among them", PARTIAL)
