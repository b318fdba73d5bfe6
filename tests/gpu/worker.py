"""A worker of genrun whose model ends it in the middle of an evaluation, once: python -m tests.gpu.worker RUN --job ID

GENRUN_GPU_SIGNAL is the number of the signal, GENRUN_GPU_TOKEN a file that the first who comes there takes away.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from genrun.adapters.pipeline import loading
from genrun.runner.worker.main import main

SIGNAL, TOKEN = "GENRUN_GPU_SIGNAL", "GENRUN_GPU_TOKEN"
EVALUATION = 3


def end_in(pipe: Any) -> None:
    """Have the first block of the transformer end this process at one of its calls."""
    calls = [0]

    def forward(*_: Any) -> None:
        calls[0] += 1
        token = Path(os.environ[TOKEN])
        if calls[0] == EVALUATION and token.exists():
            token.rename(token.with_suffix(".used"))
            os.kill(os.getpid(), int(os.environ[SIGNAL]))

    pipe.transformer.transformer_blocks[0].register_forward_hook(forward)


def run() -> int:
    """Run the worker."""
    plain = loading.load

    def load(*args: Any, **kwargs: Any) -> Any:
        pipe = plain(*args, **kwargs)
        end_in(pipe)
        return pipe

    loading.load = load
    return main()


if __name__ == "__main__":
    sys.exit(run())
