"""genrun: batches of text-to-video and text-to-image jobs, sampled in parallel over diffusion time.

For a diffusers user:

    with genrun.parallelize(pipe, solver="ropa", workers=8) as run:
        images = pipe(prompt).images
    print(run.solution.rounds)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genrun.adapters.sampling.parallelize import parallelize

__version__ = "0.2.0"
__all__ = ["parallelize"]


def __getattr__(name: str) -> Any:
    """Import `parallelize`, and torch with it, when it is first asked for."""
    if name == "parallelize":
        from genrun.adapters.sampling.parallelize import parallelize

        return parallelize
    raise AttributeError(f"module 'genrun' has no attribute {name!r}")
