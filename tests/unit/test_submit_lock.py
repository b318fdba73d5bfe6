"""One submission of a job at a time, and the next one says whom it waits for."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import filelock
import pytest

from genrun.runner.errors import StoreError
from genrun.runner.store.runs import names
from genrun.runner.submit import lock
from tests.fakes.items import make_folder

HOLD = """
import sys, time
from pathlib import Path
from genrun.runner.submit import lock
with lock.of_job(Path(sys.argv[1]), print):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE_S", 0.05)
    monkeypatch.setattr(lock, "POLL_S", 0.01)


def holder(job_folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(job_folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_the_second_waits_says_for_whom_and_goes_on_when_the_first_is_killed(tmp_path: Path) -> None:
    first = holder(tmp_path / "fake")
    said: list[str] = []
    got = threading.Event()

    def second() -> None:
        with lock.of_job(tmp_path / "fake", said.append):
            got.set()

    thread = threading.Thread(target=second)
    thread.start()
    assert not got.wait(0.3)
    assert said == [f"Waiting for another submit of this job 'fake' (process {first.pid} on {os.uname().nodename})."]
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert got.wait(10)
    thread.join()
    first.communicate()


def test_a_lock_file_is_no_job_and_no_run(tmp_path: Path) -> None:
    with lock.of_job(tmp_path / "fake", print):
        pass
    assert names(tmp_path) == []
    folder = make_folder(tmp_path / "fake" / "2026-01-01T00-00-00-aaaa")
    with lock.of_job(tmp_path / "fake", print), lock.of_run(folder, print):
        assert names(tmp_path) == ["fake"]


def test_a_new_job_of_which_no_run_could_be_made_leaves_nothing_and_keeps_nobody_out(tmp_path: Path) -> None:
    job_folder, got = tmp_path / "runs" / "fake", threading.Event()

    def second() -> None:
        with lock.of_job(job_folder, lambda text: None):
            (job_folder / "run").mkdir()
            got.set()

    thread = threading.Thread(target=second)
    with pytest.raises(StoreError, match="full"), lock.of_job(job_folder, print):
        thread.start()
        assert not got.wait(0.3)
        raise StoreError("the disk is full")
    assert got.wait(10)
    thread.join()
    assert sorted(path.name for path in job_folder.iterdir()) == [lock.FILE, "run"]
    with pytest.raises(StoreError, match="full"), lock.of_job(tmp_path / "other", print):
        raise StoreError("the disk is full")
    assert not (tmp_path / "other").exists()


def test_of_many_at_once_one_at_a_time_is_in(tmp_path: Path) -> None:
    inside, most = [0], [0]

    def enter() -> None:
        with lock.of_job(tmp_path, lambda text: None):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.002)
            inside[0] -= 1

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_and_a_file_does_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def acquire(self: Any, *args: Any, **kwargs: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(filelock.FileLock, "_acquire", acquire)
    said: list[str] = []
    with lock.of_job(tmp_path, said.append):
        assert (tmp_path / lock.SOFT).is_file()
    assert not (tmp_path / lock.SOFT).exists()
    assert len(said) == 1 and said[0].startswith(f"{tmp_path}: this file system has no locks.")
    # One of a process of this machine that was killed keeps nobody out.
    process = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    (tmp_path / lock.SOFT).write_text(f"{int(process.stdout)}\n{os.uname().nodename}\n")
    with lock.of_job(tmp_path, said.append):
        pass


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"), lock.of_job(tmp_path / "file" / "fake", print):
        pass
