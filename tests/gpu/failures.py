"""Failures on the device: memory that runs out, ranks that are killed or told to stop, more workers than cards."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genrun.adapters.pipeline.placement import can_save_memory
from genrun.runner.job import load
from genrun.runner.job.checkpoint import fingerprint
from genrun.runner.job.plan import plan
from genrun.runner.parallel.team import Solo
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.lease import holdings
from genrun.runner.store.order import STOPPED, Order
from genrun.runner.store.records import Record
from genrun.runner.store.verify import verify
from genrun.runner.worker.engine import Engine
from genrun.runner.worker.rank import release_memory
from genrun.runner.worker.sample import ItemSampler
from tests.fakes.items import document, genuine, make_item
from tests.gpu.contract import CheckFinding, Findings, GpuCheck
from tests.gpu.machine import Machine
from tests.gpu.models import SUBJECTS, df
from tests.gpu.worker import work
from tests.tiny import build
from tests.tiny.text import WIDTH

ROOT = Path(__file__).parents[2]
MIB = 2**20
FREED_WITHIN_S = 10.0
"""Seconds within which a killed process's memory is to be free again."""


def memory(machine: Machine) -> Findings:
    """Run out of memory in the VAE, which goes on in tiles, and in the transformer, which says what to do."""
    machine.begin()
    pipe, side = build("flux"), 64
    if not machine.tiny:
        # The width and the VAE of Flux, with a layer of each kind: more memory in an evaluation than the weights leave.
        side, layers = 1024, {"num_layers": 1, "num_single_layers": 1}
        text = {"joint_attention_dim": WIDTH, "pooled_projection_dim": WIDTH, "guidance_embeds": True}
        pipe.transformer = df.FluxTransformer2DModel(**layers, **text)
        pipe.vae = df.AutoencoderKL(**SUBJECTS["flux"].vae[1])
    root = machine.out / "memory"
    shutil.rmtree(root, ignore_errors=True)
    pipe.save_pretrained(root / "checkpoint")
    del pipe
    model = {"adapter": "auto", "checkpoint": str(root / "checkpoint"), "dtype": "bfloat16"}
    model["fingerprint"] = fingerprint(root / "checkpoint")
    sampling = {"steps": 2, "height": side, "width": side, "options": {"max_sequence_length": 16}}
    items = [genuine(make_item(seed, model=model, sampling=sampling)) for seed in range(4)]
    device = "cuda" if machine.is_gpu else "cpu"
    run = RunFolder.create(root / "run", document(model={"device": device}), items)
    engine = Engine({"model": {"device": device}})
    engine.begin(run, items)

    def make(number: int) -> Record:
        sampler = ItemSampler(run, engine, Solo(), "job.0", "logs/job/rank-0.log")
        pending = sampler.sample(items[number], 1, lambda *_: None)
        record = pending and pending.finish()
        assert record is not None
        return record

    status = make(0).status
    yield CheckFinding("with memory enough", status, "", "done", status == "done")
    needs = _needs(machine, engine, items[0])
    yield CheckFinding("memory to sample, decode, and decode in tiles", [need / MIB for need in needs], "MiB")
    held = engine.memory.now_bytes
    with _short_of(machine, engine, needs, in_vae=True):
        record = make(1)
    yield CheckFinding("VAE out of memory", record.status, "", "done in tiles", record.saving == ("tiling", "slicing"))
    with _short_of(machine, engine, needs, in_vae=False):
        record = make(2)
    error = record.error or {}
    told = "genrun plan JOB --memory" in error.get("remedy", "")
    yield CheckFinding("transformer out of memory", error.get("kind"), "", "out_of_memory, with its remedy", told)
    release_memory(machine.device)
    kept = (engine.memory.now_bytes - held) / MIB
    yield CheckFinding("memory not given back", kept, "MiB", "at most 64", kept <= 64)
    status = make(3).status
    yield CheckFinding("the next item", status, "", "done", status == "done")


def _needs(machine: Machine, engine: Engine, item: Any) -> tuple[int, int, int]:
    """Return the peaks of sampling an item, decoding it, and decoding it in tiles."""
    machine.reset_peak()
    sample = engine.sample(item, lambda *_: None)
    peaks = [machine.peak_bytes()]
    for decode in (sample.decode, sample.decode_saving_memory):
        machine.reset_peak()
        decode()
        peaks.append(machine.peak_bytes())
    return peaks[0], peaks[1], peaks[2]


