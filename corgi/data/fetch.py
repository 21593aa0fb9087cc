"""The guarded fetch: one URL costs bounded time and bytes, and reaches no address that was not judged.

The only module that contacts hosts named in data.
"""

import asyncio
import functools
import socket
import ssl
from collections.abc import AsyncGenerator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from corgi.data.address import AddressRefusedError, Guard, UrlRefusedError, parse_url
from corgi.data.answer import BoundedBody, Fetched, StopError, backoff_s, retry_after_s, too_large
from corgi.data.robots import refusing_directive
from corgi.settings.data import DownloadSettings
from corgi.tables.schema import Reason

MAX_REDIRECTS = 5
MAX_HEADER_BYTES = 16 * 1024
CHUNK_BYTES = 64 * 1024
DNS_THREADS = 32
DNS_CACHE_S = 300
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PASSING_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_ACCEPT = "image/webp,image/png,image/jpeg,image/gif,image/*;q=0.8,*/*;q=0.5"


@dataclass
class Fetcher:
    """Fetch URLs through one session: one TLS context, kept-alive connections, one name cache.

    Use it inside one event loop; `close` it there.
    """

    settings: DownloadSettings
    _session: aiohttp.ClientSession | None = field(default=None, init=False)

    async def __aenter__(self) -> Self:
        """Return the fetcher; it closes at the end of the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection."""
        await self.close()

    async def close(self) -> None:
        """Close every connection; the next fetch opens a new session."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def fetch(self, url: str) -> Fetched:
        """Return a URL's body or the reason there is none, within `timeout_s`, redirects, retries and waits included."""
        try:
            target = parse_url(url)
        except UrlRefusedError as error:
            return Fetched(reason=Reason.BAD_URL, detail=str(error))
        last: Fetched | None = None
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                for attempt in range(self.settings.retries + 1):
                    try:
                        return await self._follow(target)
                    except StopError as stop:
                        last = stop.outcome
                        if not stop.is_passing or attempt == self.settings.retries:
                            return last
                        await asyncio.sleep(max(stop.retry_after_s, backoff_s(attempt)))
        except TimeoutError:
            pass
        return last or Fetched(reason=Reason.TIMEOUT, detail="no whole answer within timeout_s")

    async def fetch_all(self, urls: Iterable[str]) -> AsyncGenerator[tuple[int, Fetched], None]:
        """Yield (index, outcome) of every URL as each ends, with at most `connections` in flight.

        A rolling window: one slow host holds one place, not a batch. A consumer that is slow holds new requests back.
        """
        todo: Iterator[tuple[int, str]] = iter(enumerate(urls))
        done: asyncio.Queue[tuple[int, Fetched] | BaseException | None] = asyncio.Queue(
            maxsize=self.settings.connections
        )

        async def worker() -> None:
            try:
                for index, url in todo:
                    await done.put((index, await self.fetch(url)))
                await done.put(None)
            except Exception as error:  # handed to the consumer, who raises it
                await done.put(error)

        workers = [asyncio.create_task(worker()) for _ in range(self.settings.connections)]
        try:
            running = len(workers)
            while running:
                item = await done.get()
                if isinstance(item, BaseException):
                    raise item
                if item is None:
                    running -= 1
                else:
                    yield item
        finally:
            for task in workers:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _follow(self, url: URL) -> Fetched:
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._exchange(url)
            if isinstance(answer, Fetched):
                return answer
            try:
                url = parse_url(str(answer))
            except UrlRefusedError as error:
                raise StopError(Fetched(reason=Reason.BAD_URL, detail=f"redirect: {error}")) from None
        raise StopError(Fetched(reason=Reason.TOO_MANY_REDIRECTS, detail=f"more than {MAX_REDIRECTS}"))

    async def _exchange(self, url: URL) -> Fetched | URL:
        """Return one answer: a body, or where it is said to be.

        Raises:
            StopError: the answer is of no use.

        """
        try:
            async with self._opened().get(url, allow_redirects=False) as response:
                if response.status in _REDIRECTS:
                    return _location(response)
                _check_answer(response, self.settings)
                body = await _read(response, int(self.settings.max_bytes))
                return Fetched(body=body, http_status=response.status, num_bytes=len(body))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError):
                raise  # the deadline of the whole exchange
            raise _fault(error) from error

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = _new_session(self.settings)
        return self._session


class GuardedResolver(AbstractResolver):
    """Resolve names, after the recipe's own pairs, to addresses that were judged; refuse a name that has none."""

    def __init__(self, guard: Guard) -> None:
        """Remember the recipe's exceptions; names are looked up in threads of its own, since a slow one blocks its thread."""
        self._guard = guard
        self._threads = ThreadPoolExecutor(DNS_THREADS, thread_name_prefix="dns")

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
        look_up = functools.partial(socket.getaddrinfo, host, port, family=family, type=socket.SOCK_STREAM)
        infos = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        return [(str(info[4][0]), port) for info in infos]


@functools.cache
def tls_context() -> ssl.SSLContext:
    """Return the process's one TLS context: building one costs more than decoding a picture."""
    return ssl.create_default_context()


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
        ssl=tls_context(),
        ttl_dns_cache=DNS_CACHE_S,
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


def _location(response: aiohttp.ClientResponse) -> URL:
    try:
        return response.url.join(URL(response.headers["Location"]))
    except (KeyError, ValueError):
        raise StopError(Fetched(reason=Reason.BAD_URL, detail="redirect: no usable Location")) from None


def _check_answer(response: aiohttp.ClientResponse, settings: DownloadSettings) -> None:
    status = response.status
    if status != 200:
        outcome = Fetched(reason=Reason.HTTP_STATUS, detail=f"HTTP status {status}", http_status=status)
        raise StopError(
            outcome, status in _PASSING_STATUSES, retry_after_s(response.headers.get("Retry-After"))
        )
    robots = response.headers.getall("X-Robots-Tag", [])
    directive = refusing_directive(robots, settings.user_agent, settings.disallowed_header_directives)
    if directive:
        raise StopError(
            Fetched(reason=Reason.OPTED_OUT, detail=f"X-Robots-Tag {directive}", http_status=status)
        )
    if (response.content_length or 0) > settings.max_bytes:
        raise too_large("Content-Length")


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """Return the body, decoded, once it is whole."""
    body = BoundedBody(max_bytes, response.headers.get("Content-Encoding", ""))
    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
        body.add(chunk)
    return body.whole()


def _fault(error: BaseException) -> StopError:
    """Return the outcome of an exception of the client; its text may hold addresses and is not kept."""
    causes = list(_causes(error))
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
    return StopError(Fetched(reason=Reason.CONNECTION, detail="broken HTTP answer"))


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
