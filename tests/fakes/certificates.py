"""Certificates for tests: written for each subject of a job, as a calibration would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genrun.runner.api.calibrating import _targets
from genrun.runner.job import LoadedJob, certificates
from genrun.runner.job.certificates import Certificate


def certify(runs: Path, loaded: LoadedJob, **changes: Any) -> Path:
    """Certify a job's solver with another tolerance; return the file of its last certificate."""
    path = runs
    for target in _targets(loaded):
        asked = target.subject["solver"]
        fields: dict[str, Any] = {
            "subject": target.subject,
            "tolerance": asked["tolerance"],
            "confidence": 0.95,
            "samples": 20,
            "failures": 0,
            "solver": {**asked, "tolerance": 0.7 * asked["tolerance"]},
            "exact": False,
            "rounds": 8.5,
            "prompts": target.prompts,
            "run": "job-calibration/x",
            "errors": (0.2 * asked["tolerance"], 0.8 * asked["tolerance"]),
        }
        path = certificates.path_of(runs, target.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(Certificate(**(fields | changes)).to_file(tried=[]))
    return path
