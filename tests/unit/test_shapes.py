"""The shapes and dtypes in the signatures of adapters are those that their tensors have."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.e2e


def test_tensors_have_the_shapes_that_signatures_name() -> None:
    command = [sys.executable, "-m", "tests.unit.checked_shapes"]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert ran.stdout.count("refused") == 5
    assert "demo-video" in ran.stdout and "demo-image" in ran.stdout
