"""The metadata servers of AWS and GCP on loopback, on a clock that the test moves.

Each serves what its cloud documents, and can misbehave: `server.fault` names how the next requests are answered.

`python -m tests.support.metadata_server aws 30` serves on the real clock: it prints its URL, gives a notice of 30 s at the first
line of its standard input, and ends with it. GCP's notice names no time.
"""

import json
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import sleep
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from corgi.flow.metadata_server import Clock


class FakeClock:
    """Seconds that pass only by sleeping, or by a server that holds a request back."""

    def __init__(self, ends_at: float = 10_000.0) -> None:
        self.time = 0.0
        self.ends_at = ends_at

    def now(self) -> float:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += seconds

    def pass_until(self, time: float, changed: Callable[[], bool]) -> None:
        """Let time pass until then; on the real clock it ends early once `changed()`."""
        self.time = time

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)
        if self.time >= self.ends_at:
            raise ClockEndedError

    @property
    def clock(self) -> Clock:
        return Clock(self.now, self.sleep)


class RealClock(FakeClock):
    """The machine's own time."""

    @property
    def time(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return time.time()

    @time.setter
    def time(self, value: float) -> None:
        """Only a fake clock can be set."""

    def pass_until(self, time: float, changed: Callable[[], bool]) -> None:
        while self.time < time and not changed():
            sleep(0.05)


class ClockEndedError(Exception):
    """The fake clock has reached the end of the test."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that did not wait for its response."""


class LoopbackMetadata:
    """One cloud's server; a context manager. The machine goes `notice_s` after `notice_at`, never if that is None."""

    notice_s: float

    def __init__(self, clock: FakeClock, notice_at: float | None = None, is_spot: bool = True) -> None:
        self.clock, self.notice_at, self.is_spot = clock, notice_at, is_spot
        self.fault = ""
        self.requests: list[tuple[str, str]] = []
        self.faults = 0
        self._freed = threading.Event()
        self._http = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._freed.set()
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def has_notice(self) -> bool:
        return self.notice_at is not None and self.clock.time >= self.notice_at

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request, or misbehave as `fault` says."""
        self.requests.append((handler.command, handler.path))
        if not self.fault:
            self.answer(handler)
            return
        self.faults += 1
        FAULTS[self.fault](self, handler)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        raise NotImplementedError

    def hold(self) -> None:
        """Keep a request without a response until the server ends."""
        self._freed.wait(30)

    def drip(self, handler: BaseHTTPRequestHandler) -> None:
        """Send one byte of a header after another, each in time for a time-out per read."""
        while not self._freed.wait(0.02):
            handler.wfile.write(b"x")


def send(
    handler: BaseHTTPRequestHandler, status: int, body: str = "", headers: dict[str, str] | None = None
) -> None:
    """Send a whole response."""
    handler.send_response(status)
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body.encode())


def _redirect(_: LoopbackMetadata, handler: BaseHTTPRequestHandler) -> None:
    send(handler, 302, headers={"Location": "/elsewhere"})


FAULTS: dict[str, Callable[[LoopbackMetadata, BaseHTTPRequestHandler], None]] = {
    "hangs": lambda server, _: server.hold(),
    "drips": lambda server, handler: server.drip(handler),
    "500": lambda _, handler: send(handler, 500, "error"),
    "503": lambda _, handler: send(handler, 503),
    "403": lambda _, handler: send(handler, 403),
    "404": lambda _, handler: send(handler, 404),
    "redirects": _redirect,
    "closes": lambda _, handler: handler.connection.close(),
    "no HTTP": lambda _, handler: handler.connection.sendall(b"no HTTP\r\n\r\n"),
    "too long": lambda _, handler: send(handler, 200, "x" * 100_000),
    "wrong text": lambda _, handler: send(handler, 200, "<html>", {"Metadata-Flavor": "Google"}),
    "nested": lambda _, handler: send(handler, 200, "[" * 4000, {"Metadata-Flavor": "Google"}),
}


class AwsMetadata(LoopbackMetadata):
    """EC2, version 2: 401 without a valid token; the notice is 404 until it is there and names a time 120 s later."""

    notice_s = 120.0

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.tokens: dict[str, float] = {}
        """Token to the time until which it is valid."""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        if (handler.command, handler.path) == ("PUT", "/latest/api/token"):
            self._give_token(handler)
        elif self.tokens.get(handler.headers["X-aws-ec2-metadata-token"] or "", -1.0) <= self.clock.time:
            send(handler, 401)
        elif handler.path == "/latest/meta-data/instance-life-cycle":
            send(handler, 200, "spot" if self.is_spot else "on-demand")
        elif handler.path == "/latest/meta-data/spot/instance-action" and self.has_notice():
            assert self.notice_at is not None
            goes = datetime.fromtimestamp(self.notice_at + self.notice_s, UTC)
            send(handler, 200, json.dumps({"action": "terminate", "time": f"{goes:%Y-%m-%dT%H:%M:%SZ}"}))
        else:
            send(handler, 404)

    def _give_token(self, handler: BaseHTTPRequestHandler) -> None:
        lifetime = int(handler.headers["X-aws-ec2-metadata-token-ttl-seconds"])
        assert 1 <= lifetime <= 21600
        token = f"token-{len(self.tokens)}"
        self.tokens[token] = self.clock.time + lifetime
        send(handler, 200, token)


class GcpMetadata(LoopbackMetadata):
    """Compute Engine: 403 without its header; a request with wait_for_change is held until the value has another ETag."""

    notice_s = 30.0

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if handler.headers["Metadata-Flavor"] != "Google":
            send(handler, 403)
        elif parts.path == "/computeMetadata/v1/instance/scheduling/preemptible":
            self._send(handler, self.is_spot)
        elif parts.path == "/computeMetadata/v1/instance/preempted":
            self._wait(query)
            self._send(handler, self.has_notice())
        else:
            send(handler, 404, headers={"Metadata-Flavor": "Google"})

    def _wait(self, query: dict[str, str]) -> None:
        """Move the clock to the notice or the time-out; without an ETag the value now there counts as known."""
        if query.get("wait_for_change") != "true":
            return
        current = _etag(self.has_notice())
        if query.get("last_etag", current) != current:
            return
        latest = self.clock.time + float(query["timeout_sec"])
        change = self.notice_at if self.notice_at is not None and not self.has_notice() else latest
        self.clock.pass_until(min(latest, change), self.has_notice)

    def _send(self, handler: BaseHTTPRequestHandler, value: bool) -> None:
        send(handler, 200, str(value).upper(), {"Metadata-Flavor": "Google", "ETag": _etag(value)})


def _etag(value: bool) -> str:
    return f"{int(value)}f"


def _handler(server: LoopbackMetadata) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name that http.server asks for
            server.serve(self)

        do_PUT = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Write no access log."""

    return Handler


def main(cloud: str, notice_s: str) -> None:
    """Serve one cloud's metadata on the real clock."""
    with {"aws": AwsMetadata, "gcp": GcpMetadata}[cloud](RealClock()) as server:
        server.notice_s = float(notice_s)
        print(server.url, flush=True)
        sys.stdin.readline()
        server.notice_at = time.time()
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
