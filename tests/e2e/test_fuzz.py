"""A part of what `python -m tests.bench.fuzz` tries, for every change: seeded, and about a minute long."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.fuzz import tried

pytestmark = pytest.mark.e2e

CASES = 2_000


def test_no_job_file_prompt_file_or_command_line_brings_genrun_down(tmp_path: Path) -> None:
    codes, failing, failed = tried(CASES, 20260131, tmp_path)
    assert codes.total() >= CASES
    assert {"validate", "plan", "show", "submit", "score", "report", "compare", "rerun"} <= {verb for verb, _ in codes}
    # Deep checks are only come to by jobs that are right but for one thing, and by those that are right.
    read = {code: sum(codes[verb, code] for verb in ("validate", "plan", "show", "submit")) for code in (0, 2)}
    assert read[0] > read[2] / 8
    assert not failed, "\n".join(failing)
