"""Kill this process with SIGKILL before, or in the middle of, one of its file operations: put this folder on PYTHONPATH.

GENRUN_TEST_KILL holds JSON: `scope`, the folder whose files count; `role`, of the processes that count; `at`, the number of
the operation at which to die, 0 for never; `token`, a file that the first to die takes away, so that nobody else does;
`counts`, a folder in which every process notes how many operations it made.

Operations are: opening for writing, renaming, removing and the like (die before), `os.write`, what Python's own files write
and `os.sendfile` (die after half of it), `os.fsync` (die before; between it and the rename is before the rename), and the
statements of SQLite (die before, which is within the transaction for all but the first).
"""

import atexit
import builtins
import io
import json
import os
import signal
import sqlite3
import sys

VARIABLE = "GENRUN_TEST_KILL"
PATH_EVENTS = frozenset(
    {
        "os.rename",
        "os.remove",
        "os.rmdir",
        "os.mkdir",
        "os.link",
        "os.symlink",
        "os.truncate",
        "os.utime",
        "shutil.rmtree",
    }
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
TOKEN_SUFFIX = ".used"


def role_of(arguments: list[str]) -> str:
    """Tell a worker from torchrun's agent, and both from the command that a user types."""
    if any(argument.endswith("worker.py") for argument in arguments) and "torch.distributed.run" not in arguments:
        return "worker"
    return "agent" if "torch.distributed.run" in arguments else "command"


class Killer:
    """Counts file operations in a folder and dies at one of them."""

    def __init__(self, scope: str, role: str, at: int, token: str, counts: str) -> None:
        self.scope, self.at, self.token, self.counts = scope, at, token, counts
        self.role = role_of(sys.orig_argv)
        self.counted = 0
        self.is_busy = False
        if role in (self.role, "any"):
            self.write, self.fsync, self.sendfile, self.open = os.write, os.fsync, os.sendfile, io.open
            os.write, os.fsync, os.sendfile = self.write_watched, self.fsync_watched, self.sendfile_watched
            self.connect, sqlite3.connect = sqlite3.connect, self.connect_watched
            io.open = builtins.open = self.open_watched
            sys.addaudithook(self.hear)
            atexit.register(self.note)

    def hear(self, event: str, args: tuple) -> None:
        """Be told of an operation before it is made."""
        if self.is_busy:
            return
        if event == "open":
            path, _, flags = args
            if isinstance(flags, int) and flags & WRITING and self.is_inside(path):
                self.count(f"open {path}")
        elif event in PATH_EVENTS and any(self.is_inside(path) for path in args[:2]):
            self.count(f"{event} {args[0]}")

    def write_watched(self, descriptor: int, data) -> int:
        """Write, and die after half of it when it is time."""
        if not self.is_busy and self.is_inside(descriptor) and self.is_last() and self.is_chosen("write"):
            self.write(descriptor, bytes(data)[: len(data) // 2])
            self.die()
        return self.write(descriptor, data)

    def sendfile_watched(self, target: int, source: int, offset: int, count: int) -> int:
        """Copy, and die after half of it when it is time."""
        if not self.is_busy and self.is_inside(target) and self.is_last() and self.is_chosen("sendfile"):
            self.sendfile(target, source, offset, os.fstat(source).st_size // 2)
            self.die()
        return self.sendfile(target, source, offset, count)

    def fsync_watched(self, descriptor: int) -> None:
        """Die, or bring a file onto the disk."""
        if not self.is_busy and self.is_inside(descriptor):
            self.count("fsync")
        self.fsync(descriptor)

    def open_watched(self, file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, *rest, **more):
        """Open a file; one that is only written to passes what it writes on to `write_watched`."""
        is_plain = not rest and not more and "+" not in mode and buffering and set(mode) & set("wxa")
        if self.is_busy or not is_plain or isinstance(file, int) or not self.is_inside(file):
            return self.open(file, mode, buffering, encoding, errors, newline, *rest, **more)
        binary = io.BufferedWriter(Watched(file, mode.replace("b", "").replace("t", "")))
        binary.raw.killer = self
        if "b" in mode:
            return binary
        return io.TextIOWrapper(binary, encoding or "locale", errors, newline, line_buffering=buffering == 1)

    def connect_watched(self, database, *args, **more):
        """Open a database that dies before a statement when it is time."""
        opened = self.connect(database, *args, **more)
        if self.is_inside(database):
            opened.set_trace_callback(lambda statement: self.count(f"sqlite {statement}"))
        return opened

    def is_inside(self, path) -> bool:
        """Tell whether a path, or an open file, lies in the folder."""
        try:
            name = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else os.path.abspath(os.fsdecode(path))
        except (TypeError, OSError, ValueError):
            return False
        return name.startswith(self.scope)

    def count(self, what: str) -> None:
        """Count an operation, and die if it is the one."""
        if not self.is_busy and self.is_last() and self.is_chosen(what):
            self.die()

    def is_last(self) -> bool:
        """Count an operation; tell whether it is the one to die at."""
        self.counted += 1
        return self.counted == self.at

    def is_chosen(self, what: str) -> bool:
        """Take the token, and note what the process dies in; False when another process has died already."""
        self.is_busy = True
        used = f"{self.token}{TOKEN_SUFFIX}"
        try:
            os.rename(self.token, used)
        except FileNotFoundError:
            self.is_busy = False
            return False
        with self.open(used, "w") as file:
            file.write(what)
        return True

    def die(self) -> None:
        """Die as `kill -9` does."""
        os.kill(os.getpid(), signal.SIGKILL)

    def note(self) -> None:
        """Note how many operations were made."""
        self.is_busy = True
        with self.open(os.path.join(self.counts, f"{self.role}.{os.getpid()}"), "w") as file:
            file.write(str(self.counted))


class Watched(io.FileIO):
    """A file whose bytes go through `Killer.write_watched`."""

    killer: Killer

    def write(self, data) -> int:
        return self.killer.write_watched(self.fileno(), data)


if os.environ.get(VARIABLE):
    Killer(**json.loads(os.environ[VARIABLE]))
