"""Serve a report over HTTP to this machine alone: only what the page links to, with ranges, so that videos seek.

Addresses are paths beside the run's folder: /RUN/report/index.html, /RUN/media/..., /RUN/logs/...; nothing else is shown.
RUN may be another run of the job, since a report leads to those of other nights.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self
from urllib.parse import quote, unquote

from genrun.runner.errors import UsageError

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Message, Receive, Scope, Send

LOOPBACK = "127.0.0.1"
IDLE_S = 60
"""Seconds for which a browser may keep an idle connection open."""

LEAVE_S = 1
"""Seconds that Ctrl-C waits for open responses: a browser keeps that of a video open for as long as it shows it."""

FOLDERS = ("report", "media", "inputs", "logs")
PLAN = "plan.jsonl"
LIVE = "live"
"""Address, beside the page, of how far the run is, and of the folder of previews of items in work."""

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".pdf": "application/pdf",
}
GONE = "The page was removed. With --live it is written again in a moment; else by: genrun report."
REFRESH_S = "2"
"""Seconds after which a browser asks for the page again."""

TEXT = "text/plain; charset=utf-8"
"""Type of logs and of all that is unknown: a browser shows it, and runs nothing."""

HEADERS = {
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "frame-ancestors 'none'",
}

# A request has to name this machine as its host, so that no page on the web can reach the run by a name that it has pointed
# here (DNS rebinding). Any port will do, since tunnels change it.
_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", re.IGNORECASE)
_RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.ASCII | re.IGNORECASE)


class Live(Protocol):
    """Answers to what the page of a live report asks for."""

    def state(self) -> Mapping[str, object]:
        """Return how far the run is, as JSON holds it."""
        ...

    def preview(self, item_id: str, /) -> bytes | None:
        """Return the JPEG of an item in work, or None."""
        ...


class ReportServer:
    """The report of a run on the loopback interface. `serve_forever` answers until `shutdown` or Ctrl-C."""

    def __init__(self, run: Path, port: int = 0, live: Live | None = None) -> None:
        """Listen on a port.

        Args:
            run: the run folder.
            port: 0 takes any that is free.
            live: what the page of a live report asks for.

        Raises:
            UsageError: the port is taken, or not this user's to take, or the packages that serve are not installed.
        """
        root = run.resolve().parent
        self._home = f"/{quote(run.resolve().name)}/report/index.html"
        try:
            import uvicorn

            application = _application(root, self._home, live)
        except ModuleNotFoundError as error:
            raise UsageError(
                f"--serve needs starlette and uvicorn, and {error.name} is not installed.",
                remedy='Install them: pip install "genrun[serve]".',
            ) from error
        self._socket = _listen(port)
        self.server_address: tuple[str, int] = self._socket.getsockname()
        self._server = uvicorn.Server(
            uvicorn.Config(
                application,
                http="h11",
                ws="none",
                lifespan="off",
                # Of browsers that hang up and of malformed requests nothing is said.
                log_config=None,
                log_level="critical",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=IDLE_S,
                timeout_graceful_shutdown=LEAVE_S,
            )
        )

    @property
    def server_port(self) -> int:
        """The port that it listens on."""
        return self.server_address[1]

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{LOOPBACK}:{self.server_port}{self._home}"

    def serve_forever(self) -> None:
        """Answer until `shutdown` is called; raises KeyboardInterrupt on Ctrl-C."""
        self._server.run(sockets=[self._socket])

    def shutdown(self) -> None:
        """End `serve_forever`, from another thread."""
        self._server.should_exit = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    # A port that was served on a moment ago is free.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
        listener.listen()
    except OSError as error:
        listener.close()
        why = {errno.EADDRINUSE: "is in use", errno.EACCES: "is not open to this user"}.get(error.errno or 0)
        message = f"--port {port}: this port {why or f'cannot be listened on: {error.strerror}'}."
        raise UsageError(message, remedy="Choose another, or leave --port out: any free one is taken.") from error
    return listener


def _application(root: Path, home: str, live: Live | None) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """Return the ASGI application.

    Args:
        root: the folder with the runs of a job, without symbolic links.
        home: the address of the page.
        live: of `ReportServer`.
    """
    from starlette.datastructures import MutableHeaders

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await _respond(scope, root, home, live)(scope, receive, send_with_headers)

    return application


def _respond(scope: Scope, root: Path, home: str, live: Live | None) -> Response:
    from starlette.responses import PlainTextResponse, RedirectResponse, Response

    path = scope["raw_path"].decode("ascii")
    if scope["method"] not in ("GET", "HEAD"):
        return PlainTextResponse("", 405, headers={"Allow": "GET, HEAD", "Connection": "close"})
    if refusal := _refusal(scope, path):
        return PlainTextResponse(refusal[1], refusal[0], headers={"Connection": "close"})
    if path in ("/", home.removesuffix("index.html")):
        return RedirectResponse(home, 302)
    if path == "/favicon.ico":  # which browsers ask for, and would report as missing
        return Response(status_code=204)
    told = None if live is None else _told(live, path.removeprefix(home.removesuffix("index.html")))
    gone = PlainTextResponse(GONE, 404, headers={"Refresh": REFRESH_S}) if path == home else None
    return told or _file(scope, find(root, path)) or gone or PlainTextResponse("Not found.", 404)


def _told(live: Live, name: str) -> Response | None:
    """Return what a live page asks for by an address beside it; None where that is none of its own."""
    from starlette.responses import JSONResponse, Response

    if name == LIVE:
        return JSONResponse(live.state())
    drawn = live.preview(name.removeprefix(f"{LIVE}/").removesuffix(".jpg")) if name.startswith(f"{LIVE}/") else None
    return None if drawn is None else Response(drawn, media_type=TYPES[".jpg"])


def _refusal(scope: Scope, path: str) -> tuple[int, str] | None:
    """Return why a request is not answered: (status, reason), or None."""
    from starlette.datastructures import Headers

    hosts = Headers(scope=scope).getlist("host")
    if len(hosts) != 1:
        return 400, "One Host header is needed."
    if not _HOST.fullmatch(hosts[0].strip()):
        return 421, "Not the name of this machine."
    return None if path.startswith("/") else (400, "A path is needed.")


def _file(scope: Scope, path: Path | None) -> Response | None:
    """Return a file, whole or in part, or that the browser has it already; None for anything but a regular file."""
    from starlette.datastructures import Headers
    from starlette.responses import FileResponse
    from starlette.staticfiles import NotModifiedResponse, StaticFiles

    try:
        status = None if path is None else path.stat()
    except OSError:
        return None
    # A pipe would be waited for.
    if path is None or status is None or not stat.S_ISREG(status.st_mode) or not os.access(path, os.R_OK):
        return None
    response = FileResponse(path, media_type=TYPES.get(path.suffix.lower(), TEXT), stat_result=status)
    headers = Headers(scope=scope)
    if StaticFiles().is_not_modified(response.headers, headers):
        return NotModifiedResponse(response.headers)
    if scope["method"] == "HEAD" or not _is_understood(headers.get("range")):
        scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"range"]
    return response


def _is_understood(wanted: str | None) -> bool:
    """Return whether a Range asks for one part; RFC 9110 has any other answered by the whole file."""
    match = _RANGE.fullmatch(wanted or "")
    if match is None or not any(match.groups()):
        return False
    first, last = match.groups()
    return not (first and last) or int(first) <= int(last)


def find(root: Path, address: str) -> Path | None:
    """Return the file that an address names, or None when it is not one to show.

    Args:
        root: the folder with the runs of a job, without symbolic links.
        address: the path of a URL, beginning with "/", quoted.
    """
    try:
        parts = [unquote(part, errors="strict") for part in address.split("/")[1:]]
    except UnicodeDecodeError:
        return None
    if len(parts) < 3 or parts[1] not in FOLDERS or not all(map(_is_plain, parts)):
        return None
    try:
        found = root.joinpath(*parts).resolve(strict=True)
        is_run = (root / parts[0] / PLAN).is_file()
    except (OSError, ValueError, RuntimeError):
        return None
    return found if is_run and found.is_relative_to(root / parts[0] / parts[1]) else None


def _is_plain(part: str) -> bool:
    """Return whether a part of an address names a file or folder in its folder that is not hidden."""
    return bool(part) and not part.startswith(".") and "/" not in part and "\0" not in part
