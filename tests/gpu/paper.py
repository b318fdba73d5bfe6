"""A plan on paper: what 8 and 64 GPUs would take, from the seconds of an evaluation on one; predicted, never measured.

    python -m tests.gpu.paper RESULT.json --bandwidth 25,400     # GB/s between two GPUs

An evaluation is taken to fall in proportion with the ranks that share it, and to wait for what they send each other. Rounds
of a solver are those of the demo models (tests/golden): what a model that counts would take is not known.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from genrun.adapters import registry
from genrun.runner.forecast import Cost, makespan
from genrun.runner.memory.estimate import latent_shape
from genrun.runner.parallel.mesh import Mesh
from tests.gpu.contract import CheckFinding, Findings, GpuCheck
from tests.gpu.machine import Machine
from tests.gpu.models import SUBJECTS, SizedModel

GPUS = (8, 64)
BANDWIDTHS = (25.0, 400.0)
"""GB/s between two GPUs: a fast network, and links within a machine. Parameters, not measurements."""
WORKERS = 8
ITEMS = 64
MOST_ULYSSES = 8
"""Ranks that share an evaluation's tokens: those of one machine."""
GOLDEN = Path(__file__).parents[1] / "golden"


@dataclass(frozen=True)
class Work:
    """What an item of a model takes.

    Attributes:
        title: of the model.
        evaluation_s: seconds of an evaluation on one GPU.
        steps: N.
        heads: of attention, which ulysses shares out.
        halves: 2 where guidance makes two predictions, which cfg shares out; else 1.
        output_bytes: of an evaluation's output.
        layer_bytes: of the activations of all tokens, one tensor of a layer.
        layers: of the transformer.
    """

    title: str
    evaluation_s: float
    steps: int
    heads: int
    halves: int
    output_bytes: float
    layer_bytes: float
    layers: int

    def seconds(self, mesh: Mesh, bandwidth: float) -> float:
        """Return the seconds of an evaluation on a slot, with what its ranks and those of other slots send.

        Of `ulysses` u each rank sends (u - 1) / u of its share of queries, keys, values and outputs of each layer, and of
        `cfg` 2 a prediction. A round's outputs are gathered by all slots.
        """
        u, bytes_per_s = mesh.ulysses, bandwidth * 1e9
        tokens = 4 * self.layers * self.layer_bytes / u * (u - 1) / u
        halves = self.output_bytes * (mesh.cfg - 1)
        gathered = self.output_bytes * (mesh.time - 1)
        return self.evaluation_s / (mesh.cfg * u) + (tokens + halves + gathered) / bytes_per_s

    def meshes(self, gpus: int) -> Iterator[Mesh]:
        """Yield every data x time x cfg x ulysses of so many GPUs that this model can be made on."""
        sizes = [size for size in (1, 2, 4, 8, 16, 32, 64) if size <= gpus]
        for time in [size for size in sizes if size <= WORKERS]:
            for cfg in range(1, self.halves + 1):
                for ulysses in [size for size in sizes if size <= MOST_ULYSSES and self.heads % size == 0]:
                    if gpus % (time * cfg * ulysses) == 0:
                        yield Mesh(gpus // (time * cfg * ulysses), time, cfg, 1, ulysses)


@dataclass(frozen=True)
class Predicted:
    """A mesh, and what it would take.

    Attributes:
        mesh: the ranks.
        makespan_s: of all items.
        latency_s: of one.
    """

    mesh: Mesh
    makespan_s: float
    latency_s: float


def predict(work: Work, mesh: Mesh, bandwidth: float) -> Predicted:
    """Return what a mesh would take: sequential where a team has one slot, else with a solver whose rounds it shares."""
    rounds, nfe = (work.steps, work.steps) if mesh.time == 1 else scaled(work.steps)
    cost = Cost(rounds, nfe, work.seconds(mesh, bandwidth), 0)
    points = [1 if mesh.time == 1 else WORKERS] * ITEMS
    latency_s = cost.seconds(mesh.time)
    return Predicted(mesh, makespan(points, lambda _, slots: cost.seconds(slots), mesh.data, mesh.time), latency_s)


def scaled(steps: int) -> tuple[float, float]:
    """Return rounds and evaluations of `collocation` with 8 workers for N steps, as many a step as on the demo models."""
    rounds, nfe, measured = solver_cost()
    return max(1.0, rounds * steps / measured), nfe * steps / measured


@cache
def solver_cost() -> tuple[float, float, int]:
    """Return rounds, evaluations and N of `collocation` with 8 workers, as measured on the demo models."""
    documents = [json.loads((GOLDEN / f"{name}.json").read_text()) for name in ("demo-image", "demo-video")]
    rows = [
        row
        for document in documents
        for row in document["rows"]
        if row["solver"] == "collocation" and row["workers"] == WORKERS
    ]
    steps = {document["settings"]["sampling"]["steps"] for document in documents}
    (n,) = steps
    return fmean(fmean(row["rounds"]) for row in rows), fmean(fmean(row["nfe"]) for row in rows), n


def work_of(subject: SizedModel, evaluation_s: float, *, tiny: bool) -> Work:
    """Return what an item of a model takes, at the size that its seconds were measured at."""
    kind, config = subject.vae
    config = {"latent_channels": 16, **config} if not config.get("z_dim") else config
    channels, frames, height, width = latent_shape(kind, config, subject.shape(tiny=tiny))
    transformer: dict[str, Any] = {**DEFAULTS[subject.transformer[0]], **subject.transformer[1]}
    tokens = frames // (transformer.get("patch_size_t") or 1) * height * width // 4 + subject.text
    heads = transformer["num_attention_heads"]
    wide = heads * transformer["attention_head_dim"]
    layers = transformer["num_layers"] + transformer.get("num_single_layers", 0)
    sampling = {**registry.get(subject.adapter).defaults}
    halves = 2 if subject.adapter in ("wan2.1", "sd3.5", "cogvideox1.5") else 1
    return Work(
        subject.title,
        evaluation_s,
        int(sampling["steps"]),
        heads,
        halves,
        channels * frames * height * width * 2.0,
        halves * tokens * wide * 2.0,
        layers,
    )


DEFAULTS: Mapping[str, Mapping[str, int]] = {
    "FluxTransformer2DModel": {
        "num_attention_heads": 24,
        "attention_head_dim": 128,
        "num_layers": 19,
        "num_single_layers": 38,
    },
    "SD3Transformer2DModel": {"attention_head_dim": 64},
    "HunyuanVideoTransformer3DModel": {
        "num_attention_heads": 24,
        "attention_head_dim": 128,
        "num_layers": 20,
        "num_single_layers": 40,
    },
    "WanTransformer3DModel": {"attention_head_dim": 128},
    "CogVideoXTransformer3DModel": {"attention_head_dim": 64},
}
"""What diffusers fills in where a configuration leaves it out."""


def works(document: Mapping[str, Any]) -> list[Work]:
    """Return what items take of the models whose seconds stand in a result; none of the others."""
    found = []
    for check in document.get("checks", ()):
        subject = SUBJECTS.get(check["name"].removeprefix("sizes."))
        seconds = next((f["value"] for f in check["findings"] if f["what"] == "evaluation"), None)
        if subject is not None and isinstance(seconds, float) and seconds > 0:
            found.append(work_of(subject, seconds, tiny=bool(document.get("tiny"))))
    return found


def chosen(work: Work, gpus: int, bandwidth: float) -> tuple[Predicted, Predicted]:
    """Return the mesh on which all items would end soonest, and that on which one would."""
    found = [predict(work, mesh, bandwidth) for mesh in work.meshes(gpus)]
    return min(found, key=lambda each: each.makespan_s), min(found, key=lambda each: each.latency_s)


def rows(document: Mapping[str, Any], bandwidths: Sequence[float] = BANDWIDTHS) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table of predictions."""
    for work in works(document):
        for gpus in GPUS:
            for bandwidth in bandwidths:
                soonest, quickest = chosen(work, gpus, bandwidth)
                yield (
                    work.title,
                    f"{work.evaluation_s:.3g}",
                    str(gpus),
                    f"{bandwidth:g}",
                    *_told(soonest),
                    *_told(quickest),
                )


def _told(found: Predicted) -> tuple[str, str]:
    mesh = " x ".join(str(size) for size in (found.mesh.data, found.mesh.time, found.mesh.cfg, found.mesh.ulysses))
    return mesh, f"{found.makespan_s:.4g} / {found.latency_s:.4g}"


def check(machine: Machine) -> Findings:
    """Predict from the seconds that the checks before this one have measured."""
    path = machine.out / "result.json"
    document = json.loads(path.read_text()) if path.exists() else {}
    found = list(rows(document))
    wanted = len(works(document)) * len(GPUS) * len(BANDWIDTHS)
    yield CheckFinding("models with measured seconds", len(works(document)))
    yield CheckFinding("predictions", len(found), "", f"{wanted}", len(found) == wanted)
    for row in found:
        yield CheckFinding(f"{row[0]}, {row[2]} GPUs at {row[3]} GB/s", list(row[4:]), "predicted")


CHECKS = (GpuCheck("plan.paper", "predictions for 8 and 64 GPUs from the seconds measured", 3, check),)


def main() -> None:
    """Print the table of predictions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path, help="result.json of python -m tests.gpu")
    parser.add_argument("--bandwidth", default=",".join(f"{each:g}" for each in BANDWIDTHS), metavar="GB/s,...")
    asked = parser.parse_args()
    for row in rows(json.loads(asked.result.read_text()), [float(each) for each in asked.bandwidth.split(",")]):
        print(*row, sep="\t")


if __name__ == "__main__":
    main()
