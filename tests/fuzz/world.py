"""A folder with everything in it that a job may name and should not, and what must hold of every call made there."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from click.testing import CliRunner, Result

from genrun.runner.cli import main
from tests.fuzz.cases import JOB, PICTURE, Case
from tests.fuzz.files import RIGHT
from tests.fuzz.values import SECRET

LIMIT_S = 5
"""Of processor time, so that a busy machine accuses nobody."""

HANG_S = 60
CODES = (0, 1, 2, 3)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
DEVICES = ("/dev/zero", "/dev/stdin")
"""Those that the command lines name, beside /dev/null."""

WRITERS = ("--markdown", "--junit", "--pdf", "--to", "--out", "-o", "--runs")
"""Options that name what is to be written."""

CHANGES = ("os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.link", "os.symlink", "os.truncate", "shutil.rmtree")
MARKS = ("An error in genrun itself", "Traceback (most recent call last)")


class HangError(BaseException):
    """A call that does not come to its end."""


class World:
    """A folder of its own, in which commands are called.

    Attributes:
        root: the folder that nothing may be written outside of.
        work: where commands are called.
        right: what a media file says of itself when genrun wrote it.
        code: the exit code of the last call.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.work = root.resolve(), root.resolve() / "here"
        self.right: dict[str, Any] = {}
        self.code = 0
        self._kept: set[str] = set()
        self._written: list[str] = []
        self._watching = False
        self._started_ns = 0
        sys.addaudithook(self._audit)

    def build(self) -> World:
        """Make the folder, with a finished run in it, and import what verbs import."""
        from tests.sample_run import make_run

        for folder in (self.work / "runs" / "demo", self.work / "folder", self.root / "home", self.root / "tmp"):
            folder.mkdir(parents=True)
        run = make_run(self.work / "runs" / "demo" / "2026-01-31T02-00-00-0000", image=True, adapter="demo-image")
        (run.path.parent / "latest").symlink_to(run.path.name)
        for name in ("sparse.yaml", "sparse.txt"):
            with (self.work / name).open("wb") as file:
                file.truncate(5 * 2**30)
        os.mkfifo(self.work / "fifo")
        (self.work / "loop").symlink_to("loop")
        with contextlib.chdir(self.work), socket.socket(socket.AF_UNIX) as unix:
            unix.bind("socket")
        self._kept = {path.name for path in self.work.iterdir()}
        job = {JOB: b"model: demo-image\nprompts: [a]\nsampling: {steps: 2}\n"}
        item = json.loads(self.call(Case(("plan", JOB, "--json"), job), limit_s=120).stdout)[0]
        self.right = {"genrun": "0", "item": item, "made": {"threads": 1}}
        for args in (
            ("score", "demo"),
            ("report", "demo"),
            ("compare", "demo", "--by", "solver"),
            ("submit", JOB, "-n"),
        ):
            self.call(Case(args, job), limit_s=120)
        return self

    def wrong(self, case: Case) -> list[str]:
        """Call a command, and return what must not be."""
        started = time.process_time()
        try:
            result = self.call(case)
        except HangError:
            return [f"took longer than {HANG_S} s"]
        except BaseException as error:  # what a command lets through is what is looked for
            return [f"raised {type(error).__name__}: {error}"]
        return list(self._faults(case, result, time.process_time() - started))

    def call(self, case: Case, limit_s: int = HANG_S) -> Result:
        """Write the files of a case, and call its command there."""
        self._clean()
        for name, data in {**RIGHT, **case.files}.items():
            (self.work / name).write_bytes(data)
        if case.metadata is not None:
            _picture(self.work / PICTURE, case.metadata)
        environ = {
            **{"HOME": str(self.root / "home"), "PATH": "/nowhere", "TMPDIR": str(self.root / "tmp")},
            **{"MY_TOKEN": SECRET, "HOST": "here", "HF_HUB_OFFLINE": "1", "COLUMNS": "120"},
        }
        self._written.clear()
        # The clock of file systems ticks more coarsely than that of the machine.
        self._started_ns = time.time_ns() - 50_000_000
        with (
            contextlib.chdir(self.work),
            mock.patch.object(tempfile, "tempdir", str(self.root / "tmp")),
            mock.patch("genrun.runner.rerun.repeat", _repeat),
            _within(limit_s),
            self._watched(),
        ):
            return CliRunner().invoke(main, list(case.args), env=environ, prog_name="genrun")

    def _faults(self, case: Case, result: Result, took_s: float) -> Iterator[str]:
        self.code = result.exit_code
        if result.exit_code not in CODES:
            yield f"exit code {result.exit_code}"
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            yield f"raised {type(result.exception).__name__}: {result.exception}"
        yield from (f"said {mark!r}" for mark in MARKS if mark in result.output)
        if SECRET in result.output or any(SECRET.encode() in text for text in self._new_files()):
            yield "told a secret"
        if took_s > LIMIT_S:
            yield f"took {took_s:.1f} s"
        is_help = not {"--help", "-h", "--version"}.isdisjoint(case.args)
        if "--json" in case.args and not is_help and result.exit_code == 0 and not _is_json(result.stdout):
            yield "wrote no JSON"
        # What the command line asks for may lie anywhere, with the folders above it and what is renamed to it.
        pairs = zip(case.args, case.args[1:], strict=False)
        asked = [Path(os.path.normpath(self.work / value)) for option, value in pairs if option in WRITERS]
        strange = (
            path for path in dict.fromkeys(self._written) if not any(_serves(Path(path), each) for each in asked)
        )
        yield from (f"wrote outside: {path}" for path in strange)

    def _new_files(self) -> Iterator[bytes]:
        """What the call wrote: by the stamps of files, as reading all of them takes longer than most calls."""
        for folder, _, names in os.walk(self.work):
            for name in names:
                found = os.lstat(path := f"{folder}/{name}")
                if stat.S_ISREG(found.st_mode) and found.st_size < 2**20 and found.st_mtime_ns >= self._started_ns:
                    yield Path(path).read_bytes()

    def _clean(self) -> None:
        for path in self.work.iterdir():
            if path.name in self._kept:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        self._watching = True
        try:
            yield
        finally:
            self._watching = False

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        """Refuse what would be written outside, and note it; this hook sees every file that Python opens, and stays."""
        if not self._watching:
            return
        if event == "open" and isinstance(args[2], int) and args[2] & WRITING:
            # What is written into a device leaves nothing; putting a file in its place does, and is a rename.
            if str(args[0]) not in DEVICES:
                self._note(args[0])
        elif event in CHANGES:
            for path in (
                args[:2] if event == "os.rename" else args[1:2] if event in ("os.link", "os.symlink") else args[:1]
            ):
                self._note(path)
        elif event == "os.system":
            self._written.append(f"os.system({args[0]!r})")
            raise PermissionError(errno.EACCES, "kept inside", args[0])

    def _note(self, path: Any) -> None:
        if isinstance(path, int) or os.fspath(path) in (os.devnull, b"/dev/null"):
            return
        # By hand: a look at the file would call this hook again.
        name = os.fsdecode(path)
        absolute = os.path.normpath(name if name.startswith("/") else f"{self.work}/{name}")
        if not absolute.startswith(f"{self.root}/") and "/__pycache__/" not in absolute:
            self._written.append(absolute)
            # Whoever runs this may write everywhere, and a file of the machine would be lost.
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)


def _serves(path: Path, asked: Path) -> bool:
    """Return True when writing a path is part of writing the one that was asked for."""
    return (
        path.is_relative_to(asked)
        or asked.is_relative_to(path)
        or (path.parent == asked.parent and path.suffix == ".tmp")
    )


@contextlib.contextmanager
def _within(seconds: int) -> Iterator[None]:
    def hang(*_: object) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _repeat(original: Any, out: Path) -> Any:
    """Stand in for the sampling of an item that was accepted."""
    from genrun.runner.rerun import Reproduction

    return Reproduction(out / f"{original.item.id}.png", "0", None, None, None)


def _picture(path: Path, metadata: Any) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt("genrun", json.dumps(metadata))
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)


def _is_json(text: str) -> bool:
    try:
        return all(json.loads(line) is not None for line in text.splitlines())
    except ValueError:
        try:
            return json.loads(text) is not None
        except ValueError:
            return False
