"""Shows a report over HTTP to this machine alone: only what the page links to, with ranges, so that videos seek.

The addresses are those of `rooms`. A request has to name this machine as its host, so that no page on the web can reach
the run by a name that it has pointed here (DNS rebinding). Any port will do, since tunnels change it.
"""

from __future__ import annotations

import errno
import os
import re
import socketserver
import sys
from contextlib import closing
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import quote

from genrun.runner.errors import UsageError
from genrun.runner.report.serving.ranges import Span, UnsatisfiableError, Version, is_known, wanted_span
from genrun.runner.report.serving.rooms import content_type, find, opened

LOOPBACK = "127.0.0.1"
IDLE_S = 60.0

_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", re.IGNORECASE)
_ALWAYS = {
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "frame-ancestors 'none'",
}


class ReportServer(ThreadingHTTPServer):
    """Serves the report of a run on the loopback interface. `serve_forever` answers until `shutdown`."""

    daemon_threads = True

    def __init__(self, run: Path, port: int = 0) -> None:
        """Listen.

        Args:
            run: the run folder.
            port: 0 takes any that is free.

        Raises:
            UsageError: the port is taken, or not this user's to take.
        """
        self.root = run.resolve().parent
        self.home = f"/{quote(run.resolve().name)}/report/index.html"
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except OSError as error:
            why = {errno.EADDRINUSE: "is in use", errno.EACCES: "is not open to this user"}.get(error.errno or 0)
            message = f"--port {port}: this port {why or f'cannot be listened on: {error.strerror}'}."
            raise UsageError(message, remedy="Choose another, or leave --port out: any free one is taken.") from error

    def server_bind(self) -> None:
        """Bind without asking the network for this machine's name, as http.server would."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = LOOPBACK, self.server_address[1]

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{LOOPBACK}:{self.server_port}{self.home}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of browsers that hang up."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    server_version = "genrun"
    sys_version = ""
    timeout = IDLE_S

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    @property
    def _serving(self) -> ReportServer:
        return cast(ReportServer, self.server)

    def _refuse_method(self) -> None:
        self.close_connection = True
        self.send_response(HTTPStatus.METHOD_NOT_ALLOWED)
        self._end({"Allow": "GET, HEAD", "Content-Length": "0", "Connection": "close"})

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = _refuse_method  # noqa: N815

    def _answer(self, *, with_body: bool) -> None:
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # a body is not read, and must not be taken for the next request
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1:
            self.send_error(HTTPStatus.BAD_REQUEST, "One Host header is needed")
        elif not _HOST.fullmatch(hosts[0].strip()):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST, "Not the name of this machine")
        elif not self.path.startswith("/"):
            self.send_error(HTTPStatus.BAD_REQUEST, "A path is needed")
        elif (path := re.split("[?#]", self.path)[0]) in ("/", self._serving.home.removesuffix("index.html")):
            self.send_response(HTTPStatus.FOUND)
            self._end({"Location": self._serving.home, "Content-Length": "0"})
        elif path == "/favicon.ico":  # which browsers ask for, and would report as missing
            self.send_response(HTTPStatus.NO_CONTENT)
            self._end({})
        else:
            self._answer_file(path, with_body)

    def _answer_file(self, path: str, with_body: bool) -> None:
        found = find(self._serving.root, path)
        file = opened(found) if found else None
        if found is None or file is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with closing(file):
            self._send(file, content_type(found), with_body)

    def _send(self, file: BinaryIO, kind: str, with_body: bool) -> None:
        version = Version.of(os.fstat(file.fileno()))
        about = {"ETag": version.etag, "Last-Modified": version.last_modified, "Accept-Ranges": "bytes"}
        if is_known(self.headers, version):
            self.send_response(HTTPStatus.NOT_MODIFIED)
            self._end(about)
            return
        try:
            span = wanted_span(self.headers, version) if with_body else None
        except UnsatisfiableError:
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self._end({"Content-Range": f"bytes */{version.size_bytes}", "Content-Length": "0"})
            return
        self.send_response(HTTPStatus.PARTIAL_CONTENT if span else HTTPStatus.OK)
        if span:
            about["Content-Range"] = span.content_range(version.size_bytes)
        part = span or Span(0, version.size_bytes)
        self._end({**about, "Content-Type": kind, "Content-Length": str(part.count)})
        if with_body and part.count and self.connection.sendfile(file, part.first, part.count) < part.count:
            self.close_connection = True  # the file was cut while it was sent

    def _end(self, headers: dict[str, str]) -> None:
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def end_headers(self) -> None:
        for name, value in _ALWAYS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Write no line for every request."""
