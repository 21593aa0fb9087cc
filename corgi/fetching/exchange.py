"""The guarded fetch: one URL costs bounded time and bytes, and connects to no address that was not checked.

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
from typing import TypeVar

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import AddrInfoType
from yarl import URL

from corgi.fetching.address import AddressRefusedError, Guard, UrlRefusedError
from corgi.fetching.breaker import Breaker
from corgi.fetching.redirect import redirected
from corgi.fetching.response import (
    OVERLOADED,
    AttemptError,
    Body,
    BoundedBody,
    check_response,
)
from corgi.fetching.robots_txt import MAX_TEXT_BYTES
from corgi.fetching.tls import tls_context
from corgi.settings.data import DownloadSettings
from corgi.settings.errors import ClusterError
from corgi.tables.rejection import Rejection
from corgi.tables.schema import Reason

MAX_HEADER_BYTES = 16 * 1024
LOOK_EVERY_S = 0.25
DNS_THREADS = 128
DNS_CACHE_S = 300
DNS_CACHE_NAMES = 20_000
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ACCEPT = "image/webp,image/png,image/jpeg,image/gif,image/*;q=0.8,*/*;q=0.5"


_Result = TypeVar("_Result")


class Exchange:
    """Sends single requests with one TLS context, kept-alive connections, one name cache and one circuit breaker.

    Use it inside one event loop; `close` it there.
    """

    def __init__(self, settings: DownloadSettings) -> None:
        """Prepare for the settings; nothing is opened yet."""
        self._settings = settings
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._breaker = Breaker(settings.host_max_faults, settings.host_pause_s)

    async def close(self) -> None:
        """Close every connection; the next request opens a new session."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    async def get(
        self,
        url: URL,
        use: Callable[[aiohttp.ClientResponse], Awaitable[_Result]],
        is_last: bool = False,
        is_retry: bool = False,
    ) -> _Result | URL:
        """Return what `use` makes of one response, or the URL to which the response redirects.

        A retry opens a new connection: a kept-alive one may contain bytes left over from an earlier response, or may be
        closed by the server while the request is sent, and this may be true of several connections to a host.

        Raises:
            AttemptError: the response cannot be used, or the host is paused after faults.

        """
        site, began, is_heard = f"{url.host}:{url.port}", monotonic(), False
        if not self._breaker.allows(site, began):
            raise AttemptError(Rejection(Reason.HOST_UNAVAILABLE, "given up after faults in a row"))
        headers = {"Connection": "close"} if is_last else None
        try:
            async with self._opened(not is_retry).get(
                url, allow_redirects=False, headers=headers
            ) as response:
                is_heard = response.status not in OVERLOADED
                if response.status in _REDIRECTS:
                    return _location(url, response)
                return await use(response)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError):
                raise  # the deadline of the whole exchange
            stop = _fault(error)
            is_heard = is_heard or stop.rejection not in _UNREACHABLE
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

    def _opened(self, keeps_alive: bool) -> aiohttp.ClientSession:
        if keeps_alive not in self._sessions:
            self._sessions[keeps_alive] = _new_session(self._settings, keeps_alive)
        return self._sessions[keeps_alive]


