"""Checks of what is written: whether the model makes it, what draws previews, and whether the folder of runs can be made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from genrun.adapters.checkpoint.integrity import check_component
from genrun.adapters.files import is_folder, is_there, unusable
from genrun.adapters.pipeline.families import fps_asked
from genrun.runner.job.cell import Draft
from genrun.runner.job.checkpoint import locate_part
from genrun.runner.job.errors import JobProblem
from genrun.runner.job.files import HOME, expanded

LONGEST = "/".join(("x" * 80, "2026-01-31T02-00-00-0000", "latents", "00", f".{'0' * 20}.00000000.tmp.safetensors"))
"""A path as long as the longest that a run has below the folder of runs."""


TINY, TINY_CHANNELS = "AutoencoderTiny", 4
"""Class of the decoders of previews, and their channels where config.json says nothing."""


def check_format(cell: Draft) -> Iterator[JobProblem]:
    """Refuse `output.format` where the model is known not to make it."""
    if cell.sampling is None:
        return
    at = ("output", "format")
    kind = getattr(cell.adapter, "kind", None)
    message = format_problem(cell.root.text(at), kind, cell.sampling.get("num_frames"))
    if message:
        label = getattr(cell.adapter, "label", cell.adapter.name)
        yield cell.root.problem(at, f"{label} {message}.")


def format_problem(wanted: Any, kind: str | None, num_frames: int | None) -> str:
    """Say what is wrong with a format for a model that makes clips or pictures; return "" for nothing."""
    if wanted == "png" and kind == "video" and num_frames != 1:
        return "makes clips, and a PNG holds one picture. Use mp4, leave the format out, or set sampling.num_frames: 1"
    if wanted == "mp4" and kind == "image":
        return "makes pictures, not clips. Use png, or leave the format out"
    return ""


def check_sound(cell: Draft) -> Iterator[JobProblem]:
    """Refuse sound of a model that is known to make none, and frames at another pace than their sound is made for."""
    adapter = cell.adapter
    if cell.sampling is None or cell.job is None or not (adapter.pipeline or getattr(adapter, "loads", None)):
        return
    output, pace = cell.job.output, fps_asked(cell.sampling) or getattr(adapter, "fps", None)
    for name, message in sound_problems(output.sound, output.fps, pace, makes=getattr(adapter, "sound", False)):
        yield cell.root.problem(("output", name), f"{getattr(adapter, 'label', adapter.name)} {message}.")


def sound_problems(
    wanted: bool | None, fps: float | None, pace: float | None, *, makes: bool
) -> Iterator[tuple[str, str]]:
    """List what is wrong with the sound that a section `output` asks for: (field, message).

    Args:
        wanted: output.sound.
        fps: output.fps.
        pace: frames a second that the model is told, or is made for.
        makes: whether it makes sound.
    """
    if wanted and not makes:
        yield "sound", "makes no sound. Leave it out"
    elif makes and wanted is not False and fps is not None and fps != pace:
        yield (
            "fps",
            (
                f"makes sound for {pace:g} frames a second, which {fps:g} would leave behind. Leave fps out, set "
                f"sampling.options.frame_rate: {fps:g}, or output.sound: false"
            ),
        )


def check_previews(cell: Draft) -> Iterator[JobProblem]:
    """Refuse a decoder of previews that is not here, is none, or is for latents of another model."""
    at = ("output", "previews", "decoder")
    name = cell.root.text(at)
    if name is None:
        return
    wrong = _decoder_problem(name, cell.root.place(at).folder, {} if cell.parts is None else cell.parts.vae_config)
    if wrong:
        yield cell.root.problem(at, f"{wrong}.")


def _decoder_problem(name: str, base: Path, vae: Mapping[str, Any]) -> str:
    """Say what is wrong with a decoder of previews for latents of a VAE; return "" for nothing."""
    try:
        found = locate_part(name, base)
        folder = found.local_folder(None)
        if found.file is not None:
            return f"{name!r} is a file; wanted the folder of an {TINY}"
        if folder is None:
            return f"{name!r} is no folder on this machine. Get it: hf download {name}"
        config = check_component(folder, name, None)
    except (ValueError, OSError) as error:
        return str(error).rstrip(".")
    if config.get("_class_name") != TINY:
        return f"{name!r} holds a {config.get('_class_name')}, and wanted is an {TINY}, such as TAESD"
    channels, wanted = config.get("latent_channels", TINY_CHANNELS), vae.get("latent_channels") or vae.get("z_dim")
    if isinstance(wanted, int) and channels != wanted:
        return f"{name!r} decodes latents of {channels} channels, and this model's have {wanted}. Name one made for it"
    return ""


def check_folder(cell: Draft) -> Iterator[JobProblem]:
    """Refuse a folder of runs that cannot be made: of a user that is not there, or with a name too long."""
    at = ("output", "dir")
    name = cell.root.text(at)
    if name is None:
        return
    folder = expanded(name)
    wrong = unusable(Path(folder, LONGEST).absolute())
    if str(folder).startswith(HOME):
        user = folder.parts[0].removeprefix(HOME)
        wrong = f"there is no user {user!r} here; write ./{folder} for a folder of that name"
    above = next((path for path in (folder, *folder.absolute().parents) if is_there(path)), folder)
    if not wrong and is_there(above) and not is_folder(above):
        wrong = f"{str(above)!r} is a file; wanted a folder"
    if wrong:
        yield cell.root.problem(at, f"{wrong}.")
