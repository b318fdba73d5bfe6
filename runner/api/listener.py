"""Callbacks of an operation while it works: messages, results, progress, and the run that a submission opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from genrun.runner.progress import Display, Progress
    from genrun.runner.store.folder import RunFolder

NOTEBOOK_INTERVAL_S = 2.0
"""Seconds between two lines of progress in a notebook: who sits before it waits."""


class Opened(Protocol):
    """A run that a submission goes on with, as `Submission` describes it."""

    @property
    def folder(self) -> RunFolder:
        """The run."""
        ...

    @property
    def jobs(self) -> Sequence[str]:
        """Names of its jobs in a queue; further ones are added as they are put there."""
        ...

    @property
    def taken(self) -> Mapping[str, int]:
        """Numbers of items that were taken over and set back."""
        ...


class Silent:
    """A display that shows nothing."""

    def show(self, progress: Progress) -> None:
        """Show nothing."""

    def close(self, progress: Progress) -> None:
        """Show nothing."""


class Listener:
    """Hear an operation, and do nothing about it; override what is of interest.

    class Talk(genrun.api.Listener):
        def say(self, text):
            print(text)

    genrun.submit("jobs/demo.yaml", listener=Talk())
    """

    def say(self, text: str) -> None:
        """Hear a message: a warning, or what is being done and why."""

    def result(self, text: str) -> None:
        """Hear a result as soon as there is one: the file that was decoded, the name of the job that was stopped."""

    def progress(self, done: int, total: int) -> None:
        """Hear how many items were looked at, of how many."""

    def display(self) -> Display:
        """Return what shows how far a run is; called whenever the work on it begins to be followed."""
        return Silent()

    def opened(self, submission: Opened) -> None:
        """Hear which run a submission goes on with, before workers are started; errors after that leave the run there."""


class ConsoleListener(Listener):
    """Print what an operation says, its results, and how far it is: for notebooks and scripts."""

    def say(self, text: str) -> None:
        """Print a message."""
        print(text, flush=True)

    def result(self, text: str) -> None:
        """Print a result."""
        print(text, flush=True)

    def display(self) -> Display:
        """Return what prints a line whenever items were finished, at most one every two seconds."""
        from genrun.runner.progress import PlainDisplay

        return PlainDisplay(self.say, NOTEBOOK_INTERVAL_S)


QUIET = Listener()
"""The default: nobody listens."""
