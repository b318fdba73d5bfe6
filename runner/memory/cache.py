"""Where a checkpoint's files lie on this machine."""

from __future__ import annotations

from pathlib import Path

from genrun.runner.errors import UsageError
from genrun.runner.job.checkpoint import Checkpoint


def folder_of(checkpoint: Checkpoint, revision: str | None) -> Path:
    """A checkpoint's folder: its own, or that of the hub's cache. Downloads nothing.

    Raises:
        UsageError: a hub id that is not in the cache.
    """
    if checkpoint.folder is not None:
        return checkpoint.folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(checkpoint.name, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError as error:
        remedy = f"Get it first: hf download {checkpoint.name}; or --set model.checkpoint=FOLDER."
        raise UsageError(
            f"{checkpoint.name}: is not on this machine, so its sizes are not known.", remedy=remedy
        ) from error
