"""The guarded fetch: one URL costs bounded time and bytes, and reaches no address that was not judged.

The only module that contacts hosts named in data.
"""

import asyncio
import errno
import functools
import socket
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any, TypeVar

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from corgi.fetching.address import AddressRefusedError, Guard, UrlRefusedError
from corgi.fetching.host_slots import Breaker
from corgi.fetching.redirect import redirected
from corgi.fetching.response import (
    OVERLOADED,
    BoundedBody,
    Fetched,
    StopError,
    check_answer,
)
from corgi.fetching.robots_txt import MAX_TEXT_BYTES
from corgi.settings.data import DownloadSettings
from corgi.settings.errors import ClusterError, SettingsError
from corgi.tables.schema import Reason

MAX_HEADER_BYTES = 16 * 1024
LOOK_EVERY_S = 0.25
DNS_THREADS = 128
DNS_CACHE_S = 300
DNS_CACHE_NAMES = 20_000
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ACCEPT = "image/webp,image/png,image/jpeg,image/gif,image/*;q=0.8,*/*;q=0.5"


_Found = TypeVar("_Found")


class Exchange:
    """Ask hosts, one request at a time each: one TLS context, kept-alive connections, one name cache, one breaker.

    Use it inside one event loop; `close` it there.
    """

    def __init__(self, settings: DownloadSettings) -> None:
        """Prepare for the settings; nothing is opened yet."""
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None
        self._breaker = Breaker(settings.host_max_faults, settings.host_pause_s)

    async def close(self) -> None:
        """Close every connection; the next request opens a new session."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def get(
        self, url: URL, use: Callable[[aiohttp.ClientResponse], Awaitable[_Found]], is_last: bool = False
    ) -> _Found | URL:
        """Return what `use` makes of one answer, or where the answer says to look.

        Raises:
            StopError: the answer is of no use, or the host was given up.

        """
        site, began, is_heard = f"{url.host}:{url.port}", monotonic(), False
        if not self._breaker.allows(site, began):
            raise StopError(Fetched(reason=Reason.HOST_UNAVAILABLE, detail="given up after faults in a row"))
        headers = {"Connection": "close"} if is_last else None
        try:
            async with self._opened().get(url, allow_redirects=False, headers=headers) as response:
                is_heard = response.status not in OVERLOADED
                if response.status in _REDIRECTS:
                    return _location(url, response)
                return await use(response)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError):
                raise  # the deadline of the whole exchange
            stop = _fault(error)
            is_heard = is_heard or stop.outcome not in _NOBODY
            raise stop from error
        except asyncio.CancelledError:
            is_heard = is_heard or monotonic() - began < self._settings.timeout_s / 2
            raise
        finally:
            now = monotonic()
            if is_heard:
                self._breaker.heard(site, now)
            else:
                self._breaker.failed(site, began, now)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = _new_session(self._settings)
        return self._session


async def read_picture(response: aiohttp.ClientResponse, settings: DownloadSettings) -> Fetched:
    """Return an answer's body, decoded, once it is whole.

    Raises:
        StopError: the head of the answer refuses, or the body is too large or broken.

    """
    check_answer(response.status, response.headers, settings)
    body = BoundedBody(int(settings.max_bytes), response.headers.get("Content-Encoding", ""))
    async for chunk in _chunks(response):
        body.add(chunk)
    data = body.whole()
    return Fetched(body=data, http_status=response.status, num_bytes=len(data))


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield a body as it comes in.

    The client tells its parser's error to who waits for a head, not to who reads a body: that one looks for it.
    """
    content = response.content
    while (
        content.exception() is not None or not content.at_eof()
    ):  # a deadline costs more than a body already here
        try:
            async with asyncio.timeout(LOOK_EVERY_S):
                chunk = await content.readany()
        except TimeoutError:
            continue
        except RuntimeError as error:  # what the client says of reading on where its parser gave up
            raise _broken() from error
        if not chunk:
            return
        yield chunk


