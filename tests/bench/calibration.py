"""What a tolerance of collocation is worth: the measured error of every sample against the tolerance that was asked for.

    genrun bench --model demo-video --solvers collocation --tolerances 0.02,0.05,0.1 --samples 32 --out bench/video
    genrun bench --model demo-image --solvers collocation --tolerances 0.02,0.05,0.1 --samples 32 --out bench/image
    python -m tests.bench.calibration bench/video bench/image --out docs/calibration.png

Prints the share of samples within the tolerance for each model, K and tolerance, and draws the samples.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from genrun.runner.bench.results import PointResult


def results(folder: Path) -> Iterator[PointResult]:
    """The cells of one bench folder, by K and tolerance."""
    cells = [PointResult.from_dict(json.loads(path.read_bytes())) for path in (folder / "cells").glob("*.json")]
    kept = [cell for cell in cells if cell.samples and cell.cell.tolerance]
    return iter(sorted(kept, key=lambda result: (result.cell.workers, result.cell.tolerance or 0.0)))


def main() -> None:
    """Print the table, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(chosen.folders), 4), layout="constrained")
    for axes, folder in zip(figure.subplots(1, len(chosen.folders), squeeze=False)[0], chosen.folders, strict=True):
        seen: set[int] = set()
        for result in results(folder):
            cell, errors, tolerance = (
                result.cell,
                [sample.rmse for sample in result.samples],
                result.cell.tolerance or 0.0,
            )
            within = sum(error <= tolerance for error in errors) / len(errors)
            print(
                f"{folder.name:24} K {cell.workers:2}  tolerance {tolerance:<5g} within {100 * within:5.1f} %  "
                f"mean {result.rmse:.4f}  largest {result.rmse_max:.4f}  rounds {result.rounds:.1f}  NFE {result.nfe:.1f}"
            )
            place = tolerance * (1 + 0.06 * (cell.workers.bit_length() - 2.5))
            named = {} if cell.workers in seen else {"label": f"K = {cell.workers}"}
            seen.add(cell.workers)
            axes.plot([place] * len(errors), errors, ".", color=f"C{cell.workers.bit_length()}", alpha=0.6, **named)
        line = [0.01, 0.2]
        axes.plot(line, line, color="0.5", linewidth=1)
        axes.legend(frameon=False)
        axes.set(xscale="log", yscale="log", xlabel="tolerance", ylabel="measured latent RMSE", title=folder.name)
    figure.savefig(chosen.out, dpi=110)


if __name__ == "__main__":
    main()
