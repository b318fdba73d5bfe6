"""Metrics by name: one module each in this package, others by the entry point `genrun.scorers`.

A metric satisfies `contract.Metric` or `contract.SetMetric`, and imports torch inside functions only.
"""

from genrun.registry import Registry

_REGISTRY = Registry(
    what="metric",
    group="genrun.scorers",
    package="genrun.adapters.scorers",
    own={
        "checker": "checker:METRIC",
        "clip_score": "clip_score:METRIC",
        "fid": "fid:METRIC",
        "fvd": "fvd:METRIC",
        "image_similarity": "image_similarity:METRIC",
        "latent_rmse": "latent_rmse:METRIC",
        "latent_worst_block": "latent_worst_block:METRIC",
        "lpips": "lpips:METRIC",
        "psnr": "psnr:METRIC",
        "ssim": "ssim:METRIC",
        "temporal_flicker": "temporal_flicker:METRIC",
        "vbench": "vbench.metric:METRIC",
    },
)
names = _REGISTRY.names
get = _REGISTRY.get
