"""A worker of genrun whose model ends it in the middle of an evaluation, once."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from genrun.adapters.pipeline import loading
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.order import Order
from genrun.runner.worker.main import main

EVALUATION = 3


def end_in(pipe: Any, number: signal.Signals, token: Path) -> None:
    """Have the transformer's first block send this process a signal, unless a process before it took the token away."""
    calls = [0]

    def forward(*_: Any) -> None:
        calls[0] += 1
        if calls[0] == EVALUATION and token.exists():
            token.rename(token.with_suffix(".used"))
            os.kill(os.getpid(), number)

    pipe.transformer.transformer_blocks[0].register_forward_hook(forward)


def work(run: RunFolder, order: Order, number: signal.Signals, token: Path) -> None:
    """Be a worker, in a process forked for it, and end the process."""
    plain = loading.load

    def load(*args: Any, **kwargs: Any) -> Any:
        pipe = plain(*args, **kwargs)
        end_in(pipe, number, token)
        return pipe

    loading.load = load
    sys.exit(main([str(run.path), "--job", order.job], environ={}))
