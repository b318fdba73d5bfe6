"""fid, fvd and lpips, with small TorchScript networks: the formula, saved statistics, and reasons."""

from __future__ import annotations

import pickle
import platform
import sys
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image

from genrun.adapters.media import write_image, write_video
from genrun.adapters.scorers import _network
from genrun.adapters.scorers._frechet import distance, fitted
from genrun.adapters.scorers._network import without_torchvision
from genrun.adapters.scorers.contract import Sample, SetPart, UnscoredError
from genrun.adapters.scorers.fid import Fid, FidOptions
from genrun.adapters.scorers.fvd import Fvd
from genrun.adapters.scorers.lpips import Lpips, LpipsOptions
from genrun.runner.score.scoring import score_run
from tests.sample_run import make_run

FEATURES = 6

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")


class Pooled(torch.nn.Module):
    """Mean and spread of each channel, of pictures or clips."""

    def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        flat = x.float().flatten(2) / 255
        return torch.cat([flat.mean(2), flat.std(2)], dim=1)


class Blurred(torch.nn.Module):
    """Coarse pixels: their squared distance is a perceptual distance of a kind."""

    def forward(self, x: torch.Tensor, resize_images: bool = True, return_lpips: bool = False) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(x, 8).flatten(1) / 255


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Pooled()).save(str(folder / "pooled.pt"))
        torch.jit.script(Blurred()).save(str(folder / "blurred.pt"))
    return folder


def pictures(folder: Path, count: int, seed: int, shift: int = 0) -> list[Sample]:
    folder.mkdir()
    rng = np.random.default_rng(seed)
    found = []
    for index in range(count):
        frame = np.clip(rng.integers(0, 200, (16, 16, 3)) * rng.uniform(0.3, 1) + shift, 0, 255)
        write_image(folder / f"{index}.png", frame.astype(np.uint8))
        found.append(Sample("x", media=folder / f"{index}.png", name=f"id{index}"))
    return found


def options(networks: Path, reference: Path | None, frames: int = 16, batch: int = 32) -> FidOptions:
    return FidOptions(networks / "pooled.pt", reference, frames, batch, device="cpu")


def only(parts: Iterator[SetPart]) -> SetPart:
    (part,) = parts
    return part


def value(metric: Fid | Fvd, samples: list[Sample], workspace: Path) -> float:
    found = only(metric.measure_set(samples, metric.parts, workspace)).value
    assert found is not None
    return found


def test_the_distance_is_that_of_torchmetrics() -> None:
    with without_torchvision():
        from torchmetrics.image.fid import FrechetInceptionDistance

    generator = torch.Generator().manual_seed(0)
    ours, theirs = (
        torch.randn(40, 8, generator=generator, dtype=torch.float64) * s + m for s, m in ((1, 0), (1.5, 0.3))
    )
    metric = FrechetInceptionDistance(feature=Identity(), normalize=True).set_dtype(torch.float64)
    metric.update(theirs.reshape(40, 1, 1, 8), real=True)
    metric.update(ours.reshape(40, 1, 1, 8), real=False)
    found = distance(fitted([ours[:13], ours[13:]]), fitted([theirs]))
    assert found == pytest.approx(metric.compute().item(), rel=1e-4)


class Identity(torch.nn.Module):
    """Pictures as their own features, for torchmetrics."""

    num_features = 8

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x / 255 if x.dtype == torch.uint8 else x).reshape(len(x), -1).double()


