"""What diffusers pipelines do in their loops besides model and scheduler: to be followed, or refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from genrun.adapters.session import RefusedError

COUNTER_ARGUMENTS: dict[str, Callable[[Any], bool]] = {
    "skip_guidance_layers": lambda value: value is not None,
    "callback_on_step_end": lambda value: value is not None,
    "callback": lambda value: value is not None,
    "denoising_start": lambda value: value is not None,
    "denoising_end": lambda value: value is not None,
    "control_guidance_start": lambda value: value not in (None, 0.0),
    "control_guidance_end": lambda value: value not in (None, 1.0),
}


def check_call(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments of a pipeline call that act by the loop's counter. Raises RefusedError naming the argument."""
    for name, is_used in COUNTER_ARGUMENTS.items():
        if is_used(arguments.get(name)):
            raise RefusedError(
                f"{name} goes by the loop's counter, which does not follow time under a solver; leave it out, or call the "
                "pipeline without genrun"
            )


def check_pipeline(pipe: Any) -> None:
    """Refuse a pipeline whose components act by the loop's counter. Raises RefusedError naming the component."""
    guider = getattr(pipe, "guider", None)
    start, stop = getattr(guider, "_start", 0.0), getattr(guider, "_stop", 1.0)
    if guider is not None and (start, stop) != (0.0, 1.0):
        raise RefusedError(
            f"guider {type(guider).__name__} with start={start}, stop={stop} switches guidance by the loop's counter; "
            "use start=0 and stop=1, or call the pipeline without genrun"
        )


def held_dtype(pipe: Any) -> Any:
    """The dtype that a pipeline casts its latents to after each step, or None where it does not.

    CogVideoX upcasts the model's output to float32, and casts what the scheduler returns to the prompt embeddings' dtype.
    """
    if not type(pipe).__name__.startswith("CogVideoX"):
        return None
    return getattr(pipe, "encoded_dtype", None) or pipe.text_encoder.dtype
