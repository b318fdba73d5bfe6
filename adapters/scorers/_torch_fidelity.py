"""torch-fidelity without torchvision, which its package imports for data sets that genrun does not use."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType

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
