"""Running out of memory: the VAE tries once more in tiles and slices, an item that cannot be made says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from genrun.adapters.media import read_metadata
from genrun.runner.job.checkpoint import fingerprint
from genrun.runner.job.plan import WorkItem
from genrun.runner.parallel.team import Solo
from genrun.runner.rerun import decode, original_of, repeat, undecoded
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.records import Record
from genrun.runner.worker.engine import Engine
from genrun.runner.worker.failures import describe
from genrun.runner.worker.rank import MemoryUsage, memory_usage
from genrun.runner.worker.sample import ItemSampler
from tests.fakes.items import document, genuine, make_item
from tests.tiny.checkpoints import save

pytestmark = pytest.mark.e2e

WHOLE, TILE = 8 * 8, 4 * 4
"""Latent pixels of a picture, and of a tile of this VAE."""


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("sd3", tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture
def run(tmp_path: Path, sd3: Path) -> Iterator[RunFolder]:
    model = {"adapter": "auto", "checkpoint": str(sd3), "fingerprint": fingerprint(sd3), "dtype": "float32"}
    sampling = {"steps": 2, "height": 64, "width": 64, "guidance_scale": 3.0}
    threads = torch.get_num_threads()
    yield RunFolder.create(tmp_path / "run", document(), [genuine(make_item(0, model=model, sampling=sampling))])
    torch.set_num_threads(threads)


def limited(run: RunFolder, item: WorkItem, most: int | None) -> Engine:
    """An engine whose VAE has memory for so many latent pixels at once."""
    engine = Engine({})
    engine.begin(run, run.items())
    engine.prepare(item)

    def forward(decoder: Any, args: tuple[torch.Tensor, ...]) -> None:
        if most is not None and args[0].shape[-1] * args[0].shape[-2] > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 80.00 GiB")

    engine._pipe.vae.decoder.register_forward_pre_hook(forward)
    return engine


def make(run: RunFolder, engine: Engine) -> Record:
    sampler = ItemSampler(run, engine, Solo(), "job.0", "logs/job/rank-0.log")
    pending = sampler.sample(run.items()[0], 1, lambda *_: None)
    record = pending and pending.finish()
    assert record is not None
    return record


def test_a_vae_that_runs_out_of_memory_decodes_in_tiles_and_the_record_says_so(run: RunFolder) -> None:
    item = run.items()[0]
    engine = limited(run, item, TILE)
    record = make(run, engine)
    assert (record.status, record.saving, record.error) == ("done", ("tiling", "slicing"), None)
    assert run.record(item.id) == record
    assert read_metadata(run.media_path(item, ".png"))["saving"] == ["tiling", "slicing"]
    assert (engine._pipe.vae.use_tiling, engine._pipe.vae.use_slicing) == (False, False)
    again = repeat(original_of(run.media_path(item, ".png")), run.path / "again")
    assert again.is_identical


def test_what_fits_is_decoded_whole(run: RunFolder) -> None:
    record = make(run, limited(run, run.items()[0], WHOLE))
    assert (record.status, record.saving) == ("done", ())
    assert "saving" not in read_metadata(run.media_path(run.items()[0], ".png"))


def test_what_does_not_fit_in_tiles_either_fails_with_its_latents_kept(run: RunFolder) -> None:
    item = run.items()[0]
    record = make(run, limited(run, item, TILE - 1))
    assert record.status == "failed" and record.error is not None and record.latents is not None
    assert record.error["kind"] == "out_of_memory_in_vae"
    assert "80.00 GiB (also in tiles and slices)" in record.error["message"]
    assert "genrun decode" in record.error["remedy"] and "model.offload: model" in record.error["remedy"]
    assert undecoded(run) == [(item, record)]
    decoded = decode(run, limited(run, item, None), item, record)
    assert decoded is not None and decoded.status == "done"


def test_memory_that_runs_out_while_sampling_is_not_blamed_on_the_vae(run: RunFolder) -> None:
    engine = limited(run, run.items()[0], None)

    def forward(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    engine._pipe.transformer.register_forward_pre_hook(forward)
    record = make(run, engine)
    assert record.error is not None and record.error["kind"] == "out_of_memory"
    assert "genrun plan JOB --memory" in record.error["remedy"]
    assert record.saving == () and record.latents is None


def test_memory_that_runs_out_on_the_cpu_is_known_by_what_torch_says() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert describe(caught.value, rank=0, log="")["kind"] == "out_of_memory"
    assert describe(RuntimeError("another"), rank=0, log="")["kind"] == "RuntimeError"


def test_a_record_says_what_each_rank_held(run: RunFolder) -> None:
    before = memory_usage("cpu").now_bytes
    record = make(run, limited(run, run.items()[0], None))
    assert len(record.memory_bytes) == 1
    assert 0.5 * before < record.memory_bytes[0] < 4 * before
    assert run.record(record.item_id) == record


def test_a_device_is_known_by_its_peak_and_a_process_by_what_it_holds_now() -> None:
    assert MemoryUsage(1, 2, is_device=True).recorded_bytes == 2
    assert MemoryUsage(1, 2, is_device=False).recorded_bytes == 1
    assert str(MemoryUsage(2**30, 3 * 2**30, is_device=True)) == "device memory 1.00 GiB, peak 3.00 GiB"
