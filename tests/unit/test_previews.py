"""Previews of items in work: what they show, whom they are shown to, and that nothing is left of them."""

from __future__ import annotations

import io
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from genrun.adapters.adapter import Adapter
from genrun.adapters.sampling.call import decode
from genrun.adapters.sampling.generate import sample
from genrun.adapters.sampling.preview import MOST_PX, Clip, ColourMap, TinyDecoder, channels_of, places
from genrun.adapters.scheduler.rows import CallProgress
from genrun.runner.api.jobs import load_job, plan
from genrun.runner.report.build import LiveReport
from genrun.runner.store.environment import current
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.lease import Leases, Owner
from genrun.runner.store.previews import MAX_BYTES, colours_path, preview_path, read_preview, why_none
from genrun.runner.worker import previews
from genrun.runner.worker.engine import Engine
from genrun.runner.worker.previews import Previews, as_jpeg, model_key
from genrun.runner.worker.queue import Claim
from genrun.solvers import registry
from tests.fakes.items import dead_process, done, make_folder
from tests.tiny import build
from tests.tiny.checkpoints import save
from tests.unit.test_generate import AUTO, request_for

LAYOUTS = {
    "sd": (4, (1, 4, 8, 12)),
    "flux": (64, (1, 24, 64)),
    "sana": (32, (1, 32, 8, 12)),
    "wan": (16, (1, 16, 3, 8, 12)),
    "cogvideox": (16, (1, 3, 16, 8, 12)),
}
"""Values at a place, and the shape in the loop, of latents of 64 x 96 pixels."""


def clip_of(seed: int, frames: int) -> np.ndarray:
    """A smooth clip of 64 x 96 pixels."""
    coarse = torch.rand(frames, 3, 4, 6, generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(coarse, (64, 96), mode="bilinear")
    return (fine * 255).byte().permute(0, 2, 3, 1).numpy()


def encoded(frames: np.ndarray, layout: str) -> Tensor:
    """Latents in the layout of a pipeline, as a linear encoder makes them of a clip's frames."""
    channels = {"sd": 4, "flux": 16, "sana": 32, "wan": 16, "cogvideox": 16}[layout]
    colours = torch.from_numpy(frames[:: 4 if len(frames) > 1 else 1]).permute(0, 3, 1, 2).float() / 255
    small = torch.nn.functional.adaptive_avg_pool2d(colours, (8, 12))
    mixing = torch.randn(channels, 3, generator=torch.Generator().manual_seed(1))
    latents = torch.einsum("ck,tkhw->tchw", mixing, small)
    latents = latents + 0.01 * torch.randn(latents.shape, generator=torch.Generator().manual_seed(2))
    if layout == "flux":
        return torch.nn.functional.pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2)
    if layout == "wan":
        return latents.transpose(0, 1)[None]
    return latents[None] if layout == "cogvideox" else latents


