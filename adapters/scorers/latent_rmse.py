"""Distance of the final latents to the sequential sampler's, in standard deviations.

    latent_rmse = sqrt(mean((z - z_ref)^2)) / std(z_ref)

over all elements; 0 means bit-identical, sqrt(2) is the distance of two unrelated samples of equal spread.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from genrun.adapters.scorers.contract import Sample, UnscoredError

if TYPE_CHECKING:
    from genrun.adapters.shapes import Errors, OurLatents, TheirLatents


@dataclass(frozen=True)
class LatentRmse:
    """RMSE(latents, sequential latents) / std(sequential latents)."""

    name: str = "latent_rmse"
    version: int = 1
    title: str = "latent RMSE"
    definition: str = (
        "Root mean square difference of the final latents to the sequential sampler's of the same prompt and seed, "
        "divided by the standard deviation of the sequential latents. 0 is bit-identical."
    )
    higher_is_better: bool = False
    bounds: tuple[float, float] = (0.0, math.inf)
    style: Literal["number"] = "number"
    reads: Literal["latents"] = "latents"
    compares: bool = True

    def measure(self, sample: Sample, reference: Sample | None, /) -> Mapping[str, float]:
        """Return {"latent_rmse": value}."""
        error, spread = squared_error(sample, reference)
        return {self.name: error.mean().sqrt().item() / spread}


def squared_error(sample: Sample, reference: Sample | None) -> tuple[Errors, float]:
    """Return the squared difference of the latents (float64, the latents' shape) and std of the reference's.

    Raises:
        UnscoredError: latents are missing, differ in shape, or the reference's are constant.
    """
    if reference is None:
        raise UnscoredError("no sequential item of this prompt and seed to compare with")
    ours = sample.state
    try:
        theirs = reference.state
    except UnscoredError as error:
        raise UnscoredError(f"the sequential item: {error}") from error
    return difference(ours, theirs)


def difference(ours: OurLatents, theirs: TheirLatents) -> tuple[Errors, float]:
    """Return the squared difference (float64) of two latents of one shape, and std of the second, the reference.

    Raises:
        UnscoredError: they differ in shape, or the reference's are constant.
    """
    ours, theirs = ours.double(), theirs.double()
    if ours.shape != theirs.shape:
        raise UnscoredError(f"latents differ in shape: {tuple(ours.shape)} and sequential {tuple(theirs.shape)}")
    spread = theirs.std(correction=0).item()
    if spread == 0:
        raise UnscoredError("the sequential latents are constant")
    return (ours - theirs).square(), spread


METRIC = LatentRmse()
