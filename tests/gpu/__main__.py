"""Check all that only a GPU can show, in at most eight minutes: python -m tests.gpu --out DIR

Goes on past failures, and past what takes too long. Writes DIR/result.json, a log for each check, and DIR/gpu.md, the page
as it would be with these results. README.md beside this file says how to run it on a machine without a network. Without
a GPU the same checks run on tiny models, with a simulated clock in place of seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.gpu.contract import GpuCheck
from tests.gpu.machine import Machine, describe, set_environment

WHOLE_S = 480.0
"""Seconds for everything."""
FIRST = ("bits.sequential", "bits.ranks", "sizes.flux", "sizes.hunyuanvideo", "failures.memory", "modes.caches")
"""The most telling checks, which come before all others."""


def checks() -> list[GpuCheck]:
    """Return all checks in the order in which they run."""
    from tests.gpu import failures, modes, paper, same_bits, sizes

    found = [check for module in (same_bits, sizes, modes, failures, paper) for check in module.CHECKS]
    return sorted(found, key=lambda check: FIRST.index(check.name) if check.name in FIRST else len(FIRST))


def run_all(chosen: Sequence[GpuCheck], machine: Machine, whole_s: float, say: Any = print) -> list[dict[str, Any]]:
    """Run checks one after the other while there is time, and return their results."""
    from tests.gpu.process import run

    end, found = time.monotonic() + whole_s, []
    for check in chosen:
        result = run(check, machine, end - time.monotonic())
        found.append({**result.to_dict(), "title": check.title})
        write(machine, found)
        failed = [finding for finding in result.findings if finding.holds is False]
        say(f"{result.seconds:6.1f} s  {result.status:20} {check.name}: {result.error or check.title}", flush=True)
        for finding in failed:
            say(f"          {finding.what}: {finding.error or f'{finding.value}, wanted {finding.wanted}'}", flush=True)
    return found


def write(machine: Machine, results: list[dict[str, Any]]) -> None:
    """Write the results so far: what follows may take the machine down."""
    document = {
        **describe(machine.device),
        "date": datetime.now(UTC).date().isoformat(),
        "tiny": machine.tiny,
        "checks": results,
    }
    (machine.out / "result.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    """Run the checks; return 0 when all that could run here passed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where results and logs go")
    parser.add_argument("--only", default="", help="names of checks, or of their groups, with commas between them")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--tiny", action="store_true", help="tiny models on a GPU, too")
    parser.add_argument("--seconds", type=float, default=WHOLE_S, help=f"for everything (default: {WHOLE_S:.0f})")
    parser.add_argument("--list", action="store_true", help="list the checks with their budgets, and run nothing")
    chosen = parser.parse_args()
    set_environment()
    started = time.monotonic()
    import torch

    wanted = [name for name in chosen.only.split(",") if name]
    known = checks()
    picked = [check for check in known if not wanted or {check.name, check.name.split(".")[0]} & {*wanted}]
    unknown = [name for name in wanted if not any(name in (check.name, check.name.split(".")[0]) for check in known)]
    if unknown:
        parser.error(f"--only: no check {unknown[0]!r}; there are {', '.join(check.name for check in known)}")
    if chosen.list:
        for check in picked:
            print(f"{check.name:22} {check.budget_s:4.0f} s  {check.title}")
        return 0
    # By NVML, which leaves CUDA alone: a process that has started it cannot be forked.
    has_gpu = torch.cuda.is_available()
    if chosen.device == "cuda" and not has_gpu:
        parser.error("--device cuda: torch sees no GPU here")
    device = "cuda:0" if has_gpu and chosen.device != "cpu" else "cpu"
    chosen.out.mkdir(parents=True, exist_ok=True)
    machine = Machine(device, chosen.tiny or device == "cpu", chosen.out.resolve())
    results = run_all(picked, machine, chosen.seconds - (time.monotonic() - started))
    from tests.gpu.page import page

    (machine.out / "gpu.md").write_text(page(json.loads((machine.out / "result.json").read_text())), encoding="utf-8")
    print(f"{machine.out / 'result.json'}")
    return 0 if all(result["status"] in ("passed", "not here") for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
