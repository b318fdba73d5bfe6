"""Solvers by name: one module each in this package, others by the entry point `genrun.solvers`.

A solver is a frozen dataclass whose fields are its options in a job file.
"""

from genrun.registry import Registry

_REGISTRY = Registry(
    what="solver",
    group="genrun.solvers",
    package="genrun.solvers",
    own={
        "sequential": "sequential:Sequential",
        "paradigms": "paradigms:Paradigms",
        "parataa": "parataa:Parataa",
        "parasolver": "parasolver:Parasolver",
        "parasolver-turbo": "parasolver_turbo:ParasolverTurbo",
        "ropa": "ropa:Ropa",
        "chords": "chords:Chords",
        "srds": "srds:Srds",
        "collocation": "collocation:Collocation",
    },
)
names = _REGISTRY.names
get = _REGISTRY.get
