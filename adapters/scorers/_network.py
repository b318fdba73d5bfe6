"""Feature networks in TorchScript files of the user's: those that NVIDIA publishes for FID, FVD and LPIPS, or others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.adapters.scorers.contract import UnscoredError

if TYPE_CHECKING:
    from torch import Tensor

    from genrun.adapters.shapes import Features


def load_network(path: Path | None, metric: str, published: str, device: str) -> Any:
    """Load a TorchScript file. It is a program: load only files that you trust.

    Args:
        path: the file, or None.
        metric: the metric that needs it, for messages.
        published: the name under which the usual file is published.
        device: where to put it.

    Raises:
        UnscoredError: there is none, or it is no TorchScript file; the message says how to name one.
    """
    import torch

    if path is None:
        raise UnscoredError(
            f"{metric} needs a feature network (TorchScript, such as {published}): "
            f"score: [{{kind: {metric}, network: FILE}}]"
        )
    if not path.is_file():
        raise UnscoredError(f"{metric}: there is no file {path}")
    try:
        return torch.jit.load(str(path), map_location=device).eval()
    except Exception as error:
        why = " ".join(str(error).split())[:200]
        raise UnscoredError(f"{metric}: {path} is no TorchScript file that can be loaded: {why}") from error


def run(network: Any, inputs: Tensor, **wanted: bool) -> Features:
    """Call a network with those of the keywords that it knows, and return (B, features), float64 on the CPU.

    Raises:
        UnscoredError: it gives something else, or numbers that are not finite.
    """
    import torch

    known = {argument.name for argument in network.forward.schema.arguments}
    with torch.inference_mode():
        features = network(inputs, **{name: value for name, value in wanted.items() if name in known})
    return checked(features, len(inputs))


def checked(features: Any, count: int) -> Features:
    """Return what a feature network gave as (B, features), float64 on the CPU.

    Raises:
        UnscoredError: it is no tensor of `count` rows, or holds numbers that are not finite.
    """
    import torch

    if not isinstance(features, torch.Tensor) or features.ndim < 2 or len(features) != count:
        raise UnscoredError("the feature network gives no (batch, features) tensor")
    features = features.double().flatten(1).cpu()
    if not features.isfinite().all():
        raise UnscoredError("the feature network gives numbers that are not finite")
    return features
