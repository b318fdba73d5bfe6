"""A launcher that makes every item in this process, at once: thousands of submissions take seconds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrun.runner.job.plan import WorkItem
from genrun.runner.job.schema import JobSpec
from genrun.runner.launch.protocol import Check, State
from genrun.runner.parallel.mesh import ALONE, Mesh
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.order import Order, log_folder, open_items
from tests.fakes.items import done
from tests.fakes.worker import picture


@dataclass
class AtOnce:
    """Finishes an order while it is submitted."""

    mesh: Mesh = ALONE
    follows: bool = True

    def check_machine(self) -> None:
        pass

    def submit(self, folder: RunFolder, order: Order, restart: int) -> str:
        items = {item.id: item for item in folder.items()}
        for item_id in open_items(folder, order):
            done(folder, items[item_id], picture(items[item_id]))
        return order.job

    def poll(self, folder: RunFolder, job: str) -> State:
        return State(running=False, exit_code=0)

    def cancel(self, folder: RunFolder, job: str) -> None:
        pass

    def logs(self, folder: RunFolder, order: Order) -> list[Path]:
        return sorted(log_folder(folder, order.job).glob("*.log"))

    def script(self, folder: RunFolder, order: Order, items: int) -> str | None:
        return None

    def doctor(self) -> list[Check]:
        return []

    def queue(self, folder: RunFolder) -> None:
        return None

    def at_work(self, folder: RunFolder) -> dict[str, str]:
        return {}


def make_launcher(spec: JobSpec, document: Mapping[str, Any], items: Sequence[WorkItem] = ()) -> AtOnce:
    return AtOnce()
