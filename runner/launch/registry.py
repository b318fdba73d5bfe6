"""Launchers by name: one module each in this package, others by the entry point `genrun.launchers`.

A launcher is a function `make(request: Request) -> Launcher`.
"""

from genrun.registry import Registry

_REGISTRY = Registry(
    what="launcher",
    group="genrun.launchers",
    package="genrun.runner.launch",
    own={"inline": "inline:make", "slurm": "slurm:make", "torchrun": "torchrun:make"},
)
names = _REGISTRY.names
get = _REGISTRY.get
