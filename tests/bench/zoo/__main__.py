"""The zoo's command line; `python -m tests.bench.zoo --help`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from . import coverage, targets
from .models import MODELS
from .train import train


def main() -> None:
    """Run a command."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.zoo", description="Small models to measure on.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="name the models, and say which are for tuning")
    training = commands.add_parser("train", help="train a model, or `all` of them, one after the other")
    training.add_argument("name", choices=[*MODELS, "all"])
    training.add_argument(
        "--out", type=Path, default=Path("runs/.zoo"), help="folder of the models (default: runs/.zoo)"
    )
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--threads", type=int, default=1)
    training.add_argument("--share", type=float, default=1.0, help="of the steps, to see that it runs")
    covering = commands.add_parser("coverage", help="calibrate in every cell, and look at fresh samples")
    covering.add_argument("--models", default=",".join(coverage.REPORTED))
    covering.add_argument("--steps", default=",".join(map(str, coverage.STEPS)))
    covering.add_argument("--guidance", default=",".join(map(str, coverage.GUIDANCE)))
    covering.add_argument("--workers", default=",".join(map(str, coverage.WORKERS)))
    covering.add_argument("--tolerance", type=float, default=0.05)
    covering.add_argument("--kind", default="collocation")
    covering.add_argument("--minutes", type=float, default=float("inf"), help="begin no cells after so long")
    covering.add_argument("--hindsight", action="store_true", help="try looser settings on the fresh samples, too")
    covering.add_argument("--zoo", type=Path, default=Path("runs/.zoo"), help="folder of the models")
    covering.add_argument("--out", type=Path, default=Path("runs/.coverage"), help="folder of the results")
    covering.add_argument("--picture", type=Path, help="draw the shares here")
    covering.add_argument("--threads", type=int, default=1)
    aiming = commands.add_parser(
        "targets", help="rounds at equal error beside the other solvers; goes on where it stopped"
    )
    aiming.add_argument("--models", default=",".join(coverage.REPORTED))
    aiming.add_argument("--workers", default=",".join(map(str, targets.WORKERS)))
    aiming.add_argument("--peers", default=",".join(targets.PEERS))
    aiming.add_argument("--clones", type=Path, help="measure the authors' own code, too; folder of their repositories")
    aiming.add_argument("--samples", type=int, default=32)
    aiming.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing after so long")
    aiming.add_argument("--zoo", type=Path, default=Path("runs/.zoo"), help="folder of the models")
    aiming.add_argument("--out", type=Path, default=Path("runs/.targets"), help="folder of the results")
    aiming.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    if chosen.command == "list":
        for name, model in MODELS.items():
            print(f"{name:14} {'for tuning' if model.tuned else 'reported  '}  {model.title}")
        return
    torch.set_num_threads(chosen.threads)
    if chosen.command == "targets":
        workers = [int(each) for each in chosen.workers.split(",")]
        until = time.time() + 60 * chosen.minutes
        models, peers = chosen.models.split(","), chosen.peers.split(",")
        targets.measure(models, workers, peers, chosen.zoo, chosen.out, chosen.samples, until, chosen.clones)
        targets.summarize(chosen.out, chosen.samples)
        return
    if chosen.command == "coverage":
        coverage.cover(
            chosen.models.split(","),
            [int(each) for each in chosen.steps.split(",")],
            [float(each) for each in chosen.guidance.split(",")],
            [int(each) for each in chosen.workers.split(",")],
            chosen.zoo,
            chosen.out,
            chosen.tolerance,
            chosen.kind,
            time.time() + 60 * chosen.minutes,
            chosen.hindsight,
        )
        coverage.summarize(chosen.out, chosen.picture)
        return
    for name in MODELS if chosen.name == "all" else [chosen.name]:
        print(train(name, chosen.out, chosen.seed, chosen.share), flush=True)


if __name__ == "__main__":
    main()
