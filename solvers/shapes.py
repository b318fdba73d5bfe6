"""Tensor types in the solvers' signatures, and the names of their dimensions.

| dimension | meaning |
|---|---|
| `*state` | all dimensions of one sample's latents, such as (1, channels, height, width); float32 |
| `*output` | the model's output: `*state`, with twice the channels where it predicts a variance too |
| `elements` | the numbers of a state in a row |
| `modes` | the Gaussians of a mixture |
| `secants` | the secants that a model of the Jacobian holds, of up to `capacity` |
| `rows` | their rows, two a secant |
| `*vectors` | nothing for one vector, or a number of them |

Tests install jaxtyping's import hook, which checks every call: a dimension named twice in a signature has one size there.
Modules import this one for type checking only, because it imports torch.
"""

from jaxtyping import Float, Float32, Float64
from torch import Tensor

State = Float32[Tensor, "*state"]
"""A state, or anything of its shape: an x0-prediction, a correction, a direction."""
Output = Float[Tensor, "*output"]
"""A model's output, in the model's dtype."""

Elements = Float32[Tensor, " elements"]
Modes = Float32[Tensor, "modes elements"]

Pairs = Float32[Tensor, "capacity 2 elements"]
"""Storage of secants: a move, and the change that it made."""
Secants = Float32[Tensor, "rows elements"]
"""Moves in even rows, their changes in odd ones."""
Vectors = Float32[Tensor, "elements *vectors"]
"""A vector of a state's size, or several as columns."""
Products = Float64[Tensor, "rows *vectors"]
"""Inner products of the secants' rows with vectors."""
PerSecant = Float64[Tensor, " secants"]
Gram = Float64[Tensor, "secants secants"]
"""A number for each pair of secants."""
