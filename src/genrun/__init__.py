"""genrun: batches of text-to-video and text-to-image jobs, sampled in parallel over diffusion time.

For a diffusers user:

    with genrun.parallelize(pipe, solver="ropa", workers=8) as run:
        images = pipe(prompt).images
    print(run.solution.rounds)

A batch, from Python:

    run = genrun.submit("jobs/demo.yaml")
    run.score()
    print(run.report().path)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from genrun.version import __version__

if TYPE_CHECKING:
    from genrun.adapters.sampling.parallelize import parallelize
    from genrun.api import Run, bench, compare, report, runs, score, submit
    from genrun.runner.errors import GenrunError

__all__ = [
    "GenrunError",
    "Run",
    "__version__",
    "bench",
    "compare",
    "parallelize",
    "report",
    "runs",
    "score",
    "submit",
]

_HOMES = {
    "GenrunError": "genrun.runner.errors",
    "Run": "genrun.runner.api.run",
    "bench": "genrun.runner.api.measuring",
    "compare": "genrun.runner.api.results",
    "parallelize": "genrun.adapters.sampling.parallelize",
    "report": "genrun.runner.api.results",
    "runs": "genrun.runner.api.housekeeping",
    "score": "genrun.runner.api.results",
    "submit": "genrun.runner.api.submitting",
}


def __getattr__(name: str) -> Any:
    """Import a name, `api` or `solvers` when it is first asked for; only `parallelize` brings torch with it."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in ("api", "solvers"):
        return import_module(f"genrun.{name}")
    from genrun.registry import did_you_mean

    raise AttributeError(f"module 'genrun' has no attribute {name!r}.{did_you_mean(name, __all__)}")


def __dir__() -> list[str]:
    """List the public names, which are imported only when they are asked for."""
    return sorted(__all__)
