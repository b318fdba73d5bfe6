"""Serving a report: over real sockets, only to this machine, only what the page links to, in parts."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from genrun.runner.cli import main
from genrun.runner.errors import UsageError
from genrun.runner.report import build
from genrun.runner.report.serve import Live, ReportServer
from tests.sample_run import CAPTIONS, make_run

pytestmark = pytest.mark.e2e
CLIP = "/run%201/media/3f/3f9c.mp4"
CLIP_FILE = "media/3f/3f9c.mp4"
PAGE = "/run%201/report/index.html"
BYTES = random.Random(3).randbytes(300_000)
LOG = "\u202e <script>alert(1)</script>\n"
SECONDS = 1_700_000_000
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
"""When the clip was written: `SECONDS` as HTTP says it."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with something in every folder that is shown, and a secret beside it."""
    return furnished(tmp_path)


def furnished(folder: Path) -> Path:
    run = folder / "run 1"
    for name, data in {
        "report/index.html": b"<title>it</title>",
        "report/assets/speed-light.svg": b"<svg/>",
        CLIP_FILE: BYTES,
        "media/3f/empty.mp4": b"",
        "logs/a #1?.log": LOG.encode(),
        "plan.jsonl": b"",
        "job.yaml": b"secret: 1",
        "media/.hidden/x.mp4": b"secret",
        "media/3f/.3f9c.mp4.0123abcd.tmp.mp4": b"secret",
        "../secret.mp4": b"secret",
        "../run 2/plan.jsonl": b"",
        "../run 2/report/index.html": b"<title>another night</title>",
        "../no run/report/index.html": b"secret",
    }.items():
        path = run / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    os.utime(run / CLIP_FILE, (SECONDS, SECONDS))
    return run


@contextlib.contextmanager
def serving(run: Path, live: Live | None = None) -> Iterator[ReportServer]:
    with ReportServer(run, live=live) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReportServer]:
    """A server of a run that no test changes."""
    with serving(furnished(tmp_path_factory.mktemp("served"))) as server:
        yield server


@pytest.fixture
def own_server(run: Path) -> Iterator[ReportServer]:
    """A server of the test's own run."""
    with serving(run) as server:
        yield server


class Answer:
    """A whole response."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = response.status, response.headers, response.read()


def ask(server: ReportServer, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    try:
        connection.request(method, path, headers=dict(headers or {}))
        return Answer(connection.getresponse())
    finally:
        connection.close()


def raw(server: ReportServer, request: bytes) -> bytes:
    """Send bytes, and return all that comes until the server hangs up."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as link:
        link.sendall(request)
        return b"".join(iter(lambda: link.recv(1 << 16), b""))


def test_the_page_its_pictures_media_and_logs_are_shown(server: ReportServer) -> None:
    kinds = {
        PAGE: "text/html; charset=utf-8",
        "/run%201/report/assets/speed-light.svg": "image/svg+xml",
        CLIP: "video/mp4",
        "/run%201/logs/a%20%231%3F.log": "text/plain; charset=utf-8",
    }
    for path, kind in kinds.items():
        answer = ask(server, path)
        assert (answer.status, answer.headers["Content-Type"]) == (200, kind)
        assert int(answer.headers["Content-Length"]) == len(answer.body) > 0
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert ask(server, CLIP).body == BYTES
    assert ask(server, f"{CLIP}?t=1").body == BYTES


def test_the_reports_of_other_runs_of_the_job_are_shown(own_server: ReportServer, run: Path) -> None:
    (run.parent / "latest").symlink_to(run)
    assert ask(own_server, "/run%202/report/index.html").body == b"<title>another night</title>"
    assert ask(own_server, "/latest/report/index.html").status == 404


@pytest.mark.parametrize("path", ["/", "/run%201/report/", "/?x"])
def test_the_root_leads_to_the_page(path: str, server: ReportServer) -> None:
    answer = ask(server, path)
    assert (answer.status, answer.headers["Location"]) == (302, PAGE)


