"""FID's own network: torch-fidelity's InceptionV3, converted from the TensorFlow graph of Heusel et al. (2017)."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.adapters.scorers._network import checked
from genrun.adapters.scorers._torch_fidelity import PACKAGE, without_torchvision
from genrun.adapters.scorers.contract import UnscoredError

if TYPE_CHECKING:
    from genrun.adapters.shapes import ByteImages, Features

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
