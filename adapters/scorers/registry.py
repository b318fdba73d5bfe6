"""Metrics by name: one module each in this package, others by the entry point `genrun.scorers`.

A metric satisfies `contract.Metric` or `contract.SetMetric`, and imports torch inside functions only.
"""

from genrun.registry import Registry

_REGISTRY = Registry(
    what="metric",
    group="genrun.scorers",
    package="genrun.adapters.scorers",
    own={
        name: f"{name}:METRIC"
        for name in (
            "checker",
            "clip_score",
            "fid",
            "fvd",
            "latent_rmse",
            "latent_worst_block",
            "lpips",
            "psnr",
            "ssim",
            "temporal_flicker",
            "vbench",
        )
    },
)
names = _REGISTRY.names
get = _REGISTRY.get
