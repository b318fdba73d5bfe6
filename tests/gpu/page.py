"""Writes docs/gpu.md from tests/gpu/measured.json, what `python -m tests.gpu` found on a GPU: python -m tests.gpu.page

    python -m tests.gpu.page --keep DIR/result.json     # keep new results first; only those of a GPU at full size

Of each check the newest result is kept, with the device that it was measured on. Without a result it says: not yet run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.gpu import paper
from tests.gpu.__main__ import checks

HERE = Path(__file__).parent
MEASURED = HERE / "measured.json"
PAGE = HERE.parents[1] / "docs" / "gpu.md"
NOT_RUN = "not yet run"
HEAD = """# GPUs

What only a GPU can show is checked by one command, in at most eight minutes on one card of 80 GB or more:

```bash
python -m tests.gpu --out DIR
```

`tests/gpu/README.md` says how, also on a machine without a network. In continuous integration the same code runs on tiny
models on the CPU, with a simulated clock. Every line below says where it was measured, or that it has not been run yet; this
page is written from `tests/gpu/measured.json` by `make docs`.

## Checks
"""
PREDICTED = """## Predicted, not measured

From the seconds of an evaluation on one GPU, for {items} items of the size measured: the mesh (data x time x cfg x ulysses)
on which all items end soonest, and the one on which a single item does, each with seconds of all items / of one. Assumed:
an evaluation falls in proportion with the ranks that share it, and waits for what they send, at a bandwidth that is a
parameter (`python -m tests.gpu.paper DIR/result.json --bandwidth 50`). Teams of one slot sample sequentially; others use
`collocation` with {workers} workers, in {rounds:.3g} rounds for {steps} steps: the mean on the demo models
(`tests/golden`), not known of these.
"""


def page(measured: Mapping[str, Any]) -> str:
    """Return the page for a result: that of one run, or the results kept."""
    results = {result["name"]: {**_origin(measured), **result} for result in measured.get("checks", ())}
    lines = [HEAD, "| check | | result |", "|---|---|---|"]
    lines += [f"| `{check.name}` | {_cell(check.title)} | {_state(results.get(check.name))} |" for check in checks()]
    for check in checks():
        result = results.get(check.name)
        if result and result["findings"]:
            lines += ["", f"### {check.name}", "", f"{_cell(check.title)}: {_state(result)}.", ""]
            lines += ["| what | found | wanted |", "|---|---|---|", *_findings(result)]
    rounds, _, steps = paper.solver_cost()
    lines += ["", PREDICTED.format(items=paper.ITEMS, workers=paper.WORKERS, rounds=rounds, steps=steps)]
    predicted = list(paper.rows(measured))
    if predicted:
        head = ("model", "s an evaluation", "GPUs", "GB/s", "all soonest", "s", "one soonest", "s")
        lines += [_row(head), "|---" * len(head) + "|", *map(_row, predicted)]
    else:
        lines.append("No seconds are measured yet, so that nothing is predicted.")
    return "\n".join(lines) + "\n"


def _origin(measured: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("device", "driver", "cuda", "date", "tiny", "versions")
    return {key: measured[key] for key in keys if key in measured}


def _state(result: Mapping[str, Any] | None) -> str:
    """Say that a check was measured, where and when; or that it was not."""
    if result is None or result["status"] == "not run: out of time":
        return NOT_RUN
    if result.get("tiny"):
        return f"{NOT_RUN}: tiny models, {_cell(result['device'])}, {result['date']}: {result['status']}"
    versions = result.get("versions", {})
    told = f"{result['device']}, driver {result['driver']}, torch {versions.get('torch')}, {result['date']}"
    word = "predicted from what was measured" if result["name"].startswith("plan.") else "measured"
    return f"{word} ({_cell(told)}): {result['status']}"


def _findings(result: Mapping[str, Any]) -> Iterator[str]:
    for finding in result["findings"]:
        found = finding["error"] or f"{_value(finding['value'])} {finding['unit']}".strip()
        missed = ": **not so**" if finding["holds"] is False else ""
        yield _row((finding["what"], found, f"{finding['wanted']}{missed}"))


def _value(value: Any) -> str:
    """A number with four digits; the numbers of a list or mapping one after the other."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')} {_value(part)}" for key, part in value.items())
    return str(value)


def _row(cells: Any) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: Any) -> str:
    return " ".join(str(text).split()).replace("|", r"\|").replace("<", "&lt;")


def keep(result: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was measured so far with a new result laid over it, check by check.

    Raises:
        ValueError: it is of tiny models, or of no GPU.
    """
    if result.get("tiny") or result.get("device") in (None, "cpu"):
        raise ValueError("only results of a GPU at full size are kept: run python -m tests.gpu on one, without --tiny")
    kept = {each["name"]: each for each in measured.get("checks", ())}
    for each in result["checks"]:
        if each["status"] != "not run: out of time":
            kept[each["name"]] = {**_origin(result), **each}
    return {"checks": [kept[check.name] for check in checks() if check.name in kept]}


def main() -> int:
    """Write the page, with new results where they are given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="FILE", help="result.json to keep")
    asked = parser.parse_args()
    measured = json.loads(MEASURED.read_text(encoding="utf-8"))
    if asked.keep:
        try:
            measured = keep(json.loads(asked.keep.read_text(encoding="utf-8")), measured)
        except (OSError, ValueError) as error:
            print(f"{asked.keep}: {error}", file=sys.stderr)
            return 2
        MEASURED.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(measured), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
