"""Test-wide settings: no silent skips where GENRUN_NO_SKIPS is set (as in continuous integration)."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import settings

# Whatever defaults the developer has, tests have none.
os.environ["GENRUN_CONFIG"] = os.devnull
os.environ.pop("GENRUN_RUNS", None)

settings.register_profile("genrun", derandomize=True, deadline=None)
settings.load_profile("genrun")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Turn a skip into a failure where everything is meant to run."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("GENRUN_NO_SKIPS"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, but GENRUN_NO_SKIPS is set: {report.longrepr}"