@pytest.mark.parametrize(
    "path",
    [
        "/run%201/job.yaml",
        "/run%201",
        "/run%201/",
        "/run%201/media",
        "/run%201/media/",
        "/run%201/media/3f",
        "/run%201/media/3f/",
        "/run%201/report/assets/",
        "/run%201/media/none.mp4",
        "/run%201/media/.hidden/x.mp4",
        "/run%201/media/3f/.3f9c.mp4.0123abcd.tmp.mp4",
        "/run%201/media/../job.yaml",
        "/run%201/media/../../secret.mp4",
        "/secret.mp4",
        "/no%20run/report/index.html",
        "/../no%20run/report/index.html",
        "/run%201/media/../../no%20run/report/index.html",
        "/none/report/index.html",
        "/run%201/report/../job.yaml",
        "/run%201/report/%2e%2e/job.yaml",
        "/run%201/report/..%2fjob.yaml",
        "/run%201/report/..%2f..%2fsecret.mp4",
        "/run%201/report/..\\..\\secret.mp4",
        "//etc/passwd",
        "/run%201/media//etc/passwd",
        "/run%201/media/%2fetc/passwd",
        "/run%201/media/x%00.mp4",
        "/run%201/media/%ff.mp4",
        "/run%201/media/" + "x" * 5000,
        "/run%201/media/" + "x/" * 5000,
        "/run%201/report",
    ],
)
def test_nothing_else_is_shown(path: str, server: ReportServer) -> None:
    answer = ask(server, path)
    assert answer.status == 404
    assert b"secret" not in answer.body


def test_links_out_of_a_folder_lead_nowhere(own_server: ReportServer, run: Path) -> None:
    (run / "media" / "out.mp4").symlink_to(run.parent / "secret.mp4")
    (run / "media" / "job.mp4").symlink_to(run / "job.yaml")
    (run / "media" / "up").symlink_to(run.parent)
    (run / "media" / "loop").symlink_to(run / "media" / "loop")
    (run / "media" / "in.mp4").symlink_to(run / CLIP_FILE)
    for path in ("out.mp4", "job.mp4", "up/secret.mp4", "loop"):
        assert ask(own_server, f"/run%201/media/{path}").status == 404
    assert ask(own_server, "/run%201/media/in.mp4").body == BYTES


def test_a_folder_that_is_a_link_to_elsewhere_is_not_shown(own_server: ReportServer, run: Path) -> None:
    (run / "logs").rename(run / "logs-before")
    (run / "logs").symlink_to(run.parent)
    assert ask(own_server, "/run%201/logs/secret.mp4").status == 404


def test_a_pipe_is_not_waited_for(own_server: ReportServer, run: Path) -> None:
    os.mkfifo(run / "media" / "pipe.mp4")
    assert ask(own_server, "/run%201/media/pipe.mp4").status == 404


@pytest.mark.parametrize(
    ("wanted", "part"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=100-199", slice(100, 200)),
        ("bytes=299990-", slice(299_990, None)),
        ("bytes=-7", slice(-7, None)),
        ("bytes=-999999", slice(0, None)),
        ("bytes=10-999999", slice(10, None)),
    ],
)
def test_a_part_is_sent_as_a_part(wanted: str, part: slice, server: ReportServer) -> None:
    answer = ask(server, CLIP, {"Range": wanted})
    first, last, _ = part.indices(len(BYTES))
    assert answer.status == 206
    assert answer.body == BYTES[part]
    assert answer.headers["Content-Range"] == f"bytes {first}-{last - 1}/300000"
    assert answer.headers["Content-Length"] == str(last - first)


@pytest.mark.parametrize("wanted", ["bytes=300000-", "bytes=300000-300001", "bytes=-0"])
def test_a_part_behind_the_end_is_refused_with_the_size(wanted: str, server: ReportServer) -> None:
    answer = ask(server, CLIP, {"Range": wanted})
    assert (answer.status, answer.headers["Content-Range"], answer.body) == (416, "bytes */300000", b"")


@pytest.mark.parametrize(
    "wanted", ["bytes=", "bytes=-", "bytes=9-3", "bytes=0-1,5-6", "lines=0-1", "bytes=a-b", f"bytes={'9' * 5000}-"]
)
def test_a_range_that_is_not_understood_asks_for_all(wanted: str, server: ReportServer) -> None:
    answer = ask(server, CLIP, {"Range": wanted})
    assert (answer.status, len(answer.body)) == (200, 300_000)


def test_an_empty_file_has_no_part(server: ReportServer) -> None:
    assert ask(server, "/run%201/media/3f/empty.mp4").body == b""
    assert ask(server, "/run%201/media/3f/empty.mp4", {"Range": "bytes=0-"}).status == 416


def test_what_is_known_is_not_sent_again(server: ReportServer) -> None:
    headers = ask(server, CLIP).headers
    for condition in ({"If-None-Match": headers["ETag"]}, {"If-Modified-Since": headers["Last-Modified"]}):
        answer = ask(server, CLIP, condition)
        assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", headers["ETag"])


