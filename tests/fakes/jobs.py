"""Job files for tests: written to a folder, loaded with made-up registries, their problems as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from genrun.runner.job import LoadedJob, load
from genrun.runner.job.errors import JobFileError
from genrun.runner.job.plan import WorkItem, plan
from tests.fakes.registries import fake_registries

BASE = "model: tiny-video\nprompts: [a red kite]\n"


def load_text(text: str, *sets: str, environ: Mapping[str, str] | None = None, name: str = "job.yaml") -> LoadedJob:
    """Write a job to the current folder and load it."""
    Path(name).write_text(text, encoding="utf-8")
    return load(name, sets, environ or {}, fake_registries())


def problems_of(text: str, *sets: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """The problems of a job, a line each."""
    with pytest.raises(JobFileError) as caught:
        plan(load_text(text, *sets, environ=environ))
    return str(caught.value).split("\n")


def items_of(text: str, *sets: str, environ: Mapping[str, str] | None = None) -> list[WorkItem]:
    """The items of a job."""
    return plan(load_text(text, *sets, environ=environ))


def ids(items: Sequence[WorkItem]) -> list[str]:
    """The ids of items."""
    return [item.id for item in items]
