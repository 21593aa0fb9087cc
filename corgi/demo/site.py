"""The demo's web site: real HTTP on one loopback port, in a separate process."""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import signal
import socket
from collections import Counter
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

from corgi.settings.errors import CorgiError, InputError

DEFAULT_PORT = 8037
ADDRESS = "127.0.0.1"
_START_TIMEOUT_S = 30.0
_BACKLOG = 1024
_FILE_NAME = re.compile(r"[0-9A-Za-z_-]+\.(jpg|png|webp)")
_CONTENT_TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
_PAGE = "<!DOCTYPE html><html><head><title>Moved</title></head><body>This picture is no longer here.</body></html>"


class Site:
    """Serves a folder of pictures, each under every kind of path in the URL list.

    `/pictures/` and `/copy/` answer with the file; `/busy/` with 503 at the first request and the file afterwards;
    `/gone/` with 404; `/cut/` with half the file; `/page/` with HTML; `/noai/` with the file and
    `X-Robots-Tag: noai`; `/_tally` with the count of answers by kind, as JSON. Any Host header is accepted.
    The site stops when the `with` block is left, and when the process that opened it ends, unless a child process
    keeps it open with `lifeline`.

    Raises InputError if the port cannot be used.
    """

    def __init__(self, folder: Path, port: int = DEFAULT_PORT, ip: str = ADDRESS) -> None:
        """Take the folder, and the port and address to listen on; port 0 is any free port. Nothing is opened yet."""
        self._folder = folder
        self._port = port
        self._ip = ip
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None

    @property
    def address(self) -> str:
        """The address on which the site is listening, as "127.0.0.1:port"."""
        return f"{self._ip}:{self._port}"

    @property
    def lifeline(self) -> int:
        """A file descriptor; the site runs while any process has a copy of it (`subprocess`'s pass_fds)."""
        if self._connection is None:
            raise CorgiError("the picture site is not running")
        return self._connection.fileno()

    def __enter__(self) -> Self:
        # Spawned, because a forked process would keep the far end of the lifeline open, and forking with threads is unsafe.
        context = multiprocessing.get_context("spawn")
        with _listen(self._ip, self._port) as listener:
            self._port = listener.getsockname()[1]
            self._connection, far_end = context.Pipe()
            arguments = (self._folder, listener, far_end)
            process = context.Process(target=_serve, args=arguments, name="picture-site", daemon=True)
            process.start()
            self._process = process
            far_end.close()
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the site's process and free the port; it may be called twice."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            self._process.terminate()
            self._process.join()
            self._process.close()
            self._process = None

    def _wait_until_ready(self) -> None:
        assert self._connection is not None
        try:
            if self._connection.poll(_START_TIMEOUT_S) and self._connection.recv() == "ready":
                return
        except EOFError:
            pass
        raise CorgiError(f"the picture site on {self.address} did not start; nothing was fetched; run again")


def _listen(ip: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((ip, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise InputError(
            f"cannot serve the pictures on {ip}:{port}: {error.strerror}; nothing was changed; "
            "stop the other program (another demo?) or choose another port with --port N"
        ) from error
    return listener


def _serve(folder: Path, listener: socket.socket, lifeline: Connection) -> None:
    # Ctrl-C reaches every process of the terminal; this one ignores it, so that the fetchers end first and the site after them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(_serve_until_alone(folder, listener, lifeline))


async def _serve_until_alone(folder: Path, listener: socket.socket, lifeline: Connection) -> None:
    alone = asyncio.Event()
    asyncio.get_running_loop().add_reader(lifeline.fileno(), alone.set)
    runner = web.AppRunner(_Answers(folder).application(), access_log=None)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    lifeline.send("ready")
    await alone.wait()
    await runner.cleanup()


class _Answers:
    """The site's responses, and how often each kind was sent."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._visited: set[str] = set()
        self._tally: Counter[str] = Counter()

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/_tally", self.tally, allow_head=False)
        application.router.add_get("/{kind}/{name}", self.picture, allow_head=False)
        return application

    async def tally(self, request: web.Request) -> web.Response:
        return web.json_response(dict(sorted(self._tally.items())))

    async def picture(self, request: web.Request) -> web.Response:
        kind, name = request.match_info["kind"], request.match_info["name"]
        path = self._folder / name
        if _FILE_NAME.fullmatch(name) is None or not path.is_file():
            kind = "unknown"
        elif kind == "busy" and name not in self._visited:
            self._visited.add(name)
            kind = "busy_503"
        answer = self._answer(kind, path)
        self._tally[kind if answer.status != 404 or kind == "gone" else "unknown"] += 1
        return answer

    def _answer(self, kind: str, path: Path) -> web.Response:
        if kind == "busy_503":
            return web.Response(status=503, headers={"Retry-After": "0"}, text="busy\n")
        if kind == "page":
            return web.Response(text=_PAGE, content_type="text/html")
        if kind not in {"pictures", "copy", "busy", "cut", "noai"}:
            return web.Response(status=404, text="not found\n")
        body = path.read_bytes()
        return web.Response(
            body=body[: len(body) // 2] if kind == "cut" else body,
            content_type=_CONTENT_TYPES[path.suffix[1:]],
            headers={"X-Robots-Tag": "noai"} if kind == "noai" else None,
        )
