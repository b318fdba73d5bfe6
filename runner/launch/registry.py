"""Launchers by name: genrun's own, and others by the entry point `genrun.launchers`.

A launcher is made by calling what is registered with a `Request`; see `protocol.Launcher`.
"""

from genrun.registry import Registry

_REGISTRY = Registry(
    what="launcher",
    group="genrun.launchers",
    package="genrun",
    own={
        "inline": "runner.launch.local:InlineLauncher",
        "slurm": "slurm.launcher:SlurmLauncher",
        "torchrun": "runner.launch.local:TorchrunLauncher",
    },
)
names = _REGISTRY.names
get = _REGISTRY.get