@contextmanager
def _short_of(machine: Machine, engine: Engine, needs: tuple[int, int, int], *, in_vae: bool) -> Iterator[None]:
    """Leave less memory than decoding takes whole, or sampling: by a cap on a GPU, by an error in its place on the CPU."""
    if machine.is_gpu and not machine.tiny:
        sample, whole, tiles = needs
        weights = engine.memory.now_bytes + machine.context_bytes
        with machine.capped((max(sample, tiles) + whole) // 2 if in_vae else (weights + sample) // 2):
            yield
        return
    pipe: Any = engine._pipe
    part: nn.Module = pipe.vae.decoder if in_vae else pipe.transformer

    def forward(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        if not in_vae or can_save_memory(pipe):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 80.00 GiB")

    hook = part.register_forward_pre_hook(forward)
    try:
        yield
    finally:
        hook.remove()


def ended(machine: Machine, number: signal.Signals) -> Findings:
    """End a worker in the middle of an evaluation: nothing is lost, its memory comes back, and the next one goes on."""
    root = machine.out / number.name.lower()
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    device = "cuda" if machine.is_gpu else "cpu"
    job = {"name": "ended", "model": {"adapter": "demo-image", "device": device}, "prompts": ["a red square"]}
    (root / "job.yaml").write_text(json.dumps({**job, "sampling": {"steps": 4}}))
    loaded = load(root / "job.yaml")
    run = RunFolder.create(root / "run", loaded.document, plan(loaded))
    order = Order("job")
    order.save(run)
    token = root / "token.json"
    token.touch()
    used = machine.used_bytes()
    code = _work(run, order, number, token)
    wanted = STOPPED if number == signal.SIGTERM else -int(number)
    yield CheckFinding("exit code", code, "", f"{wanted}", code == wanted and not token.exists())
    yield CheckFinding("records", len(run.records()), "", "none", not run.records())
    seconds, kept = _until_free(machine, used)
    if machine.is_gpu:
        yield CheckFinding("memory of the worker free after", seconds, "s", f"at most {FREED_WITHIN_S:g}", kept <= 0)
    if number == signal.SIGTERM:
        yield CheckFinding("leases left", len(holdings(run)), "", "none", not holdings(run))
    code = _work(run, order, number, token)
    tally = run.tally()
    yield CheckFinding(
        "the next worker", f"{tally.done} of {tally.items} done", "", "all", code == 0 and tally.done == tally.items
    )
    problems = [str(problem) for problem in verify(run)]
    yield CheckFinding("genrun verify", problems or "clean", "", "clean", not problems)


def _work(run: RunFolder, order: Order, number: signal.Signals, token: Path) -> int | None:
    """Run a worker to its end; return its exit code."""
    process = multiprocessing.get_context("fork").Process(target=work, args=(run, order, number, token))
    process.start()
    process.join()
    return process.exitcode


def _until_free(machine: Machine, used_bytes: int) -> tuple[float, int]:
    """Wait until no more of the device is in use than before; return the seconds, and the bytes that are still held."""
    started = time.monotonic()
    while (kept := machine.used_bytes() - used_bytes) > 0 and time.monotonic() - started < FREED_WITHIN_S:
        time.sleep(0.05)
    return time.monotonic() - started, kept


def two_workers(machine: Machine) -> Findings:
    """Ask for a rank more than there are cards: refused before anything starts."""
    root = machine.out / "workers"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    cards = torch.cuda.device_count()
    if not machine.is_gpu:
        # A driver that knows of one card: what is asked is the same program.
        cards, driver = 1, root / "bin" / "nvidia-smi"
        driver.parent.mkdir()
        driver.write_text("#!/bin/sh\necho '0, GPU-0, NVIDIA H200'\n")
        driver.chmod(0o755)
        environ["PATH"] = f"{driver.parent}{os.pathsep}{environ['PATH']}"
    launch = {"kind": "torchrun", "processes": cards + 1}
    job = {"name": "two", "model": "demo-image", "prompts": ["a red square"], "launch": launch}
    (root / "job.yaml").write_text(json.dumps(job))
    command = [sys.executable, "-m", "genrun", "submit", "job.yaml"]
    done = subprocess.run(command, cwd=root, env=environ, capture_output=True, text=True, check=False)
    said = f"{cards + 1} ranks, and this machine has {cards} GPUs"
    yield CheckFinding("exit code", done.returncode, "", "not 0", done.returncode != 0)
    yield CheckFinding("said", done.stderr.strip()[:300], "", said, said in done.stderr)


CHECKS = (
    GpuCheck("failures.memory", "memory that runs out in the VAE and in the transformer", 20, memory),
    GpuCheck(
        "failures.killed",
        "memory of a killed rank",
        12,
        partial(ended, number=signal.SIGKILL),
    ),
    GpuCheck(
        "failures.stopped",
        "SIGTERM in the middle of an evaluation",
        15,
        partial(ended, number=signal.SIGTERM),
    ),
    GpuCheck("failures.two_workers", "more workers than cards", 6, two_workers),
)
