"""Quantisation by name, passed through to diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from genrun.adapters.checkpoint.load_errors import LoadError
from genrun.adapters.pipeline.load_options import MODULES, PACKAGES

DTYPE_SUFFIX = "dtype"
"""Options whose names end so are number types where torch has one of that name."""


def missing(backend: str) -> str | None:
    """Return the command that installs a backend, or None where it is installed, importing nothing."""
    package = PACKAGES[backend]
    try:
        found = find_spec(MODULES.get(package, package))
    except ModuleNotFoundError:
        found = None
    return None if found else f"pip install {package}"


def pipeline_config(wanted: Mapping[str, Any] | None) -> Any:
    """Return the PipelineQuantizationConfig for "backend", "components" and the backend's options; None for None.

    Raises:
        LoadError: the backend's package is missing, or it does not take these options.
    """
    if wanted is None:
        return None
    from diffusers.quantizers.pipe_quant_config import PipelineQuantizationConfig

    options = {key: value for key, value in wanted.items() if key not in ("backend", "components")}
    backend: str = wanted["backend"]
    components: list[str] | None = list(wanted.get("components") or ()) or None
    install = missing(backend)
    if install:
        raise LoadError(f"model.quantization: {backend} is not installed", f"Install it: {install}")
    try:
        if backend == "torchao":
            return PipelineQuantizationConfig(quant_mapping=_torchao(options, components or ["transformer"]))
        return PipelineQuantizationConfig(backend, _with_dtypes(options), components)
    except (TypeError, ValueError, AttributeError) as error:
        raise LoadError(
            f"model.quantization: {backend}: {error}", "Compare the options with diffusers' guide."
        ) from error


def _with_dtypes(options: Mapping[str, Any]) -> dict[str, Any]:
    import torch

    return {
        key: getattr(torch, value)
        if key.endswith(DTYPE_SUFFIX) and isinstance(getattr(torch, str(value), None), torch.dtype)
        else value
        for key, value in options.items()
    }


def _torchao(options: Mapping[str, Any], components: list[str]) -> dict[str, Any]:
    """Make a config for each component; `quant_type` names a class of torchao.quantization."""
    import torchao.quantization as torchao  # pyright: ignore[reportMissingImports]
    from diffusers.quantizers import quantization_config as diffusers
    from transformers.utils import quantization_config as transformers

    rest = dict(options)
    name = rest.pop("quant_type", None)
    kind = getattr(torchao, str(name), None)
    if kind is None:
        raise ValueError(f"quant_type: torchao.quantization has no {name!r}; Int8WeightOnlyConfig is one")
    skipped = rest.pop("modules_to_not_convert", None)
    quant = kind(**_with_dtypes(rest))
    return {
        name: (transformers if name.startswith("text_encoder") else diffusers).TorchAoConfig(
            quant, modules_to_not_convert=skipped
        )
        for name in components
    }
