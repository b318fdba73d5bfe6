"""Kill this process with SIGKILL before, or in the middle of, one of its file operations: put this folder on PYTHONPATH.

GENRUN_TEST_KILL holds JSON: `scope`, the folder whose files count; `role`, of the processes that count; `at`, the number of
the operation at which to die, 0 for never; `token`, a file that the first to die takes away, so that nobody else does;
`counts`, a folder in which every process notes how many operations it made.
"""

import atexit
import json
import os
import signal
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
            self.write = os.write
            os.write = self.write_watched
            sys.addaudithook(self.hear)
            atexit.register(self.note)

    def hear(self, event: str, args: tuple) -> None:
        """Be told of an operation before it is made."""
        if self.is_busy:
            return
        if event == "open":
            path, _, flags = args
            if isinstance(flags, int) and flags & WRITING and self.is_inside(path):
                self.count()
        elif event in PATH_EVENTS and any(self.is_inside(path) for path in args[:2]):
            self.count()

    def write_watched(self, descriptor: int, data) -> int:
        """Write, and die after half of it when it is time."""
        if not self.is_busy and self.is_inside(descriptor) and self.is_last():
            self.write(descriptor, bytes(data)[: len(data) // 2])
            self.die()
        return self.write(descriptor, data)

    def is_inside(self, path) -> bool:
        """Tell whether a path, or an open file, lies in the folder."""
        try:
            name = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else os.path.abspath(os.fsdecode(path))
        except (TypeError, OSError, ValueError):
            return False
        return name.startswith(self.scope)

    def count(self) -> None:
        """Count an operation, and die if it is the one."""
        if self.is_last():
            self.die()

    def is_last(self) -> bool:
        """Count an operation; tell whether it is the one to die at."""
        self.counted += 1
        return self.counted == self.at

    def die(self) -> None:
        """Die, unless somebody else has."""
        self.is_busy = True
        try:
            os.rename(self.token, f"{self.token}.{self.role}")
        except FileNotFoundError:
            self.is_busy = False
            return
        os.kill(os.getpid(), signal.SIGKILL)

    def note(self) -> None:
        """Note how many operations were made."""
        self.is_busy = True
        with open(os.path.join(self.counts, f"{self.role}.{os.getpid()}"), "w") as file:
            file.write(str(self.counted))


if os.environ.get(VARIABLE):
    Killer(**json.loads(os.environ[VARIABLE]))
