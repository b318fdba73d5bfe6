"""Job files, prompt files, media files and command lines that nobody should write, as many as there is time for.

    python -m tests.bench.fuzz --cases 100000 --seed 0 --processes 2

Each is called as users call it. No call may end in an error of genrun's own or with another exit code than 0 to 3, take
longer than five seconds of processor time, write outside its folder, or tell a secret of the environment. Failing cases are
printed; the same seed gives the same cases with the same versions. Continuous integration runs a part:
tests/e2e/test_fuzz.py.
"""

from __future__ import annotations

import argparse
import collections
import math
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.cases import Case, cases
from tests.fuzz.world import World

Tally = collections.Counter[tuple[str, int]]

SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example, HealthCheck.filter_too_much)
SHOWN = 20
"""Failing cases that are kept."""

AT_ONCE = 500
"""Cases of one search: hypothesis slows down as it remembers what it has tried."""


def tried(count: int, number: int, folder: Path, until: float = math.inf) -> tuple[Tally, list[str], int]:
    """Try cases.

    Args:
        count: how many.
        number: the seed.
        folder: an empty one of its own.
        until: when to stop at the latest, in seconds of `time.time`.

    Returns:
        How many cases of each verb had which exit code, failing cases, and how many cases failed.
    """
    codes: Tally = collections.Counter()
    failing: list[str] = []
    failed = 0
    world = World(folder).build()

    def one(case: Case) -> None:
        nonlocal failed
        wrong = world.wrong(case)
        codes[case.args[0], world.code] += 1
        if wrong:
            failed += 1
            if len(failing) < SHOWN:
                failing.append(f"{'; '.join(wrong)}\n    {case!r:.2000}")

    while (left := count - codes.total()) > 0 and time.time() < until:
        search = settings(
            max_examples=min(left, AT_ONCE),
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=SLOW,
        )(given(cases(world.right))(one))
        seed(number * 1_000_003 + codes.total())(search)()
    return codes, failing, failed


def _in_a_folder(count: int, number: int, until: float) -> tuple[Tally, list[str], int]:
    with tempfile.TemporaryDirectory(prefix="genrun-fuzz-") as folder:
        return tried(count, number, Path(folder), until)


def main() -> None:
    """Run the cases, and print what came of them."""
    parser = argparse.ArgumentParser(
        description="Job files, prompt files, media files and command lines that nobody should write."
    )
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=0, help="stop then, with as many as were tried; 0 for never")
    given_ = parser.parse_args()
    started = time.monotonic()
    each = -(-given_.cases // given_.processes)
    until = time.time() + (given_.minutes * 60 or math.inf)
    parts = [(each, given_.seed * 1_000 + index, until) for index in range(given_.processes)]
    with multiprocessing.get_context("spawn").Pool(given_.processes) as pool:
        results = pool.starmap(_in_a_folder, parts)
    verbs, codes = collections.Counter[str](), collections.Counter[int]()
    for (verb, code), count in (entry for part, _, _ in results for entry in part.items()):
        verbs[verb] += count
        codes[code] += count
    for text in (text for _, failing, _ in results for text in failing):
        print(text)
    failed = sum(count for _, _, count in results)
    print(", ".join(f"{verb} {count:,}" for verb, count in verbs.most_common()))
    print(", ".join(f"exit code {code}: {count:,}" for code, count in sorted(codes.items())))
    print(f"{verbs.total():,} cases, {failed:,} failed, {time.monotonic() - started:.0f} s")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
