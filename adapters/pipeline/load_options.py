"""Options of loading: how the weights are kept in memory, quantised or not, and how the pipeline runs on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

from genrun.adapters.checkpoint.strict import LoadError
from genrun.adapters.pipeline.additions import Additions

Offload = Literal["none", "model", "sequential", "group"]
Compile = Literal[False, True, "regional"]

PACKAGES = {
    "bitsandbytes_4bit": "bitsandbytes",
    "bitsandbytes_8bit": "bitsandbytes",
    "torchao": "torchao",
    "quanto": "optimum-quanto",
}
"""Backends of quantisation in diffusers, and the package to install for each."""

MODULES = {"optimum-quanto": "optimum.quanto"}
"""Package -> its import name, where the two differ."""

ENCODERS = "text_encoder"
"""Prefix of the names of a pipeline's text encoders."""


@dataclass(frozen=True)
class LoadOptions:
    """Options of how a pipeline is loaded and kept in memory.

    Attributes:
        dtype: number type of all components, or component -> number type with "default" for the others.
        offload: what waits in the machine's memory: nothing; each model until it is used; each group of blocks; or
            each layer. The bits stay the same.
        tiling: decode large pictures in overlapping tiles, which the VAE blends.
        slicing: decode the pictures of a batch one by one.
        compile: compile the denoiser as a whole, or ("regional") the block that it repeats.
        quantization: "backend", "components" and the backend's own options; None to keep the weights as they are.
        variant: of the weights files that are read, such as fp16; None for the plain ones, or the only ones.
        additions: LoRAs, ControlNets and the like, and components in place of the checkpoint's.
    """

    dtype: str | Mapping[str, str] = "float32"
    offload: Offload = "none"
    tiling: bool = False
    slicing: bool = False
    compile: Compile = False
    quantization: Mapping[str, Any] | None = None
    variant: str | None = None
    additions: Additions = field(default_factory=Additions)

    @classmethod
    def of(cls, model: Mapping[str, Any], default: str) -> LoadOptions:
        """Read an item's model, whose keys are those of a job's section `model`.

        Args:
            model: what is missing has its default.
            default: dtype where the model says none.
        """
        vae = model.get("vae") or {}
        return cls(
            dtype=model.get("dtype") or default,
            offload=model.get("offload") or "none",
            tiling=bool(vae.get("tiling")),
            slicing=bool(vae.get("slicing")),
            compile=model.get("compile") or False,
            quantization=model.get("quantization"),
            variant=model.get("variant"),
            additions=Additions.of(model),
        )

    def dtype_of(self, component: str) -> str:
        """Return the number type of one component."""
        if isinstance(self.dtype, str):
            return self.dtype
        return self.dtype.get(component) or self.dtype["default"]

    @property
    def components(self) -> tuple[str, ...]:
        """Components that are named one by one: in `dtype` and in `quantization`."""
        dtypes = () if isinstance(self.dtype, str) else (name for name in self.dtype if name != "default")
        return (*dtypes, *((self.quantization or {}).get("components") or ()))


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
        if backend == "quanto":
            return PipelineQuantizationConfig(quant_mapping=_quanto(options, components or ["transformer"]))
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
    from diffusers.quantizers import quantization_config as diffusers
    from transformers.utils import quantization_config as transformers

    torchao, rest = import_module("torchao.quantization"), dict(options)
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


def _quanto(options: Mapping[str, Any], components: list[str]) -> dict[str, Any]:
    """Make a config for each component: diffusers and transformers have other names for the type of the weights."""
    from diffusers.quantizers.quantization_config import QuantoConfig
    from transformers.utils.quantization_config import QuantoConfig as EncoderConfig

    weights, skipped = options.get("weights_dtype", "int8"), options.get("modules_to_not_convert")
    unknown = sorted(options.keys() - {"weights_dtype", "modules_to_not_convert"})
    if unknown:  # the classes take any, and heed none
        raise ValueError(f"{unknown[0]}: there is no such option; there are weights_dtype and modules_to_not_convert")
    return {
        name: EncoderConfig(weights, modules_to_not_convert=skipped)
        if name.startswith(ENCODERS)
        else QuantoConfig(weights, skipped)
        for name in components
    }
