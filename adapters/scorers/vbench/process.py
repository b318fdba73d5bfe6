"""The process of vbench's Python: started when needed, asked by JSON lines, ended when it is silent for too long."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BRIDGE = Path(__file__).with_name("bridge.py")
# Enough for the last line of a traceback.
LOG_TAIL_BYTES = 4000

# The reader ends with the process; a grandchild that holds the pipe open is not waited for longer.
READER_TIMEOUT_S = 5.0


class BridgeError(Exception):
    """The process could not be started, died, or was silent for too long; the message says what happened."""


@dataclass
class Bridge:
    """A process of vbench's Python.

    Attributes:
        python: the interpreter of its environment.
        log: where what vbench prints is kept.
        hello: what it says of itself first: see `bridge.py`.
    """

    python: Path
    log: Path
    hello: Mapping[str, Any] = field(default_factory=dict)
    _process: subprocess.Popen[str] | None = None
    _lines: queue.Queue[str | None] = field(default_factory=queue.Queue)
    _reader: threading.Thread | None = None

    def start(self, about: Mapping[str, Any], timeout_s: float) -> None:
        """Start the process and hear what it is.

        Args:
            about: its first line.
            timeout_s: how long importing vbench may take.

        Raises:
            BridgeError: it does not start, or has no vbench.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            try:
                self._process = subprocess.Popen(
                    [str(self.python), "-u", str(BRIDGE)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    encoding="utf-8",
                    start_new_session=True,
                )
            except OSError as error:
                raise BridgeError(f"{self.python} cannot be run: {error.strerror}") from error
        self._lines = queue.Queue()
        self._reader = threading.Thread(target=_pump, args=(self._process.stdout, self._lines), daemon=True)
        self._reader.start()
        self._send(about)
        answer = self._next(timeout_s, "starting")
        if answer.get("event") != "hello":
            raise BridgeError(f"{self.python} has no vbench that works: {answer.get('kind')}: {answer.get('message')}")
        self.hello = answer

    def ask(self, request: Mapping[str, Any], timeout_s: float) -> Iterator[Mapping[str, Any]]:
        """Send a request, and give each event of its answer; the last one is a result or an error.

        Raises:
            BridgeError: the process died, or was silent for `timeout_s` seconds and has been ended.
        """
        self._send(request)
        while True:
            event = self._next(timeout_s, "answering")
            yield event
            if event.get("event") in {"result", "error"}:
                return

    @property
    def alive(self) -> bool:
        """True when there is a process to ask."""
        return self._process is not None and self._process.poll() is None

    def close(self) -> None:
        """End the process and whatever it started."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if self._reader is not None:
            self._reader.join(READER_TIMEOUT_S)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _send(self, data: Mapping[str, Any]) -> None:
        stdin = self._process.stdin if self._process else None
        if stdin is None:
            raise BridgeError("vbench's process is not running")
        # A process that has died is noticed, with its reason, when its answer is waited for.
        with contextlib.suppress(OSError):
            stdin.write(json.dumps(data) + "\n")
            stdin.flush()

    def _next(self, timeout_s: float, doing: str) -> Mapping[str, Any]:
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            self.close()
            raise BridgeError(f"said nothing for {timeout_s:g} s while {doing} and was ended; see {self.log}") from None
        if line is None:
            raise BridgeError(f"{self._death()}; see {self.log}")
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            self.close()
            raise BridgeError(f"answered with something that is not JSON: {line[:80]!r}")
        return event

    def _death(self) -> str:
        code = self._process.wait() if self._process else 0
        how = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        last = _last_line(self.log)
        self.close()
        return f"{how}, last words {last!r}" if last else how


def _pump(stream: Any, lines: queue.Queue[str | None]) -> None:
    """Carry lines from a stream to a queue, and None at its end."""
    try:
        for line in stream:
            lines.put(line)
    except (OSError, ValueError):
        pass
    lines.put(None)


def _last_line(log: Path) -> str:
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
        lines: Sequence[str] = file.read().decode(errors="replace").split("\n")
        return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")
    return ""