async def read_body(response: aiohttp.ClientResponse, settings: DownloadSettings) -> Body:
    """Return the complete body of a response, with its content encoding removed.

    Raises:
        AttemptError: the status or headers do not allow reading it, or the body is too large or broken.

    """
    check_response(response.status, response.headers, settings)
    body = BoundedBody(int(settings.max_bytes), response.headers.get("Content-Encoding", ""))
    async for chunk in _chunks(response):
        body.add(chunk)
    return Body(body.whole(), response.status)


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield a body as it arrives.

    The client raises a parser error when headers are read, but not when the body is read, so it is checked for here.
    """
    content = response.content
    while (
        content.exception() is not None or not content.at_eof()
    ):  # setting a deadline costs more than reading a body that has already arrived
        try:
            async with asyncio.timeout(LOOK_EVERY_S):
                chunk = await content.readany()
        except TimeoutError:
            continue
        except RuntimeError as error:  # the client raises it on reads after its parser failed
            raise _broken() from error
        if not chunk:
            return
        yield chunk


async def read_robots(response: aiohttp.ClientResponse) -> bytes:
    """Return a robots.txt, truncated to the longest length that is parsed.

    Raises:
        AttemptError: the status is not 200.

    """
    if response.status != 200:
        check_response(response.status, response.headers, DownloadSettings())
    text = bytearray()
    async for chunk in _chunks(response):
        text += chunk
        if len(text) >= MAX_TEXT_BYTES:
            break
    return bytes(text[:MAX_TEXT_BYTES])


class GuardedResolver(AbstractResolver):
    """Resolves names to allowed addresses, by the recipe's own pairs first; a name without an allowed address is refused."""

    def __init__(self, guard: Guard) -> None:
        """Take the recipe's exceptions; names are looked up in a separate thread pool, because a slow look-up blocks its thread."""
        self._guard = guard
        self._threads = ThreadPoolExecutor(DNS_THREADS, thread_name_prefix="dns")
        self._nameless: OrderedDict[str, float] = OrderedDict()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the allowed addresses of a host.

        Raises:
            AddressRefusedError: all its addresses are refused.

        """
        addresses = await self._look_up(host, port, family)
        allowed: list[ResolveResult] = []
        refusal = AddressRefusedError("no numeric address")
        for address, number in addresses:
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
        """End the threads."""
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


def _new_session(settings: DownloadSettings, keeps_alive: bool) -> aiohttp.ClientSession:
    guard = Guard.of(settings.allow_private, settings.resolve)

    def checked_socket(info: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        guard.judge(
            str(address[0]), int(address[1])
        )  # checked here too, because a literal address does not pass through the resolver
        connecting = socket.socket(family, kind, protocol)
        connecting.setblocking(False)
        return connecting

    connector = aiohttp.TCPConnector(
        limit=settings.connections,
        force_close=not keeps_alive,
        resolver=GuardedResolver(guard),
        ssl=tls_context(settings.ca_file),
        ttl_dns_cache=DNS_CACHE_S,
        dns_cache_max_size=DNS_CACHE_NAMES,
        socket_factory=checked_socket,
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


def _location(url: URL, response: aiohttp.ClientResponse) -> URL:
    try:
        return redirected(url, response.headers.get("Location", ""))
    except UrlRefusedError as error:
        raise AttemptError(Rejection(Reason.BAD_URL, f"redirect: {error}")) from None


def _fault(error: BaseException) -> AttemptError:
    """Return the rejection for an exception of the client; the exception's text may contain addresses and is not kept."""
    causes = list(_causes(error))
    if any(isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE) for cause in causes):
        raise ClusterError(
            "no more files can be opened; committed shards are safe; raise the limit (ulimit -n) or lower download.connections"
        ) from error
    refused = next((cause for cause in causes if isinstance(cause, AddressRefusedError)), None)
    if refused is not None:
        return AttemptError(Rejection(Reason.BLOCKED_ADDRESS, str(refused)))
    lookup = next((cause for cause in causes if isinstance(cause, socket.gaierror)), None)
    if lookup is not None:
        return AttemptError(Rejection(Reason.DNS, "name has no address"), lookup.errno == socket.EAI_AGAIN)
    if any(isinstance(cause, UnicodeError) for cause in causes):
        return AttemptError(Rejection(Reason.BAD_URL, "host is no name"))
    for kinds, rejection, is_transient in _FAULTS:
        if any(isinstance(cause, kinds) for cause in causes):
            return AttemptError(rejection, is_transient)
    return _broken()


def _broken() -> AttemptError:
    """Return the rejection of a response that is not HTTP; the bytes may be left over from the previous response."""
    return AttemptError(Rejection(Reason.CONNECTION, "broken HTTP answer"), is_transient=True)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        if isinstance(error, aiohttp.ClientConnectorError):
            yield error.os_error
        error = error.__cause__ or error.__context__


_FAULTS: tuple[tuple[tuple[type[BaseException], ...], Rejection, bool], ...] = (
    (
        (aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError),
        Rejection(Reason.CONNECTION, "certificate refused"),
        False,
    ),
    ((ssl.SSLError,), Rejection(Reason.CONNECTION, "TLS failed"), False),
    ((aiohttp.ServerTimeoutError,), Rejection(Reason.TIMEOUT, "no connection in time"), True),
    ((ConnectionRefusedError,), Rejection(Reason.CONNECTION, "refused"), False),
    (
        (aiohttp.ClientPayloadError,),
        Rejection(Reason.SHORT_BODY, "closed before the end", http_status=200),
        True,
    ),
    ((ConnectionError,), Rejection(Reason.CONNECTION, "reset"), True),
    (
        (aiohttp.ServerDisconnectedError,),
        Rejection(Reason.CONNECTION, "closed without an answer"),
        True,
    ),
    ((aiohttp.ClientConnectorError,), Rejection(Reason.CONNECTION, "no route"), False),
    ((aiohttp.InvalidURL,), Rejection(Reason.BAD_URL, "not a URL"), False),
)
_UNREACHABLE = (
    Rejection(Reason.CONNECTION, "refused"),
    Rejection(Reason.CONNECTION, "reset"),
    Rejection(Reason.CONNECTION, "closed without an answer"),
    Rejection(Reason.CONNECTION, "no route"),
    Rejection(Reason.CONNECTION, "TLS failed"),
    Rejection(Reason.CONNECTION, "certificate refused"),
    Rejection(Reason.TIMEOUT, "no connection in time"),
)
"""Faults of the host as a whole, which the breaker counts."""
