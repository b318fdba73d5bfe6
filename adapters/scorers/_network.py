"""Feature networks: torch-fidelity's InceptionV3, and TorchScript files of the user's, as NVIDIA publishes them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from genrun.adapters.scorers.contract import UnscoredError

if TYPE_CHECKING:
    from torch import Tensor

    from genrun.adapters.shapes import ByteImages, Features


PACKAGE = "torch_fidelity"


@contextmanager
def without_torchvision() -> Iterator[None]:
    """Import modules of torch-fidelity, and torchmetrics, which imports some, without running torch-fidelity's `__init__`.

    Where torch-fidelity is installed and torchvision is not, or was built for another torch, `import torchmetrics` fails
    otherwise. A torch-fidelity that is not installed, or imported already, is left alone.
    """
    spec = None if PACKAGE in sys.modules else find_spec(PACKAGE)
    if spec is None:
        yield
        return
    package = ModuleType(PACKAGE)
    package.__path__ = list(spec.submodule_search_locations or ())
    package.__spec__ = spec
    sys.modules[PACKAGE] = package
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]


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


# The last layer before the classes: 2048 numbers, which the definition of FID and published statistics go by.
LAYER = "2048"


class Inception:
    """InceptionV3 with its weights from a file, or downloaded once into torch's cache.

    Args:
        metric: the metric that needs it, for messages.
        weights: a file of its weights (state dict); None downloads the published one.
        device: a torch device.

    Raises:
        UnscoredError: torch-fidelity is not installed, or the weights cannot be had; the message says what to do.
    """

    def __init__(self, metric: str, weights: Path | None, device: str) -> None:
        if find_spec(PACKAGE) is None:
            raise UnscoredError(
                f"{metric} needs InceptionV3: pip install 'genrun[fid]'; or name a network of your own (TorchScript, such "
                f"as inception-v3-2015-12-05.pt): score: [{{kind: {metric}, network: FILE}}]"
            )
        with without_torchvision():
            module: Any = import_module("torch_fidelity.feature_extractor_inceptionv3")
        state = _state_of(metric, weights, module.URL_INCEPTION_V3)
        # The class would unpickle a file that it is given, and so run code; what was read above holds tensors alone.
        module.load_state_dict_from_url = lambda *_, **__: state
        try:
            self._network = module.FeatureExtractorInceptionV3("inception-v3", [LAYER]).to(device)
        except (RuntimeError, AttributeError, TypeError) as error:
            why = " ".join(str(error).split())[:200]
            raise UnscoredError(f"{metric}: {weights} holds no weights of InceptionV3: {why}") from error

    def __call__(self, pictures: ByteImages) -> Features:
        """Return the features of pictures, (B, 3, H, W) uint8 -> (B, 2048) float64 on the CPU; sizes are its own matter."""
        import torch

        with torch.inference_mode():
            (features,) = self._network(pictures)
        return checked(features, len(pictures))


def _state_of(metric: str, weights: Path | None, url: str) -> Any:
    """Read or download weights: tensors alone, whatever else a file holds."""
    import torch

    try:
        if weights is not None:
            return torch.load(weights, map_location="cpu", weights_only=True)
        return torch.hub.load_state_dict_from_url(
            url, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except Exception as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if weights is not None:
            raise UnscoredError(f"{metric}: the weights {weights} cannot be read ({why})") from error
        raise UnscoredError(
            f"{metric}: the weights of InceptionV3 cannot be downloaded ({why}); get {url} where there is a network, and "
            f"name the file: score: [{{kind: {metric}, weights: FILE}}]"
        ) from error