async def read_robots(response: aiohttp.ClientResponse) -> bytes:
    """Return a robots.txt as far as it is read.

    Raises:
        StopError: the status is not 200.

    """
    if response.status != 200:
        check_answer(response.status, response.headers, DownloadSettings())
    text = bytearray()
    async for chunk in _chunks(response):
        text += chunk
        if len(text) >= MAX_TEXT_BYTES:
            break
    return bytes(text[:MAX_TEXT_BYTES])


class GuardedResolver(AbstractResolver):
    """Resolve names, after the recipe's own pairs, to addresses that were judged; refuse a name that has none."""

    def __init__(self, guard: Guard) -> None:
        """Remember the recipe's exceptions; names are looked up in threads of its own, since a slow one blocks its thread."""
        self._guard = guard
        self._threads = ThreadPoolExecutor(DNS_THREADS, thread_name_prefix="dns")
        self._nameless: OrderedDict[str, float] = OrderedDict()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the judged addresses of a host.

        Raises:
            AddressRefusedError: every address it has is refused.

        """
        found = await self._look_up(host, port, family)
        allowed: list[ResolveResult] = []
        refusal = AddressRefusedError("no numeric address")
        for address, number in found:
            try:
                self._guard.judge(address, number)
            except AddressRefusedError as error:
                refusal = error
                continue
            allowed.append(
                ResolveResult(
                    hostname=host,
                    host=address,
                    port=number,
                    family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                    proto=socket.IPPROTO_TCP,
                    flags=socket.AI_NUMERICHOST,
                )
            )
        if not allowed:
            raise refusal
        return allowed

    async def close(self) -> None:
        """Give the threads back."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _look_up(self, host: str, port: int, family: int) -> list[tuple[str, int]]:
        mapped = self._guard.resolved.get((host.rstrip(".").lower(), port))
        if mapped is not None:
            return [mapped]
        if monotonic() < self._nameless.get(host, 0.0):
            raise socket.gaierror(socket.EAI_NONAME, "name has no address")
        look_up = functools.partial(socket.getaddrinfo, host, port, family=family, type=socket.SOCK_STREAM)
        try:
            infos = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        except socket.gaierror as error:
            if error.errno != socket.EAI_AGAIN:
                self._nameless[host] = monotonic() + DNS_CACHE_S
                if len(self._nameless) > DNS_CACHE_NAMES:
                    self._nameless.popitem(last=False)
            raise
        return [(str(info[4][0]), port) for info in infos]


@functools.cache
def tls_context(ca_file: str | None = None) -> ssl.SSLContext:
    """Return the process's one TLS context: building one costs more than decoding a picture.

    Raises:
        SettingsError: the file of further CA certificates cannot be read.

    """
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except OSError as error:  # an ssl.SSLError is one
            raise SettingsError(
                f"download.ca_file={ca_file!r} holds no CA certificates that can be read ({error.strerror or error}); nothing was fetched; name a PEM file every node can read"
            ) from error
    return context


def _new_session(settings: DownloadSettings) -> aiohttp.ClientSession:
    guard = Guard.of(settings.allow_private, settings.resolve)

    def judged_socket(info: Any) -> socket.socket:
        family, kind, protocol, _, address = info
        guard.judge(
            str(address[0]), int(address[1])
        )  # the very address dialled: a literal never meets the resolver
        dialled = socket.socket(family, kind, protocol)
        dialled.setblocking(False)
        return dialled

    connector = aiohttp.TCPConnector(
        limit=settings.connections,
        resolver=GuardedResolver(guard),
        ssl=tls_context(settings.ca_file),
        ttl_dns_cache=DNS_CACHE_S,
        dns_cache_max_size=DNS_CACHE_NAMES,
        socket_factory=judged_socket,
    )
    return aiohttp.ClientSession(
        connector=connector,
        trust_env=False,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        requote_redirect_url=False,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.timeout_s / 2),
        headers={"User-Agent": settings.user_agent, "Accept": _ACCEPT, "Accept-Encoding": "identity"},
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
    )