def test_a_part_of_a_file_that_has_changed_since_is_all_of_the_new_one(own_server: ReportServer, run: Path) -> None:
    tag = ask(own_server, CLIP).headers["ETag"]
    part = {"Range": "bytes=5-9", "If-Range": tag}
    assert ask(own_server, CLIP, part).status == 206
    new = run / "media" / "new"
    new.write_bytes(b"other bytes of another clip")
    new.replace(run / CLIP_FILE)
    answer = ask(own_server, CLIP, part)
    assert (answer.status, answer.body) == (200, b"other bytes of another clip")
    assert ask(own_server, CLIP, {"If-None-Match": tag}).status == 200


def test_head_is_get_without_the_body(server: ReportServer) -> None:
    get, head = ask(server, CLIP), ask(server, CLIP, {"Range": "bytes=0-1"}, method="HEAD")
    assert (head.status, head.body) == (200, b"")
    without_date = [{k: v for k, v in answer.headers.items() if k != "Date"} for answer in (get, head)]
    assert without_date[0] == without_date[1]
    assert ask(server, "/run%201/media/none.mp4", method="HEAD").status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"])
def test_other_methods_are_refused(method: str, own_server: ReportServer, run: Path) -> None:
    answer = ask(own_server, CLIP, method=method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert (run / CLIP_FILE).read_bytes() == BYTES


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost@evil.example", "", "10.0.0.1"]
)
def test_a_foreign_host_name_is_refused(host: str, server: ReportServer) -> None:
    answer = ask(server, CLIP, {"Host": host})
    assert answer.status == 421
    assert BYTES[:100] not in answer.body


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9000", "127.0.0.1:8000", "[::1]:8000"])
def test_this_machine_has_several_names_and_tunnels_other_ports(host: str, server: ReportServer) -> None:
    assert ask(server, CLIP, {"Host": host}).status == 200


@pytest.mark.parametrize(
    "head",
    [
        f"GET {PAGE} HTTP/1.1\r\n",
        f"GET {PAGE} HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n",
        f"GET http://evil.example{PAGE} HTTP/1.1\r\nHost: localhost\r\n",
        "GET run%201/report/index.html HTTP/1.1\r\nHost: localhost\r\n",
        "GET\r\n",
    ],
)
def test_malformed_requests_are_refused(head: str, server: ReportServer) -> None:
    answer = raw(server, f"{head}\r\n".encode())
    assert b" 400 " in answer.partition(b"\r\n")[0] or b"Error code: 400" in answer
    assert b"<title>it" not in answer


def test_a_body_is_not_taken_for_a_request(server: ReportServer) -> None:
    inner = f"GET {PAGE} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for method in ("GET", "POST"):
        outer = (
            f"{method} {CLIP} HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-0\r\nConnection: close\r\n"
            f"Content-Length: {len(inner)}\r\n\r\n"
        )
        assert raw(server, (outer + inner).encode()).count(b"HTTP/1.1 ") == 1


