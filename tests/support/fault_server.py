"""A web server on loopback whose behaviour is chosen by the path, for tests of whatever fetches from strangers.

`/ok/<seed>.<jpg|png|webp|gif>  /big/<seed>.jpg  /noise/<seed>.jpg  /exif/<seed>.jpg  /slow/<bytes per s>  /stall/<bytes sent>  /endless  /short
/gzip/<seed>.jpg  /gzipbomb  /brotli  /redirect/<n>  /redirect-to?u=  /status/<code>?retry_after=  /once/<code>/<seed>.jpg
/reset/<bytes sent>  /halfclose  /headers/<kB>  /noai  /robots?v=  /wrongtype  /empty  /truncated  /bomb/<kind>  /flip
/garbage  /chunked/<seed>.jpg  /raw/<name of tests/support/hostile.py>  /split/<the same>  /wait/<ms>/<seed>.jpg  /silence  /slowheaders  /endlessheaders  /manyheaders/<n>
/signed/<any>  /interim/<n>  /interimflood  /endlesschunked  /extra/<seed>.jpg  /first/<seed>.jpg  /content-usage?v=  /encoded/<kind>  /body/<kind>`

`/signed/` is 403 unless `server.signed` holds the request's target byte for byte. `server.robots` says what `/robots.txt` is answered with: (status, text), "stall" or "reset"; 404 to begin with. Such requests
are counted in `robots_requests` only. Several servers on several loopback addresses are several hosts.
"""

import asyncio
import functools
import gzip
import socket
import ssl
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from PIL import Image

from tests.support.hostile import BODIES, RAW
from tests.support.pictures import encoded, jpeg_lie, png_bomb, scene

FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF"}
BOMB_SIDE = 9_000
ZLIB_BOMB = zlib.compress(bytes(64 * 2**20), 1)
GZIP_BOMB = gzip.compress(bytes(64 * 2**20), 1)
Handler = Callable[["FaultServer", "Exchange"], Awaitable[None]]


@functools.cache
def picture(seed: int, extension: str = "jpg", side: int = 96) -> bytes:
    """Return the bytes served for a seed."""
    return encoded(scene(seed, side, side * 2 // 3), FORMATS[extension])


@functools.cache
def noise(seed: int) -> bytes:
    """Return a JPEG of noise, which no encoder makes small: a little over a megabyte."""
    pixels = np.random.default_rng(seed).integers(0, 256, (1088, 1088, 3), np.uint8)
    return encoded(Image.fromarray(pixels), "JPEG", quality=90)


class Exchange:
    """One request and the means to answer it badly."""

    def __init__(self, target: str, headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
        parts = urlsplit(target)
        self.target = target
        self.words = parts.path.strip("/").split("/")
        self.query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.headers = headers
        self.writer = writer
        self.keeps_alive = True
        self.is_first = True

    def number(self, place: int = 1) -> int:
        """Return a word of the path as a number, extension aside."""
        return int(self.words[place].partition(".")[0])

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status: int = 200, *lines: str) -> None:
        await self.send("\r\n".join([f"HTTP/1.1 {status} Status", *lines, "", ""]).encode())

    async def answer(self, body: bytes, status: int = 200, *lines: str) -> None:
        await self.head(status, f"Content-Length: {len(body)}", *lines)
        await self.send(body)

    def cut(self, with_reset: bool) -> None:
        """End the connection, politely or by RST."""
        self.keeps_alive = False
        if with_reset:
            dialled: socket.socket = self.writer.get_extra_info("socket")
            dialled.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()


class FaultServer:
    """The server in a thread; `with FaultServer() as server: server.url("/ok/1.jpg")`."""

    def __init__(self, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self.host = host
        self.tls = tls
        self.port = 0
        self.requests: list[str] = []
        self.connections = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.user_agents: set[str] = set()
        self.robots: tuple[int, str] | str = (404, "")
        self.robots_requests = 0
        self.signed: set[str] = set()
        self.starts: dict[str, list[float]] = {}
        self.most_by_host: Counter[str] = Counter()
        self._by_host: Counter[str] = Counter()
        self._visits: Counter[str] = Counter()
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def url(self, path: str) -> str:
        return f"http{'s' if self.tls else ''}://{self.address}{path}"

    def visits(self, target: str) -> int:
        """Return how often a path was asked for since it began, and count one more."""
        self._visits[target] += 1
        return self._visits[target] - 1

    def forget(self) -> None:
        """Forget every request, so that what happens once happens again."""
        self._visits.clear()
        self.requests.clear()
        self.connections = self.in_flight = self.most_in_flight = self.robots_requests = 0
        self.starts.clear()
        self.most_by_host.clear()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._run())
        self._loop.close()

    async def _run(self) -> None:
        png_bomb(BOMB_SIDE)
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connected, self.host, 0, backlog=512, ssl=self.tls)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            is_first = True
            while await self._one(reader, writer, is_first):
                is_first = False
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_first: bool) -> bool:
        raw = await reader.readuntil(b"\r\n\r\n")
        first, *rest = raw.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest if line)
        }
        exchange = Exchange(first.split(" ")[1], headers, writer)
        exchange.is_first = is_first
        if exchange.target == "/robots.txt":
            await self._answer_robots(exchange)
            return exchange.keeps_alive
        self.requests.append(exchange.target)
        host = headers.get("host", "")
        self.starts.setdefault(host, []).append(time.monotonic())
        self._by_host[host] += 1
        self.most_by_host[host] = max(self.most_by_host[host], self._by_host[host])
        self.user_agents.add(headers.get("user-agent", ""))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await HANDLERS.get(exchange.words[0], _missing)(self, exchange)
        finally:
            self.in_flight -= 1
            self._by_host[host] -= 1
        return exchange.keeps_alive

    async def _answer_robots(self, exchange: Exchange) -> None:
        self.robots_requests += 1
        if self.robots == "stall":
            await asyncio.sleep(3600)
        elif self.robots == "reset":
            exchange.cut(with_reset=True)
        else:
            assert isinstance(self.robots, tuple)
            status, text = self.robots
            place = [f"Location: {text}"] if 300 <= status < 400 else []
            await exchange.answer(text.encode(), status, *place)


