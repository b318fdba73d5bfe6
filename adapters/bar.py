"""The progress bar of a pipeline under a solver: final steps of N, instead of model calls of an unknown number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from genrun.adapters.session import Progress


class StepsBar:
    """Stands in for `pipe.progress_bar` while a solver samples: same calls, another count.

    Args:
        config: the pipeline's own settings of its bar (`set_progress_bar_config`), which go to tqdm.
        hidden: show nothing, on ranks other than the first.
    """

    def __init__(self, config: Mapping[str, Any], *, hidden: bool = False) -> None:
        self._config = {**config, "disable": True} if hidden else dict(config)
        self._bar: Any = None
        self._front = 0
        self._iterable: Iterable[Any] = ()

    def __call__(self, iterable: Iterable[Any] | None = None, total: int | None = None) -> StepsBar:
        """What a pipeline calls before its loop; its total counts model calls and is not shown."""
        self._iterable = () if iterable is None else iterable
        return self

    def __iter__(self) -> Iterator[Any]:
        yield from self._iterable

    def __enter__(self) -> StepsBar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, n: int = 1) -> None:
        """Ignore the loop's own count."""

    def show(self, progress: Progress) -> None:
        """Move to the front after a round."""
        if self._config.get("disable"):
            return
        if self._bar is None:
            from tqdm.auto import tqdm

            self._front = 0
            self._bar = tqdm(total=progress.num_steps, unit="step", **self._config)
        self._bar.set_postfix(rounds=progress.rounds, evaluations=progress.nfe, refresh=False)
        self._bar.update(progress.front - self._front)
        self._front = progress.front
        if progress.front == progress.num_steps:
            self.close()

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
