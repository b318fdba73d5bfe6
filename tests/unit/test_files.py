"""Reads that are bounded before they are made: devices, pipes, folders and files larger than anybody wants."""

from __future__ import annotations

import errno
import os
import socket
import time
from pathlib import Path

import pytest

from genrun.adapters.files import (
    TooLargeError,
    is_file,
    is_folder,
    is_there,
    parse_json,
    read_bounded,
    read_json,
    unusable,
)


def test_a_file_is_read_up_to_its_limit_and_no_further(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_bounded(path, 5) == b"12345"
    with pytest.raises(TooLargeError, match="5 bytes, more than 4") as caught:
        read_bounded(path, 4)
    assert caught.value.size == 5


def test_a_file_of_terabytes_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(2**42)
    started = time.monotonic()
    with pytest.raises(TooLargeError, match="4,398,046,511,104 bytes, more than 1,000"):
        read_bounded(path, 1000)
    assert time.monotonic() - started < 1


def test_a_file_that_does_not_tell_its_size_is_read_no_further_either() -> None:
    assert Path("/proc/self/maps").stat().st_size == 0
    with pytest.raises(TooLargeError, match="11 bytes, more than 10"):
        read_bounded(Path("/proc/self/maps"), 10)


def test_what_is_no_regular_file_is_told_as_what_it_is_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "socket"))
    for path, why in (
        (tmp_path / "pipe", "it is a pipe"),
        (tmp_path / "socket", "it is a socket"),
        (Path("/dev/zero"), "it is a device"),
        (tmp_path, "Is a directory"),
        (tmp_path / "nothing", "No such file"),
    ):
        with pytest.raises(OSError, match=why):
            read_bounded(path, 10)


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_a_name_that_no_file_can_have_is_an_error_of_the_system(name: str) -> None:
    with pytest.raises(OSError, match="no file can have that name") as caught:
        read_bounded(Path(name), 10)
    assert caught.value.errno == errno.EINVAL
    assert unusable(name) == "no file can have that name"
    assert not (is_file(Path(name)) or is_folder(Path(name)) or is_there(Path(name)))


def test_a_name_that_is_too_long_is_told_and_one_that_is_not_there_is_not(tmp_path: Path) -> None:
    assert unusable(tmp_path / ("x" * 5000)) == "File name too long"
    assert unusable(tmp_path / "nothing" / "here") == ""
    assert not is_there(tmp_path / ("x" * 5000))


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "", "9" * 5000, b"\xff"])
def test_what_is_no_json_is_a_value_error_however_deep(text: str | bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)
    (tmp_path / "x.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r"."):
        read_json(tmp_path / "x.json")
