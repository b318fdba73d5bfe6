"""Tensor and array types in the signatures of adapters, and the names of their dimensions.

| dimension | meaning |
|---|---|
| `batch` | samples of a pipeline call |
| `*latent` | the other dimensions of latents, such as (channels, frames, height, width) |
| `*output` | those of a model's output: `*latent`, with twice the channels where it predicts a variance too |
| `frames height width channels` | a decoded picture (one frame) or clip |
| `rows features`, `rows size` | features, or embeddings, of pictures or clips |
| `rows tokens width` | what a transformer's block sees: its tokens, `width` numbers each |

Tests install jaxtyping's import hook, which checks every call: a dimension named twice in a signature has one size there.
Modules that are imported without torch import this one for type checking only.
"""

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Shaped, UInt8
from torch import Tensor

Latents = Float[Tensor, "batch *latent"]
Output = Float[Tensor, "batch *output"]

AnyLatents = Shaped[Tensor, "batch *latent"]
"""Of any dtype: tokens of a discrete model too."""
Rows = Shaped[Tensor, "_ *dims"]
"""Some samples of a batch."""
OneLatents = Float[Tensor, "1 *latent"]
"""A single sample, in the pipeline's dtype."""

Sample = Float32[Tensor, "1 *latent"]
"""A solver's state: one sample, float32."""
SampleOutput = Float[Tensor, "1 *output"]

Bytes = UInt8[Tensor, " bytes"]
"""The state of a random generator, or a message between ranks."""
Messages = UInt8[Tensor, "ranks bytes"]

Frames = UInt8[np.ndarray, "frames height width channels"]
AnyFrames = Shaped[np.ndarray, "frames height width channels"]
RgbFrames = UInt8[np.ndarray, "frames height width 3"]
SomeFrames = UInt8[np.ndarray, "_ height width 3"]
"""Some of the frames of a clip."""
Pixels = Float32[Tensor, "frames 3 height width"]
"""Decoded frames in 0..255, as metrics of torchmetrics take them."""
ByteImages = UInt8[Tensor, "rows 3 height width"]

Features = Float64[Tensor, "rows features"]
FeaturePart = Float64[Tensor, "_ features"]
"""Some rows of features."""
FeatureMean = Float64[Tensor, " features"]
FeatureCovariance = Float64[Tensor, "features features"]
Vectors = Float[Tensor, "rows size"]
PerFrame = Float32[Tensor, " frames"]

LatentState = Float32[Tensor, "..."]
OurLatents = Float[Tensor, "*_"]
TheirLatents = Float[Tensor, "*latent"]
Errors = Float64[Tensor, "*latent"]
"""Squared differences of two samples' latents."""

Tokens = Float[Tensor, "rows tokens width"]
Queries = Float[Tensor, "rows queries width"]
TextTokens = Float[Tensor, "rows text width"]
Scores = Float32[Tensor, "rows tokens"]
PerToken = Shaped[Tensor, "rows tokens *rest"]
PartOfTokens = Shaped[Tensor, "rows _ *rest"]
"""This rank's part of the tokens."""
Chosen = Int[Tensor, "rows chosen"] | Bool[Tensor, "rows tokens"]
"""Tokens by their places, or on several ranks by a mask."""
ChosenTokens = Float[Tensor, "_ _ width"]
Attention = Float32[Tensor, "rows heads queries tokens"]
Mask = Shaped[Tensor, "*rest tokens"]
