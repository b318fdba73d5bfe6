"""The command line, with fake workers: `python tests/fakes/cli.py submit job.yaml`."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from genrun.runner.api import launching
from genrun.runner.cli import main
from genrun.runner.job.plan import WorkItem
from genrun.runner.job.schema import JobSpec
from genrun.runner.launch import registry
from genrun.runner.launch.protocol import Launcher
from genrun.runner.submit.follow import request_of

WORKER = Path(__file__).with_name("worker.py")
ROOT = Path(__file__).parents[2]


def make_launcher(spec: JobSpec, document: Mapping[str, Any], items: Sequence[WorkItem] = ()) -> Launcher:
    # What the caller has there stays: the killer of `tests.bench.kills`.
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))}
    return registry.get(spec.launch.kind)(replace(request_of(spec, document, environ, items), program=(str(WORKER),)))


if __name__ == "__main__":
    launching.make_launcher = make_launcher
    main(prog_name="genrun")
