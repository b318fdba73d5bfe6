"""Use adapters under jaxtyping's import hook: beartype checks the shapes and dtypes of every call in the modules named here.

A process of its own, because the hook works on modules that are not imported yet. Prints what it ran.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import typing
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import TypeCheckError, install_import_hook

from genrun.solvers import contract

CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
"""With PEP 484's rule that an int will do for a float."""

MODULES = [
    f"genrun.adapters.{name}"
    for name in (
        "scheduler.noise",
        "scheduler.replay",
        "scheduler.session",
        "parallel.exchange",
        "parallel.context",
        "pipeline.pictures",
        "sampling.generate",
        "sampling.call",
        "caches.toca_tokens",
        "caches.toca_hooks",
        "media",
        "scorers.contract",
        "scorers._options",
        "scorers._frechet",
        "scorers._network",
        "scorers.clip_score",
        "scorers.fid",
        "scorers.fvd",
        "scorers.latent_rmse",
        "scorers.latent_worst_block",
        "scorers.psnr",
    )
]


def instrument() -> None:
    """Import the modules under the hook, with the imports that they make for type checking only."""
    # Before the switch below, which would have these import all that they have.
    for name in (
        "diffusers.hooks",
        "diffusers.pipelines.cogvideo",
        "diffusers.models._modeling_parallel",
        "transformers.models.clip.modeling_clip",
    ):
        importlib.import_module(name)
    # beartype checks arguments that are protocols by their members.
    for protocol in (contract.Solver, contract.Problem):
        typing.runtime_checkable(protocol)
    assert not any(name.startswith("genrun.adapters") for name in sys.modules)
    typing.TYPE_CHECKING = True
    with install_import_hook(MODULES, CHECKER):
        for name in MODULES:
            importlib.import_module(name)
    typing.TYPE_CHECKING = False


def sample_and_score(folder: Path) -> None:
    """Sample the demo models with solvers, schedulers with noise, a batch and a cache; decode, write, read and score."""
    from genrun.adapters import registry
    from genrun.adapters.caches.toca import Toca
    from genrun.adapters.media import write_image, write_video
    from genrun.adapters.pipeline.loading import load
    from genrun.adapters.sampling.call import SamplingRequest, decode
    from genrun.adapters.sampling.generate import sample, sample_batch
    from genrun.adapters.scorers import clip_score, latent_rmse, latent_worst_block, psnr
    from genrun.adapters.scorers.contract import Sample
    from genrun.solvers import registry as solvers

    captions = {
        "demo-video": "a small red circle moving left on gray",
        "demo-image": "a large white square at the top left on navy",
    }
    for name, caption in captions.items():
        adapter = registry.get(name)
        pipe = load(adapter, None, dtype=None, device="cpu")
        stochastic = {"kind": "DDPMScheduler" if name == "demo-video" else "EulerDiscreteScheduler"}
        requests = [SamplingRequest(caption, seed, adapter.resolve({"steps": 6})) for seed in (0, 1)]
        solver = solvers.get("collocation")(workers=3)
        sampled = [sample(pipe, adapter, requests[0], solver), sample(pipe, adapter, requests[0], solver, cache=Toca())]
        sample_batch(pipe, adapter, requests, solvers.get("paradigms")(workers=2))
        if name == "demo-video":
            noisy = SamplingRequest(caption, 0, adapter.resolve({"steps": 6, "scheduler": stochastic}))
            sample(pipe, adapter, noisy, solvers.get("srds")(workers=2))
        files = []
        for number, each in enumerate(sampled):
            frames = decode(pipe, adapter, requests[0], each.latents).frames
            files.append(folder / f"{number}.{'mp4' if len(frames) > 1 else 'png'}")
            write_video(files[-1], frames, 8) if len(frames) > 1 else write_image(files[-1], frames[0])
        ours, theirs = (Sample(caption, name, media=path) for path in files)
        print(name, psnr.METRIC.measure(ours, theirs), clip_score.METRIC.measure(ours, None))
        error, spread = latent_rmse.difference(sampled[0].latents, sampled[1].latents)
        print(latent_worst_block.worst_block(error, spread))


def exchange(folder: Path) -> None:
    """Exchange outputs in a group of one rank, and put a mask into the order of ranks."""
    from genrun.adapters.parallel.context import rank_by_rank
    from genrun.adapters.parallel.exchange import GroupExchange

    dist.init_process_group("gloo", init_method=(folder / "store").as_uri(), rank=0, world_size=1)
    group, like = GroupExchange(), torch.randn(1, 4, 3).half()
    group.begin(like, 2)
    found, notes = group.gather([like, like + 1], 2, 7, (1, 2, 0, 0))
    assert notes == (1, 2, 0, 0) and torch.equal(found[1], like + 1)
    dist.destroy_process_group()
    assert rank_by_rank(torch.arange(6)[None], 4, 2).tolist() == [[0, 1, 4, 2, 3, 5]]


def distances() -> None:
    """Fit Gaussians to features, and compare them."""
    from genrun.adapters.scorers._frechet import distance, fitted

    rows = torch.randn(20, 4, dtype=torch.float64)
    assert distance(fitted([rows[:7], rows[7:]]), fitted([rows])) < 1e-9


def refuse() -> None:
    """Call with a wrong shape, a wrong dtype and shapes that do not agree: the hook must be at work."""
    from genrun.adapters.caches.toca_tokens import influence
    from genrun.adapters.parallel.exchange import Layout
    from genrun.adapters.pipeline.pictures import Pictures
    from genrun.adapters.scheduler.replay import ReplayedStep
    from genrun.adapters.scorers._frechet import Gaussian

    square: Any = torch.zeros(3, 3, dtype=torch.float64)
    for wrong in (
        lambda: Pictures(np.zeros((1, 4, 4, 3))),
        lambda: ReplayedStep(torch.zeros(1, 2).long(), ()),
        lambda: Layout.of(torch.zeros(1)).read(torch.zeros(4)),
        lambda: Gaussian(torch.zeros(4, dtype=torch.float64), square),
        lambda: influence(torch.zeros(1, 5, 8), torch.zeros(1, 5, 6), 2),
    ):
        try:
            wrong()
        except (TypeCheckError, BeartypeCallHintViolation):
            print("refused")


if __name__ == "__main__":
    instrument()
    with tempfile.TemporaryDirectory() as temporary:
        sample_and_score(Path(temporary))
        exchange(Path(temporary))
    distances()
    refuse()