def _location(asked: URL, response: aiohttp.ClientResponse) -> URL:
    try:
        return redirected(asked, response.headers.get("Location", ""))
    except UrlRefusedError as error:
        raise StopError(Fetched(reason=Reason.BAD_URL, detail=f"redirect: {error}")) from None


def _fault(error: BaseException) -> StopError:
    """Return the outcome of an exception of the client; its text may hold addresses and is not kept."""
    causes = list(_causes(error))
    if any(isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE) for cause in causes):
        raise ClusterError(
            "no more files can be opened; committed shards are safe; raise the limit (ulimit -n) or lower download.connections"
        ) from error
    refused = next((cause for cause in causes if isinstance(cause, AddressRefusedError)), None)
    if refused is not None:
        return StopError(Fetched(reason=Reason.BLOCKED_ADDRESS, detail=str(refused)))
    lookup = next((cause for cause in causes if isinstance(cause, socket.gaierror)), None)
    if lookup is not None:
        return StopError(
            Fetched(reason=Reason.DNS, detail="name has no address"), lookup.errno == socket.EAI_AGAIN
        )
    if any(isinstance(cause, UnicodeError) for cause in causes):
        return StopError(Fetched(reason=Reason.BAD_URL, detail="host is no name"))
    for kinds, outcome, is_passing in _FAULTS:
        if any(isinstance(cause, kinds) for cause in causes):
            return StopError(outcome, is_passing)
    return _broken()


def _broken() -> StopError:
    """Return the outcome of an answer that is not HTTP; the bytes may be left over from an answer before it."""
    return StopError(Fetched(reason=Reason.CONNECTION, detail="broken HTTP answer"), is_passing=True)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        if isinstance(error, aiohttp.ClientConnectorError):
            yield error.os_error
        error = error.__cause__ or error.__context__


_FAULTS: tuple[tuple[tuple[type[BaseException], ...], Fetched, bool], ...] = (
    (
        (aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError),
        Fetched(reason=Reason.CONNECTION, detail="certificate refused"),
        False,
    ),
    ((ssl.SSLError,), Fetched(reason=Reason.CONNECTION, detail="TLS failed"), False),
    ((aiohttp.ServerTimeoutError,), Fetched(reason=Reason.TIMEOUT, detail="no connection in time"), True),
    ((ConnectionRefusedError,), Fetched(reason=Reason.CONNECTION, detail="refused"), False),
    (
        (aiohttp.ClientPayloadError,),
        Fetched(reason=Reason.SHORT_BODY, detail="closed before the end", http_status=200),
        True,
    ),
    ((ConnectionError,), Fetched(reason=Reason.CONNECTION, detail="reset"), True),
    (
        (aiohttp.ServerDisconnectedError,),
        Fetched(reason=Reason.CONNECTION, detail="closed without an answer"),
        True,
    ),
    ((aiohttp.ClientConnectorError,), Fetched(reason=Reason.CONNECTION, detail="no route"), False),
    ((aiohttp.InvalidURL,), Fetched(reason=Reason.BAD_URL, detail="not a URL"), False),
)
_NOBODY = (
    Fetched(reason=Reason.CONNECTION, detail="refused"),
    Fetched(reason=Reason.CONNECTION, detail="reset"),
    Fetched(reason=Reason.CONNECTION, detail="closed without an answer"),
    Fetched(reason=Reason.CONNECTION, detail="no route"),
    Fetched(reason=Reason.CONNECTION, detail="TLS failed"),
    Fetched(reason=Reason.CONNECTION, detail="certificate refused"),
    Fetched(reason=Reason.TIMEOUT, detail="no connection in time"),
)
"""Faults of a host as a whole, which the breaker counts."""
