"""Options of loading: how the weights are kept in memory, and how the pipeline runs on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

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
