"""Fetches many URLs politely, with deadlines, retries, redirects, robots.txt and host slots around each guarded exchange."""

import asyncio
import functools
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from types import TracebackType
from typing import Self

from yarl import URL

from corgi.fetching.address import UrlRefusedError, parse_url
from corgi.fetching.exchange import Exchange, read_body, read_robots
from corgi.fetching.host_slots import HostSlots
from corgi.fetching.lease_client import Leases, LocalLeases
from corgi.fetching.response import AttemptError, Body, backoff_s, check_hash, opted_out
from corgi.fetching.robots import product_of
from corgi.fetching.robots_cache import RobotsCache
from corgi.fetching.robots_txt import RobotsTxt
from corgi.fetching.scheduler import Room, as_completed
from corgi.settings.data import DownloadSettings
from corgi.tables.rejection import Rejection
from corgi.tables.schema import Reason

MAX_REDIRECTS = 5


class Fetcher:
    """Fetches URLs through one session: one TLS context, kept-alive connections, one name cache, one set of host slots.

    Use it inside one event loop; `close` it there.
    """

    def __init__(self, settings: DownloadSettings, tables: Sequence[Leases] = ()) -> None:
        """Prepare for the settings; host slots come from the tables, or from a table of this process only."""
        self.settings = settings
        self._exchange = Exchange(settings)
        self._slots = HostSlots(tables or [LocalLeases()], settings.host_connections, settings.host_delay_s)
        self._robots = RobotsCache()
        self._room = Room(settings.connections)

    async def __aenter__(self) -> Self:
        """Return the fetcher; it closes at the end of the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection."""
        await self.close()

    async def close(self) -> None:
        """Give every slot back and close every connection; the next fetch opens a new session."""
        await self._slots.release()
        await self._exchange.close()

    async def fetch(self, url: str, expected_hash: str | None = None) -> Body | Rejection:
        """Return a URL's body or its rejection, as `fetch_all` does for many."""
        async with aclosing(self.fetch_all([url], [expected_hash])) as results:
            async for _, result in results:
                return result
        raise AssertionError("every URL has a result")

    async def fetch_all(
        self, urls: Sequence[str], expected_hashes: Sequence[str | None] | None = None
    ) -> AsyncGenerator[tuple[int, Body | Rejection], None]:
        """Yield (index, body or rejection) of every URL as each ends, with at most `connections` in flight, including those of other calls.

        A call that began earlier has priority: later calls use the connections that it leaves free.

        A URL takes at most `timeout_s`, including redirects, robots.txt, retries and the waits between them, but
        not the wait for a slot of its host. A slow host occupies only its own slots; a slow consumer delays new requests. An expected hash is written `sha256:hex` or `md5:hex`.

        Raises:
            ClusterError: the lease actor does not respond, or no more files can be opened.

        """
        targets = [_parsed(url) for url in urls]
        hosts = [None if isinstance(target, Rejection) else target.host for target in targets]

        async def one(index: int, is_last: bool) -> Body | Rejection:
            target = targets[index]
            if isinstance(target, Rejection):
                return target
            result = await self._within_deadline(target, is_last)
            expected = expected_hashes[index] if expected_hashes else None
            if isinstance(result, Body) and expected:
                try:
                    check_hash(result.data, expected)
                except AttemptError as error:
                    return error.rejection
            return result

        async with aclosing(as_completed(hosts, self._slots, one, self._room)) as results:
            async for item in results:
                yield item

    async def _within_deadline(self, target: URL, is_last: bool) -> Body | Rejection:
        """Return the body of one URL or its rejection; the caller holds a slot of its host, which is returned here."""
        last: Rejection | None = None
        try:
            async with asyncio.timeout(self.settings.timeout_s) as deadline:
                for attempt in range(self.settings.retries + 1):
                    if attempt:
                        await self._take(target, deadline)
                    try:
                        return await self._follow(target, deadline, is_last, attempt > 0)
                    except AttemptError as error:
                        last = error.rejection
                        if not error.is_transient or attempt == self.settings.retries:
                            return last
                        wait_s = max(error.retry_after_s, backoff_s(attempt))
                    await asyncio.sleep(wait_s)
        except TimeoutError:
            pass
        return last or Rejection(Reason.TIMEOUT, "no whole answer within timeout_s")

    async def _take(self, url: URL, deadline: asyncio.Timeout) -> None:
        """Wait for a slot of a URL's host while the deadline is paused."""
        loop = asyncio.get_running_loop()
        left_s = (deadline.when() or loop.time()) - loop.time()
        deadline.reschedule(None)
        await self._slots.take(url.host or "")
        deadline.reschedule(loop.time() + left_s)

    async def _follow(self, url: URL, deadline: asyncio.Timeout, is_last: bool, is_retry: bool) -> Body:
        """Follow a URL to its body; a slot is held for each host during its request, and none when this ends."""
        read = functools.partial(read_body, settings=self.settings)
        for hop in range(MAX_REDIRECTS + 1):
            if hop:
                await self._take(url, deadline)
            try:
                if self.settings.obey_robots_txt:
                    await self._obey_robots(url)
                result = await self._exchange.get(url, read, is_last, is_retry)
            finally:
                self._slots.give(url.host or "")
            if isinstance(result, Body):
                return result
            url = result
        raise _too_many_redirects()

    async def _obey_robots(self, url: URL) -> None:
        origin = url.origin()
        rules = await self._robots.of(
            str(origin), functools.partial(self._load_robots, origin / "robots.txt")
        )
        if rules.is_empty:
            return
        usage = self.settings.disallowed_content_usage
        for target in dict.fromkeys(_spellings(url)):
            refusal = rules.refusal(target, usage)
            if refusal is not None:
                raise opted_out(refusal)

    async def _load_robots(self, url: URL) -> RobotsTxt:
        """Return a site's rules; none if it has no robots.txt.

        Raises:
            AttemptError: the server fails or cannot be reached.

        """
        rejection = Rejection(Reason.TIMEOUT, "no whole answer in time")
        try:
            async with asyncio.timeout(self.settings.timeout_s / 2):
                for attempt in range(self.settings.retries + 1):
                    try:
                        text = await self._robots_text(url, attempt > 0)
                        return RobotsTxt.parse(text, product_of(self.settings.user_agent))
                    except AttemptError as error:
                        rejection = error.rejection
                        if _has_no_robots(rejection):
                            return RobotsTxt()
                        if not error.is_transient:
                            break
                        await asyncio.sleep(max(error.retry_after_s, backoff_s(attempt)))
        except TimeoutError:
            pass
        raise AttemptError(replace(rejection, detail=f"robots.txt: {rejection.detail}"))

    async def _robots_text(self, url: URL, is_retry: bool) -> bytes:
        """Return the text; the caller holds a slot of the first host, and slots of hosts it redirects to are taken here."""
        first = url.host
        for _ in range(MAX_REDIRECTS + 1):
            if url.host != first:
                await self._slots.take(url.host or "")
            try:
                result = await self._exchange.get(url, read_robots, is_retry=is_retry)
            finally:
                if url.host != first:
                    self._slots.give(url.host or "")
            if isinstance(result, bytes):
                return result
            url = result
        raise _too_many_redirects()


def _parsed(url: str) -> URL | Rejection:
    try:
        return parse_url(url)
    except UrlRefusedError as error:
        return Rejection(Reason.BAD_URL, str(error))


def _spellings(url: URL) -> tuple[str, str]:
    """Return the target as requested, and with dots resolved and unnecessary escapes removed, as many servers read it."""
    return url.raw_path_qs, URL(str(url)).raw_path_qs


def _too_many_redirects() -> AttemptError:
    return AttemptError(Rejection(Reason.TOO_MANY_REDIRECTS, f"more than {MAX_REDIRECTS}"))


def _has_no_robots(rejection: Rejection) -> bool:
    """Return whether a response means that there are no rules (RFC 9309, 2.3.1.2 and 2.3.1.3)."""
    status = rejection.http_status or 0
    is_status = rejection.reason == Reason.HTTP_STATUS and status < 500
    return is_status or rejection.reason in (Reason.TOO_MANY_REDIRECTS, Reason.BAD_URL)