@pytest.mark.parametrize("layout", LAYOUTS)
def test_colours_fitted_on_decoded_items_show_another_one(layout: str) -> None:
    frames, channels = (9 if layout in ("wan", "cogvideox") else 1), LAYOUTS[layout][0]
    colours = ColourMap.empty(channels)
    shown = [clip_of(seed, frames) for seed in range(4)]
    latents = [encoded(each, layout) for each in shown]
    assert latents[0].shape == LAYOUTS[layout][1]
    where = [places(*pair, channels) for pair in zip(latents, map(Clip.of, shown), strict=True)]
    for each, clip in zip(where[:3], shown, strict=False):
        assert each is not None
        assert each.shape[-1] == channels
        colours = colours.and_of(each, clip)
    last = where[3]
    assert last is not None
    again = ColourMap.from_tensors(colours.tensors())
    drawn = again.picture(last)
    wanted = np.asarray(Image.fromarray(shown[3][frames // 2]).resize(drawn.shape[1::-1], Image.Resampling.BOX))
    other = np.asarray(Image.fromarray(clip_of(9, 1)[0]).resize(drawn.shape[1::-1], Image.Resampling.BOX))
    assert again.items == 3
    assert drawn.shape == (last.shape[1] * again.side, last.shape[2] * again.side, 3)
    assert 4 * np.abs(drawn.astype(float) - wanted).mean() < np.abs(drawn.astype(float) - other).mean()


@pytest.mark.parametrize(
    ("family", "solver"),
    [
        ("sd2", "sequential"),
        ("flux", "sequential"),
        ("qwenimage", "sequential"),
        ("wan21", "sequential"),
        ("cogvideox_ddim", "ropa"),
        ("ltx", "ropa"),
        ("ltx2", "ropa"),
    ],
)
def test_the_predictions_of_a_loop_end_at_what_is_decoded(family: str, solver: str) -> None:
    pipe, request, seen = build(family), request_for(family), []

    def look(progress: CallProgress) -> None:
        assert progress.predict_x0 is not None
        seen.append((progress.front, progress.predict_x0()))

    options: dict[str, Any] = {} if solver == "sequential" else {"workers": 3, "tolerance": 0.0}
    found = sample(pipe, AUTO, request, registry.get(solver)(**options), on_round=look)
    assert all(x0.shape == found.latents.shape for _, x0 in seen)
    distances = [float((x0 - found.latents).square().mean()) for _, x0 in seen]
    assert distances[-1] < distances[0] / 100
    frames = decode(pipe, AUTO, request, found.latents, found.others).frames
    where = places(found.latents, Clip.of(frames), channels_of(pipe))
    assert where is not None
    first = places(seen[0][1], Clip.of(frames), channels_of(pipe))
    assert first is not None
    drawn = ColourMap.empty(where.shape[-1]).and_of(where, frames).picture(first)
    assert drawn.dtype == np.uint8
    assert max(drawn.shape[:2]) <= MOST_PX
    assert drawn.shape[0] * frames.shape[2] == drawn.shape[1] * frames.shape[1]


@pytest.mark.parametrize("shape", [(1, 4, 96, 128), (1, 3072, 16)])
def test_a_tiny_autoencoder_draws_what_is_packed_too_and_no_larger_than_a_preview(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4).save_pretrained(tmp_path)
    where = places(torch.randn(shape, generator=torch.Generator().manual_seed(0)), Clip(1, 768, 1024), 4)
    assert where is not None
    with torch.no_grad():
        drawn = TinyDecoder(str(tmp_path), "cpu").picture(where)
        none = TinyDecoder(str(tmp_path), "cpu").picture(where[..., :3])
    assert drawn is not None
    assert drawn.shape == (288, 384, 3)
    assert none is None


@pytest.fixture
def drawing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A worker that draws its item as soon as it may."""
    monkeypatch.setattr(previews, "INTERVAL_S", 0.0)
    monkeypatch.setattr(previews, "SHARE", 0)
    folder = make_folder(tmp_path / "runs" / "fake" / "run", 2, output={"previews": {"every": 1}})
    item, *_ = folder.items()
    leases = Leases(folder, Owner(current(), "job.0"))
    lease = leases.claim(item.id)
    assert lease is not None
    made = Previews(folder, {"every": 2}, "cpu", 1)
    claim = Claim(item, 1, lease, folder.progress_path(item.id))
    return SimpleNamespace(folder=folder, item=item, claim=claim, leases=leases, previews=made)


PIPE = SimpleNamespace(vae=SimpleNamespace(config={"latent_channels": 4}))
X0 = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(0))
DEMO = Adapter("auto", "any", defaults={"height": 64, "width": 96})


def offer(drawing: SimpleNamespace, rounds: int) -> None:
    drawing.previews.offer(CallProgress(rounds, 50, rounds, rounds, lambda: X0))
    if drawing.previews._drawing is not None:
        drawing.previews._drawing.join()


def test_an_item_is_drawn_every_so_many_rounds_once_another_was_decoded_and_no_longer_than_it_is_in_work(
    drawing: SimpleNamespace,
) -> None:
    folder, item = drawing.folder, drawing.item
    with drawing.previews.of(item, PIPE, DEMO):
        offer(drawing, 1)
        assert read_preview(folder, item.id) is None
        assert why_none(folder, folder.job_document()).startswith("Previews begin when the first item is decoded")
    drawing.previews.learn(item, PIPE, X0, clip_of(0, 1))
    assert why_none(folder, folder.job_document()) == ""
    # Another worker, that has decoded nothing, draws by what this one has kept.
    drawing.previews = Previews(folder, {"every": 2}, "cpu", 1)
    live = LiveReport(folder)
    with drawing.previews.of(item, PIPE, DEMO):
        steps = []
        for rounds in range(1, 6):
            offer(drawing, rounds)
            found = read_preview(folder, item.id)
            steps.append(found and (found.step, found.steps))
        assert steps == [(1, 50), (1, 50), (3, 50), (3, 50), (5, 50)]
        found = read_preview(folder, item.id)
        assert found is not None
        (told,) = live.state()["previews"].items()
        assert told[0] == item.id
        assert told[1][:2] == [5, 50]
        assert live.preview(item.id) == found.data
        assert live.preview("../" + item.id) is live.preview("0" * 20) is None
    # One that comes late.
    drawing.previews._put(item.id, as_jpeg(clip_of(0, 1)[0], (6, 50)))
    assert read_preview(folder, item.id) == found
    done(folder, item)
    drawing.claim.release()
    assert [path.name for path in folder.leases.iterdir()] == [".lock"]


@pytest.mark.parametrize("way", ["sweep", "claim"])
def test_nothing_is_left_of_a_worker_that_was_killed(drawing: SimpleNamespace, way: str) -> None:
    folder, item = drawing.folder, drawing.item
    drawing.claim.release()
    lost = Leases(folder, Owner(dead_process(), "job.0")).claim(item.id)
    assert lost is not None
    lost._released.set()
    preview_path(folder, item.id).write_bytes(as_jpeg(clip_of(0, 1)[0], (6, 50)))
    folder.progress_path(item.id).write_text("[6, 50]")
    assert LiveReport(folder).state()["previews"] == {}
    if way == "sweep":
        drawing.leases.sweep()
    else:
        drawing.leases.claim(item.id)
    assert {path.name for path in folder.leases.iterdir()} <= {".lock", item.id}


def test_what_goes_wrong_with_a_preview_fails_no_item(
    drawing: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawing.previews.learn(drawing.item, PIPE, X0, clip_of(0, 1))
    drawing.folder.leases.rename(drawing.folder.path / "elsewhere")
    with drawing.previews.of(drawing.item, PIPE, DEMO):
        offer(drawing, 1)
        offer(drawing, 3)
    assert capsys.readouterr().out.count("no more previews: FileNotFoundError") == 1


@pytest.mark.parametrize(
    "data",
    [b"", b"no picture", b"\xff\xd8\xff", b"x" * (MAX_BYTES + 1), "png", "comment", "size", "fifo", "folder"],
)
def test_what_is_no_preview_is_not_shown(data: bytes | str, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run", 1)
    (item,) = folder.items()
    folder.leases.mkdir(exist_ok=True)
    path = preview_path(folder, item.id)
    file = io.BytesIO()
    if data == "png":
        Image.new("RGB", (8, 8)).save(file, "PNG")
    elif data in ("comment", "size"):
        comment = b'{"a": [1, "<script>"]}' if data == "comment" else b"[1, 2]"
        Image.new("RGB", (8 if data == "comment" else 3000, 8)).save(file, "JPEG", comment=comment)
    if data == "fifo":
        os.mkfifo(path)
    elif data == "folder":
        path.mkdir()
    else:
        path.write_bytes(data if isinstance(data, bytes) else file.getvalue())
    assert read_preview(folder, item.id) is None


@pytest.mark.parametrize("damage", ["nothing", "other sizes", "not finite", "not there"])
def test_colours_that_are_damaged_are_fitted_again(damage: str, drawing: SimpleNamespace) -> None:
    from safetensors.torch import save

    kept = ColourMap.empty(4).and_of(X0[0].permute(1, 2, 0)[None], clip_of(0, 1)).tensors()
    if damage == "other sizes":
        kept["cross"] = kept["cross"][:, :2].contiguous()
    elif damage == "not finite":
        kept["gram"] = kept["gram"] * float("nan")
    path = colours_path(drawing.folder, model_key(drawing.item))
    path.parent.mkdir()
    if damage != "not there":
        path.write_bytes(b"" if damage == "nothing" else save(kept))
    with drawing.previews.of(drawing.item, PIPE, DEMO):
        offer(drawing, 1)
    assert read_preview(drawing.folder, drawing.item.id) is None
    drawing.previews.learn(drawing.item, PIPE, X0, clip_of(0, 1))
    assert drawing.previews._kept(path.stem).items == 1


def drawn_up(engine: Engine) -> None:
    """Wait for the preview that an engine draws."""
    if engine._previews is not None and engine._previews._drawing is not None:
        engine._previews._drawing.join()


@pytest.mark.e2e
def test_an_engine_draws_the_second_item_and_makes_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previews, "INTERVAL_S", 0.0)
    monkeypatch.setattr(previews, "SHARE", 0)
    sampling = {"steps": 8, "height": 32, "width": 32, "num_frames": 9}
    solver = {"kind": "collocation", "workers": 3}
    job = {"model": str(save("wan21", tmp_path)), "prompts": ["a", "b"], "sampling": sampling, "solver": solver}
    made: dict[bool, list[Tensor]] = {}
    for wanted in (False, True):
        loaded = load_job({**job, "output": {"previews": wanted}})
        folder = RunFolder.create(tmp_path / f"run-{wanted}", loaded.document, plan(loaded))
        folder.leases.mkdir()
        engine, drawn = Engine(folder.job_document()), []
        engine.begin(folder, folder.items())
        made[wanted] = []
        for item in folder.items():
            engine.prepare(item)
            found = engine.sample(item, lambda front, steps, engine=engine: drawn_up(engine))
            made[wanted].append(found.sampled.latents)
            drawn.append(read_preview(folder, item.id))
            found.decode()
        assert drawn[0] is None
        assert (drawn[1] is not None) == wanted
    assert drawn[1] is not None
    assert drawn[1].steps == 8
    assert all(torch.equal(*pair) for pair in zip(*made.values(), strict=True))