def test_the_distance_of_known_gaussians_is_known() -> None:
    rows = torch.randn(50, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert distance(fitted([rows]), fitted([rows])) == pytest.approx(0, abs=1e-9)
    assert distance(fitted([rows + torch.tensor([3.0, 4.0, 0.0])]), fitted([rows])) == pytest.approx(25)


def test_fid_to_the_same_pictures_is_zero_and_grows_with_a_shift(networks: Path, tmp_path: Path) -> None:
    real = pictures(tmp_path / "real", 12, seed=0)
    metric = Fid(options(networks, tmp_path / "real"))
    assert value(metric, real, tmp_path / "w") == pytest.approx(0, abs=1e-9)
    values = [
        value(metric, pictures(tmp_path / f"s{shift}", 12, seed=0, shift=shift), tmp_path / "w") for shift in (10, 40)
    ]
    assert 0 < values[0] < values[1]


def test_a_folder_and_its_saved_statistics_give_the_same(networks: Path, tmp_path: Path) -> None:
    pictures(tmp_path / "real", 12, seed=0)
    made = pictures(tmp_path / "made", 12, seed=1)
    first = value(Fid(options(networks, tmp_path / "real")), made, tmp_path / "w")
    (kept,) = (tmp_path / "w").glob("reference-*.npz")
    assert value(Fid(options(networks, kept)), made, tmp_path / "other") == pytest.approx(first, rel=1e-9)
    pictures(tmp_path / "real" / "more", 3, seed=5)
    assert value(Fid(options(networks, tmp_path / "real")), made, tmp_path / "w") != pytest.approx(first, rel=1e-6)


def test_batches_do_not_change_it(networks: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo" / "run", seeds=(0, 1), latents=False)
    real = run.path / "media"
    values = [score_run(run, [Fid(options(networks, real, batch=batch))]) for batch in (3, 32)]
    assert values[0] == values[1]
    assert {row.item_id for row in values[0]} == {"set:sequential", "set:ropa K=8"}
    assert all(row.value is not None for row in values[0])


def test_few_samples_are_said_to_be_few(networks: Path, tmp_path: Path) -> None:
    real = pictures(tmp_path / "real", 4, seed=0)
    part = only(Fid(options(networks, tmp_path / "real")).measure_set(real, ("fid",), tmp_path / "w"))
    assert part.reason == "of 4 samples and 4 real ones with 6 features: compare it with such of as many samples only"


def test_few_real_pictures_are_said_to_be_few(networks: Path, tmp_path: Path) -> None:
    pictures(tmp_path / "real", 2, seed=0)
    made = pictures(tmp_path / "made", 8, seed=1)
    part = only(Fid(options(networks, tmp_path / "real")).measure_set(made, ("fid",), tmp_path / "w"))
    assert part.reason == "of 2 real ones with 6 features: compare it with such of as many samples only"


def test_kept_statistics_that_are_damaged_are_fitted_anew(networks: Path, tmp_path: Path) -> None:
    pictures(tmp_path / "real", 12, seed=0)
    made = pictures(tmp_path / "made", 12, seed=1)
    first = value(Fid(options(networks, tmp_path / "real")), made, tmp_path / "w")
    (kept,) = (tmp_path / "w").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[:50])
    # Of a process that was killed while it wrote.
    (tmp_path / "w" / f".{kept.stem}.{platform.node()}-999999999").touch()
    assert value(Fid(options(networks, tmp_path / "real")), made, tmp_path / "w") == first
    assert [path.name for path in (tmp_path / "w").iterdir()] == [kept.name] and kept.read_bytes() == whole


def test_a_folder_that_cannot_be_written_costs_no_score(networks: Path, tmp_path: Path) -> None:
    pictures(tmp_path / "real", 12, seed=0)
    (tmp_path / "w").touch()
    assert value(Fid(options(networks, tmp_path / "real")), pictures(tmp_path / "made", 12, seed=1), tmp_path / "w") > 0


def test_real_pictures_of_more_than_eight_bits_are_refused_by_name(networks: Path, tmp_path: Path) -> None:
    pictures(tmp_path / "real", 4, seed=0)
    Image.fromarray(np.full((16, 16), 30_000, np.uint16)).save(tmp_path / "real" / "deep.png")
    with pytest.raises(UnscoredError, match=r"deep\.png cannot be read: .*more than 8 bits"):
        value(Fid(options(networks, tmp_path / "real")), pictures(tmp_path / "made", 4, seed=1), tmp_path / "w")


def test_a_picture_that_cannot_be_read_is_named_and_the_rest_measured(networks: Path, tmp_path: Path) -> None:
    real = pictures(tmp_path / "real", 8, seed=0)
    made = pictures(tmp_path / "made", 8, seed=1)
    path = made[3].media
    assert path is not None
    path.write_bytes(b"")
    part = only(Fid(options(networks, tmp_path / "real")).measure_set(made, ("fid",), tmp_path / "w"))
    assert part.value is not None and set(part.items) == {"id3"}
    assert "the file is empty" in str(part.items["id3"])
    assert len(real) == 8


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda n, _: FidOptions(device="cpu"), "fid needs real pictures to compare with"),
        (lambda n, t: FidOptions(t / "none.pt", device="cpu"), r"there is no file .*none\.pt"),
        (lambda n, t: FidOptions(t / "bad.pt", device="cpu"), r"bad\.pt is no TorchScript file"),
        (lambda n, _: FidOptions(n / "pooled.pt", device="cpu"), "fid needs real pictures to compare with"),
        (lambda n, t: FidOptions(n / "pooled.pt", t / "gone", device="cpu"), "there is no .*gone"),
        (lambda n, t: FidOptions(n / "pooled.pt", t / "empty", device="cpu"), "no pictures or clips in"),
        (lambda n, t: FidOptions(n / "pooled.pt", t / "bad.npz", device="cpu"), "is no statistics file"),
        (lambda n, t: FidOptions(n / "pooled.pt", t / "small.npz", device="cpu"), "of another network: 6 and 2"),
    ],
)
def test_what_is_missing_or_wrong_is_said(make, reason: str, networks: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.pt").write_bytes(b"no")
    (tmp_path / "bad.npz").write_bytes(b"no")
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "small.npz", mu=np.zeros(2), sigma=np.eye(2))
    made = pictures(tmp_path / "made", 3, seed=1)
    with pytest.raises(UnscoredError, match=reason):
        list(Fid(make(networks, tmp_path)).measure_set(made, ("fid",), tmp_path / "w"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in for InceptionV3's published weights: the right names and shapes, random numbers, half precision."""
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    with without_torchvision():
        module: Any = import_module("torch_fidelity.feature_extractor_inceptionv3")
    # The constructor reads weights; it is given none, and keeps what torch has drawn.
    module.load_state_dict_from_url = lambda *_, **__: {}
    with torch.random.fork_rng(devices=[]), pytest.MonkeyPatch.context() as patch:
        torch.manual_seed(0)
        patch.setattr(torch.nn.Module, "load_state_dict", lambda *_: None)
        network = module.FeatureExtractorInceptionV3("random", ["2048"])
    torch.save(
        {name: value.half() if value.is_floating_point() else value for name, value in network.state_dict().items()},
        path,
    )
    return path


@pytest.mark.e2e
def test_fid_takes_inception_by_default_with_weights_from_a_file(weights: Path, tmp_path: Path) -> None:
    real = pictures(tmp_path / "real", 3, seed=0)
    metric = Fid(FidOptions(reference=tmp_path / "real", weights=weights, device="cpu", batch=2))
    features = metric._network(torch.randint(0, 256, (2, 3, 20, 30), dtype=torch.uint8))
    assert features.shape == (2, 2048) and features.dtype == torch.float64
    part = only(metric.measure_set(real, ("fid",), tmp_path / "w"))
    assert part.value == pytest.approx(0, abs=1e-6)
    assert part.reason is not None and "of 3 samples and 3 real ones with 2048 features" in part.reason
    assert str(metric.settings["network"]).startswith("inception-v3-2015-12-05:")
    assert not [name for name in sys.modules if name.startswith("torch_fidelity")]


def test_weights_that_cannot_be_downloaded_leave_fid_unscored_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    metric = Fid(FidOptions(reference=tmp_path, device="cpu"))
    with pytest.raises(
        UnscoredError, match=r"cannot be downloaded \(URLError.*github.*score: \[\{kind: fid, weights: FILE\}\]"
    ):
        list(metric.measure_set([], ("fid",), tmp_path / "w"))
    assert metric.settings["network"] == "inception-v3-2015-12-05"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no", r"the weights .*bad\.pth cannot be read"),
        (pickle.dumps(print, protocol=2), r"the weights .*bad\.pth cannot be read \(UnpicklingError"),
        ({"fc.weight": torch.zeros(3)}, r"bad\.pth holds no weights of InceptionV3: .*Missing key"),
        ([1], r"bad\.pth holds no weights of InceptionV3"),
    ],
)
def test_weights_of_something_else_are_refused_and_run_no_code(content: object, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UnscoredError, match=reason):
        list(Fid(FidOptions(reference=tmp_path, weights=path, device="cpu")).measure_set([], ("fid",), tmp_path))


