"""Test-wide settings: no silent skips where GENRUN_NO_SKIPS is set (as in continuous integration); little idle work."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import settings

# Whatever defaults the developer has, tests have none.
os.environ["GENRUN_CONFIG"] = os.devnull
os.environ.pop("GENRUN_RUNS", None)
# Hundreds of programs are started: each reads the bytecode of the first, also where the developer's shell keeps none.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# What a power failure would lose, no test can see, and who waits for a disk is idle. Programs that tests start do wait.
os.fsync = lambda fd: None
# Searches for garbage go over the million objects of torch, diffusers and the collected tests: a sixth of the work.
gc.set_threshold(20_000, 20, 20)
# A shell lets what it starts in the background ignore Ctrl-C, and every program that the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("genrun", derandomize=True, deadline=None)
settings.load_profile("genrun")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave parameters that `unit_part` does not name to the end-to-end part."""
    for item in items:
        given: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
        for marker in item.iter_markers("unit_part"):
            if any(name in given and given[name] not in values for name, values in marker.kwargs.items()):
                item.add_marker("e2e")


def pytest_collection_finish() -> None:
    """Keep what lives to the end out of all searches for garbage."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Turn a skip into a failure where everything is meant to run."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("GENRUN_NO_SKIPS"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, but GENRUN_NO_SKIPS is set: {report.longrepr}"