async def _missing(server: FaultServer, exchange: Exchange) -> None:
    await exchange.answer(b"nothing here", 404)


async def _ok(server: FaultServer, exchange: Exchange) -> None:
    seed, _, extension = exchange.words[1].partition(".")
    await exchange.answer(picture(int(seed), extension), 200, f"Content-Type: image/{extension}")


async def _big(server: FaultServer, exchange: Exchange) -> None:
    await exchange.answer(picture(exchange.number(), side=1600))


async def _noise(server: FaultServer, exchange: Exchange) -> None:
    await exchange.answer(noise(exchange.number()))


async def _exif(server: FaultServer, exchange: Exchange) -> None:
    lying = scene(exchange.number())
    tags = lying.getexif()
    tags[0x0112] = 6
    await exchange.answer(encoded(lying, exif=tags))


async def _slow(server: FaultServer, exchange: Exchange) -> None:
    await exchange.head(200, "Content-Length: 100000")
    while True:
        await exchange.send(b"x" * max(1, exchange.number() // 10))
        await asyncio.sleep(0.1)


async def _stall(server: FaultServer, exchange: Exchange) -> None:
    await exchange.head(200, "Content-Length: 100000")
    await exchange.send(b"x" * exchange.number())
    await asyncio.sleep(3600)


async def _endless(server: FaultServer, exchange: Exchange) -> None:
    await exchange.head(200, "Connection: close")
    while True:
        await exchange.send(b"x" * 65536)


async def _short(server: FaultServer, exchange: Exchange) -> None:
    body = picture(1)
    await exchange.head(200, f"Content-Length: {len(body) + 1000}")
    await exchange.send(body)
    exchange.cut(with_reset=False)


async def _gzip(server: FaultServer, exchange: Exchange) -> None:
    await exchange.answer(gzip.compress(picture(exchange.number())), 200, "Content-Encoding: gzip")


async def _gzipbomb(server: FaultServer, exchange: Exchange) -> None:
    await exchange.answer(GZIP_BOMB, 200, "Content-Encoding: gzip")


async def _brotli(server: FaultServer, exchange: Exchange) -> None:
    await exchange.answer(b"\x0b\x02\x80abc\x03", 200, "Content-Encoding: br")


async def _redirect(server: FaultServer, exchange: Exchange) -> None:
    left = exchange.number()
    await exchange.answer(b"", 302, f"Location: {'/ok/1.jpg' if left <= 1 else f'/redirect/{left - 1}'}")


async def _redirect_to(server: FaultServer, exchange: Exchange) -> None:
    await exchange.answer(b"", 302, f"Location: {unquote(exchange.query['u'])}")


async def _signed(server: FaultServer, exchange: Exchange) -> None:
    if exchange.target in server.signed:
        await exchange.answer(picture(1))
    else:
        await exchange.answer(b"signature does not match", 403)


async def _status(server: FaultServer, exchange: Exchange) -> None:
    wait = exchange.query.get("retry_after")
    body = b"" if exchange.number() in (204, 304) else b"no"
    await exchange.answer(body, exchange.number(), *([f"Retry-After: {wait}"] if wait else []))


async def _once(server: FaultServer, exchange: Exchange) -> None:
    if server.visits(exchange.target) == 0:
        await exchange.answer(b"later", exchange.number())
    else:
        await exchange.answer(picture(exchange.number(2)))


async def _reset(server: FaultServer, exchange: Exchange) -> None:
    sent = exchange.number()
    if sent:
        await exchange.head(200, "Content-Length: 100000")
        await exchange.send(b"x" * sent)
    exchange.cut(with_reset=True)


async def _halfclose(server: FaultServer, exchange: Exchange) -> None:
    exchange.writer.write_eof()
    exchange.cut(with_reset=False)


async def _headers(server: FaultServer, exchange: Exchange) -> None:
    await exchange.answer(picture(1), 200, f"X-Long: {'x' * exchange.number() * 1024}")


async def _noai(server: FaultServer, exchange: Exchange) -> None:
    await exchange.answer(picture(1), 200, "X-Robots-Tag: noai")


async def _robots(server: FaultServer, exchange: Exchange) -> None:
    await exchange.answer(picture(1), 200, f"X-Robots-Tag: {exchange.query['v']}")


async def _wrongtype(server: FaultServer, exchange: Exchange) -> None:
    await exchange.answer(
        b"<!DOCTYPE html><html><body>image not found</body></html>", 200, "Content-Type: image/jpeg"
    )


async def _empty(server: FaultServer, exchange: Exchange) -> None:
    await exchange.answer(b"")


async def _truncated(server: FaultServer, exchange: Exchange) -> None:
    body = picture(1, side=400)
    await exchange.answer(body[: len(body) // 2])


async def _bomb(server: FaultServer, exchange: Exchange) -> None:
    makers = {
        "png": lambda: png_bomb(BOMB_SIDE),
        "jpeg": lambda: jpeg_lie(60_000, 60_000),
        "thin": lambda: jpeg_lie(60_000, 1),
    }
    await exchange.answer(makers[exchange.words[1]]())


async def _flip(server: FaultServer, exchange: Exchange) -> None:
    await exchange.answer(encoded(scene(server.visits(exchange.target))))


async def _garbage(server: FaultServer, exchange: Exchange) -> None:
    await exchange.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
    exchange.cut(with_reset=False)


async def _chunked(server: FaultServer, exchange: Exchange) -> None:
    body = picture(exchange.number())
    await exchange.head(200, "Transfer-Encoding: chunked")
    for start in range(0, len(body), 500):
        part = body[start : start + 500]
        await exchange.send(f"{len(part):x}\r\n".encode() + part + b"\r\n")
    await exchange.send(b"0\r\n\r\n")


async def _raw(server: FaultServer, exchange: Exchange) -> None:
    await exchange.send(RAW[exchange.words[1]])
    exchange.cut(with_reset=False)


async def _wait(server: FaultServer, exchange: Exchange) -> None:
    await asyncio.sleep(exchange.number() / 1000)
    await exchange.answer(picture(exchange.number(2)))


async def _split(server: FaultServer, exchange: Exchange) -> None:
    head, separator, rest = RAW[exchange.words[1]].partition(b"\r\n\r\n")
    await exchange.send(head + separator)
    await asyncio.sleep(0.1)
    await exchange.send(rest)
    exchange.cut(with_reset=False)


async def _silence(server: FaultServer, exchange: Exchange) -> None:
    await asyncio.sleep(3600)


async def _slowheaders(server: FaultServer, exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await exchange.send(b"X-Slow: 1\r\n")
        await asyncio.sleep(0.2)


async def _endlessheaders(server: FaultServer, exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await exchange.send(b"X-More: 1\r\n" * 1000)


async def _manyheaders(server: FaultServer, exchange: Exchange) -> None:
    await exchange.answer(picture(1), 200, *(f"X-{number}: 1" for number in range(exchange.number())))


async def _interim(server: FaultServer, exchange: Exchange) -> None:
    for _ in range(exchange.number()):
        await exchange.head(103, "Link: </style.css>")
    await exchange.answer(picture(1))


async def _interimflood(server: FaultServer, exchange: Exchange) -> None:
    while True:
        await exchange.head(100)
        await asyncio.sleep(0.005)


async def _endlesschunked(server: FaultServer, exchange: Exchange) -> None:
    await exchange.head(200, "Transfer-Encoding: chunked")
    while True:
        await exchange.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")


async def _extra(server: FaultServer, exchange: Exchange) -> None:
    await exchange.answer(picture(exchange.number()))
    await asyncio.sleep(0.1)
    await exchange.send(b"bytes that belong to no answer")


async def _first(server: FaultServer, exchange: Exchange) -> None:
    if exchange.is_first:
        await asyncio.sleep(0.05)
        await exchange.answer(picture(exchange.number()))
    else:
        await exchange.send(b"bytes that belong to no answer\r\n\r\n")
        exchange.cut(with_reset=False)


async def _content_usage(server: FaultServer, exchange: Exchange) -> None:
    await exchange.answer(picture(1), 200, f"Content-Usage: {exchange.query['v']}")


async def _encoded(server: FaultServer, exchange: Exchange) -> None:
    zipped = gzip.compress(picture(1))
    kinds = {
        "broken": ("gzip", zipped[:20] + b"garbage" * 20),
        "short": ("gzip", zipped[:-50]),
        "lie": ("gzip", picture(1)),
        "nested": ("gzip, gzip", gzip.compress(zipped)),
        "thrice": ("gzip, deflate, gzip", zipped),
        "zstd": ("zstd", b"\x28\xb5\x2f\xfd" + bytes(20)),
        "unknown": ("x-secret", picture(1)),
        "zlibbomb": ("deflate", ZLIB_BOMB),
        "empty": ("gzip", b""),
    }
    encoding, body = kinds[exchange.words[1]]
    await exchange.answer(body, 200, f"Content-Encoding: {encoding}")


async def _body(server: FaultServer, exchange: Exchange) -> None:
    await exchange.answer(BODIES[exchange.words[1]], 200, "Content-Type: image/jpeg")


HANDLERS: dict[str, Handler] = {
    "raw": _raw,
    "split": _split,
    "wait": _wait,
    "silence": _silence,
    "slowheaders": _slowheaders,
    "endlessheaders": _endlessheaders,
    "manyheaders": _manyheaders,
    "interim": _interim,
    "interimflood": _interimflood,
    "endlesschunked": _endlesschunked,
    "extra": _extra,
    "first": _first,
    "content-usage": _content_usage,
    "encoded": _encoded,
    "body": _body,
    "ok": _ok,
    "big": _big,
    "noise": _noise,
    "exif": _exif,
    "slow": _slow,
    "stall": _stall,
    "endless": _endless,
    "short": _short,
    "gzip": _gzip,
    "gzipbomb": _gzipbomb,
    "brotli": _brotli,
    "redirect": _redirect,
    "redirect-to": _redirect_to,
    "signed": _signed,
    "status": _status,
    "once": _once,
    "reset": _reset,
    "halfclose": _halfclose,
    "headers": _headers,
    "noai": _noai,
    "robots": _robots,
    "wrongtype": _wrongtype,
    "empty": _empty,
    "truncated": _truncated,
    "bomb": _bomb,
    "flip": _flip,
    "garbage": _garbage,
    "chunked": _chunked,
}