def test_without_torch_fidelity_fid_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_network, "find_spec", lambda _: None)
    with pytest.raises(
        UnscoredError, match=r"pip install 'genrun\[fid\]'; or name a network of your own \(TorchScript"
    ):
        list(Fid(FidOptions(reference=tmp_path, device="cpu")).measure_set([], ("fid",), tmp_path))


def test_real_pictures_may_be_jpegs(networks: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 255, (16, 16, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "real" / f"{index}.JPG", format="JPEG")
    made = pictures(tmp_path / "made", 3, seed=1)
    assert value(Fid(options(networks, tmp_path / "real")), made, tmp_path / "w") > 0


def test_every_real_picture_and_clip_of_a_folder_counts(networks: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    for index, (suffix, mode) in enumerate((("bmp", "RGB"), ("tif", "L"), ("ppm", "RGB"), ("pgm", "L"), ("png", "LA"))):
        Image.new(mode, (16, 16), 50 * index).save(tmp_path / "real" / f"{index}.{suffix}")
    clip = tmp_path / "clip.mp4"
    write_video(clip, np.zeros((4, 16, 16, 3), np.uint8), fps=8)
    for suffix in ("avi", "mkv"):
        (tmp_path / "real" / f"clip.{suffix}").write_bytes(clip.read_bytes())
    value(Fid(options(networks, tmp_path / "real")), pictures(tmp_path / "made", 8, seed=1), tmp_path / "w")
    (kept,) = (tmp_path / "w").iterdir()
    assert np.load(kept)["n"] == 5 + 2 * 4


def test_a_real_clip_that_is_too_short_is_named(networks: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    write_video(tmp_path / "real" / "short.mp4", np.zeros((4, 16, 16, 3), np.uint8), fps=8)
    with pytest.raises(UnscoredError, match=r"short\.mp4: 4 frames, fewer than the 8"):
        value(Fvd(options(networks, tmp_path / "real", frames=8)), [], tmp_path / "w")


def test_fvd_looks_at_whole_clips_and_refuses_short_ones_by_name(networks: Path, tmp_path: Path) -> None:
    samples = []
    for index in range(5):
        path = tmp_path / f"{index}.mp4"
        frames = np.random.default_rng(index).integers(0, 50 * (index + 1), (9 if index else 4, 16, 16, 3))
        write_video(path, frames.astype(np.uint8), fps=8)
        samples.append(Sample("x", media=path, name=f"id{index}"))
    (tmp_path / "real").mkdir()
    for index in range(1, 5):
        (tmp_path / "real" / f"{index}.mp4").write_bytes((tmp_path / f"{index}.mp4").read_bytes())
    part = only(Fvd(options(networks, tmp_path / "real", frames=8)).measure_set(samples, ("fvd",), tmp_path / "w"))
    assert part.value == pytest.approx(0, abs=1e-9)
    assert part.items == {"id0": "4 frames, fewer than the 8 that fvd looks at"}


def test_lpips_is_zero_for_the_same_and_grows_with_noise(networks: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clean = rng.integers(60, 180, (32, 32, 3)).astype(np.uint8)
    metric = Lpips(LpipsOptions(networks / "blurred.pt", device="cpu"))
    values = []
    for level in (0, 20, 60):
        path = tmp_path / f"{level}.png"
        write_image(path, np.clip(clean + level * rng.normal(size=(1, 1, 3)), 0, 255).astype(np.uint8))
        reference = Sample("x", media=tmp_path / "0.png")
        values.append(metric.measure(Sample("x", media=path), reference)["lpips"])
    assert values[0] == 0
    assert 0 < values[1] < values[2]


def test_lpips_without_a_network_says_what_to_give() -> None:
    with pytest.raises(UnscoredError, match="no sequential item"):
        Lpips().measure(Sample("x"), None)
    with pytest.raises(UnscoredError, match=r"lpips needs a feature network \(TorchScript, such as vgg16\.pt\)"):
        Lpips()._network()