def test_one_connection_carries_many_requests(server: ReportServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.connect()
    link = connection.sock
    for first in (0, 100_000, 200_000):
        connection.request("GET", CLIP, headers={"Range": f"bytes={first}-{first + 9}"})
        assert connection.getresponse().read() == BYTES[first : first + 10]
        assert connection.sock is link
    connection.close()


def test_many_ask_at_once_and_some_hang_up(server: ReportServer, capfd: pytest.CaptureFixture[str]) -> None:
    held = [socket.create_connection(("127.0.0.1", server.server_port), timeout=20) for _ in range(8)]
    for link in held[:4]:
        link.sendall(f"GET {CLIP} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert ask(server, CLIP).body == BYTES
    for link in held:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # hang up with a reset
        link.close()
    assert ask(server, CLIP).body == BYTES
    assert capfd.readouterr().err == ""


def test_it_listens_on_loopback_only(server: ReportServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.server_port}{PAGE}"


def test_a_busy_port_is_said_with_a_remedy(own_server: ReportServer, run: Path) -> None:
    with pytest.raises(
        UsageError, match=rf"--port {own_server.server_port}: this port is in use\.\n.*leave --port out"
    ):
        ReportServer(run, own_server.server_port)


def test_a_busy_port_ends_the_command_before_it_writes(server: ReportServer, tmp_path: Path) -> None:
    made = make_run(tmp_path / "demo" / "run", files=False, latents=False)
    result = CliRunner().invoke(main, ["report", str(made.path), "--serve", "--port", str(server.server_port)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "is in use" in result.stderr
    assert not made.report_dir.exists()


def test_a_port_alone_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["report", str(tmp_path), "--port", "8000"])
    assert result.exit_code == 2
    assert "--port belongs to --serve" in result.stderr


def test_the_command_serves_until_ctrl_c_and_ends_cleanly(tmp_path: Path) -> None:
    made = make_run(tmp_path / "demo" / "run")
    (made.path / "media" / "large.mp4").write_bytes(bytes(30_000_000))
    command = [sys.executable, "-c", "from genrun.runner.cli import main; main()", "report", str(made.path), "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline().strip() for _ in range(2)]
            assert lines[0] == f"{made.path}/report/index.html"
            port = int(lines[1].removeprefix("http://127.0.0.1:").removesuffix("/run/report/index.html"))
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("GET", "/run/report/index.html")
            assert b"<title>demo" in connection.getresponse().read()
            stalled = socket.create_connection(("127.0.0.1", port), timeout=20)
            stalled.sendall(b"GET /run/media/large.mp4 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert stalled.recv(12) == b"HTTP/1.1 200"
            # One connection stays open, another waits for its reader: neither holds up the end.
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
            connection.close()
            stalled.close()
        finally:
            process.kill()
    assert (process.returncode, out) == (0, "")
    assert err == "Only this machine can open it. Ctrl-C ends it.\nStopped.\n"


def test_if_range_takes_a_strong_tag_or_the_very_date(server: ReportServer) -> None:
    tag = ask(server, CLIP).headers["ETag"]
    for condition, status in {
        tag: 206,
        DATE: 206,
        f"W/{tag}": 200,
        '"other"': 200,
        "Tue, 14 Nov 2023 22:13:21 GMT": 200,
        "no date": 200,
    }.items():
        answer = ask(server, CLIP, {"Range": "bytes=0-9", "If-Range": condition})
        assert (answer.status, answer.body) == (status, BYTES[: 10 if status == 206 else None])


def test_conditions_on_tags_come_before_those_on_dates(server: ReportServer) -> None:
    tag = ask(server, CLIP).headers["ETag"]

    def is_known(**headers: str) -> bool:
        return ask(server, CLIP, {name.replace("_", "-"): value for name, value in headers.items()}).status == 304

    assert is_known(If_None_Match=f'"x", W/{tag}')
    assert is_known(If_None_Match="*")
    assert not is_known(If_None_Match='"x"', If_Modified_Since=DATE)
    assert is_known(If_Modified_Since=DATE)
    assert not is_known(If_Modified_Since="Tue, 14 Nov 2023 22:13:19 GMT")
    assert not is_known(If_Modified_Since="yesterday")
    assert not is_known()


def test_every_satisfiable_range_is_the_very_part_of_the_file(server: ReportServer) -> None:
    draw = random.Random(5)
    size = len(BYTES)
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    for _ in range(60):
        first, last = (draw.choice(["", str(draw.randrange(size + size // 3))]) for _ in range(2))
        connection.request("GET", CLIP, headers={"Range": f"bytes={first}-{last}"})
        answer = Answer(connection.getresponse())
        if not (first or last) or (first and last and int(first) > int(last)):
            assert (answer.status, answer.body) == (200, BYTES)
        elif first and int(first) >= size:
            assert (answer.status, answer.body) == (416, b"")
        elif first:
            assert (answer.status, answer.body) == (206, BYTES[int(first) : int(last) + 1 if last else None])
        elif last == "0":
            assert (answer.status, answer.body) == (416, b"")
        else:
            assert (answer.status, answer.body) == (206, BYTES[-int(last) :])
    connection.close()


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_without_the_packages_that_serve_nothing_is_written(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_run(tmp_path / "demo" / "run", files=False, latents=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == package] + [package]:
        monkeypatch.setitem(sys.modules, name, None)
    result = CliRunner().invoke(main, ["report", str(made.path), "--serve"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"--serve needs starlette and uvicorn, and {package}" in result.stderr
    assert 'pip install "genrun[serve]"' in result.stderr
    assert not made.report_dir.exists()


def test_a_page_that_was_removed_says_so_and_is_written_again_while_it_is_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "LOOK_S", 0.01)
    run = make_run(tmp_path / "demo" / "run", prompts=CAPTIONS[:1], image=True, latents=False)
    page = run.report_dir / "index.html"
    with build.LiveReport(run) as live, serving(run.path, live) as server:
        page.unlink()
        answers = [ask(server, "/run/report/index.html")]
        while answers[-1].status == 404 and len(answers) < 1000:
            time.sleep(0.02)
            answers.append(ask(server, "/run/report/index.html"))
        assert answers[-1].status == 200
    page.unlink()
    with serving(run.path) as server:
        gone = ask(server, "/run/report/index.html")
        assert gone.status == 404 and b"else by: genrun report." in gone.body
        assert gone.headers["Refresh"] == "2"
