"""Where a rank's items are made, one after the other: sampled here, and finished beside the next one's sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from genrun.runner.worker.failures import CancelledError, is_cancelled
from genrun.runner.worker.finish import CrowdedError, Ending
from genrun.runner.worker.log import say
from genrun.runner.worker.progress import Progress, ProgressLines

if TYPE_CHECKING:
    from collections.abc import Callable

    from genrun.runner.job.plan import WorkItem
    from genrun.runner.worker.beside import Beside
    from genrun.runner.worker.luck import Luck
    from genrun.runner.worker.queue import Claim
    from genrun.runner.worker.sample import Maker


@dataclass
class Station:
    """Makes items.

    Attributes:
        maker: what samples.
        beside: where the last item is finished.
        luck: what has come of the items.
        is_roomy: whether there has been memory enough for decoding beside sampling.
    """

    maker: Maker
    beside: Beside
    luck: Luck
    is_roomy: bool = True

    def make(self, item: WorkItem, attempt: int, claim: Claim | None) -> None:
        """Sample an item, and begin to finish it. `claim` is that of the rank that leads; it is let go at the end.

        Raises:
            StoreError: the run folder cannot be read or written.
            BrokenSlotError: this process has to end.
        """
        progress = None
        if claim is not None:
            progress = Progress(self.maker.folder.progress_path(item.id), check=self._stop_sign(item))

        def let_go() -> None:
            if progress is not None and claim is not None:
                progress.close()
                claim.lease.release()

        try:
            ending = self._sample(item, attempt, progress)
            if ending is not None:
                self._end(ending, let_go)
        except BaseException:
            let_go()
            raise

    def _sample(self, item: WorkItem, attempt: int, progress: Progress | None) -> Ending | None:
        say(f"{item.id}: attempt {attempt}")
        for left_over in self.maker.folder.temporary_files(item.id) if progress is not None else ():
            left_over.unlink(missing_ok=True)
        lines = ProgressLines(item.id, lambda: str(self.maker.producer.memory), say)

        def on_round(front: int, num_steps: int) -> None:
            lines.tell(front, num_steps)
            if progress is not None:
                progress.tell(front, num_steps)

        ending = self.maker.sample(item, attempt, on_round, self.beside.wait)
        lines.close()
        return ending

    def _end(self, ending: Ending, let_go: Callable[[], None]) -> None:
        """Finish an item, beside the next one if it was sampled."""
        if ending.sample is None:
            self._finish_alone(ending, let_go)
            return
        if ending.sample.is_apart:
            self.beside.wait()  # only then it is known whether there is room
        if not (ending.sample.is_apart and self.is_roomy):
            ending.decode()
        self.beside.start(lambda: self._finish_beside(ending, let_go), let_go)

    def _stop_sign(self, item: WorkItem) -> Callable[[], None]:
        """What raises CancelledError once somebody has taken the item out of the work."""
        folder = self.maker.folder
        before = folder.record(item.id, check_files=True)

        def check() -> None:
            record = folder.record(item.id, check_files=True)
            if record != before and is_cancelled(record):
                raise CancelledError

        return check

    def _finish_beside(self, ending: Ending, let_go: Callable[[], None]) -> Callable[[], None] | None:
        """Finish; returns what has to be done again alone, for want of memory."""
        try:
            self._finish(ending, is_alone=False)
        except CrowdedError:
            self.is_roomy = False
            say(
                f"{ending.item.id}: no memory for decoding while the next item is sampled; from now on one after the other"
            )
            return lambda: self._finish_alone(ending, let_go)
        except BaseException:
            let_go()
            raise
        let_go()
        return None

    def _finish_alone(self, ending: Ending, let_go: Callable[[], None]) -> None:
        try:
            self._finish(ending, is_alone=True)
        finally:
            let_go()

    def _finish(self, ending: Ending, *, is_alone: bool) -> None:
        record = ending.finish(is_alone=is_alone)
        self.luck.note(record)
        if record is not None:
            outcome = "done" if record.error is None else f"failed: {record.error['kind']}"
            say(f"{record.item_id}: {outcome} in {record.elapsed_s:.3f} s")
