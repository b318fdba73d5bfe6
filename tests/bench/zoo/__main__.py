"""The zoo's command line; `python -m tests.bench.zoo --help`."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from .models import MODELS
from .train import train


def main() -> None:
    """Run a command."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.zoo", description="Small models to measure on.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="name the models, and say which are for tuning")
    training = commands.add_parser("train", help="train a model, or `all` of them, one after the other")
    training.add_argument("name", choices=[*MODELS, "all"])
    training.add_argument("--out", type=Path, default=Path("runs/.zoo"), help="folder of the models (default: runs/.zoo)")
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--threads", type=int, default=1)
    training.add_argument("--share", type=float, default=1.0, help="of the steps, to see that it runs")
    chosen = parser.parse_args()
    if chosen.command == "list":
        for name, model in MODELS.items():
            print(f"{name:14} {'for tuning' if model.tuned else 'reported  '}  {model.title}")
        return
    torch.set_num_threads(chosen.threads)
    for name in MODELS if chosen.name == "all" else [chosen.name]:
        print(train(name, chosen.out, chosen.seed, chosen.share), flush=True)


if __name__ == "__main__":
    main()
