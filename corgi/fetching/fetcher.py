"""Fetch many URLs politely: deadlines, attempts, redirects, robots.txt and slots of hosts around each guarded exchange."""

import asyncio
import functools
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from types import TracebackType
from typing import Self

from yarl import URL

from corgi.fetching.address import UrlRefusedError, parse_url
from corgi.fetching.exchange import Exchange, read_picture, read_robots
from corgi.fetching.host_slots import HostGate, Lessor, LocalLessor
from corgi.fetching.response import Fetched, StopError, backoff_s, check_hash, opted_out
from corgi.fetching.robots import product_of
from corgi.fetching.robots_cache import RobotsCache
from corgi.fetching.robots_txt import RobotsTxt
from corgi.fetching.scheduler import Turns, rolling
from corgi.settings.data import DownloadSettings
from corgi.tables.schema import Reason

MAX_REDIRECTS = 5


class Fetcher:
    """Fetch URLs through one session: one TLS context, kept-alive connections, one name cache, one gate of host slots.

    Use it inside one event loop; `close` it there.
    """

    def __init__(self, settings: DownloadSettings, lessor: Lessor | None = None) -> None:
        """Prepare for the settings; slots of hosts come from `lessor`, or from a book of this fetcher's own."""
        self.settings = settings
        self._exchange = Exchange(settings)
        self._gate = HostGate(lessor or LocalLessor(), settings.host_connections, settings.host_delay_s)
        self._robots = RobotsCache()

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
        await self._gate.release()
        await self._exchange.close()

    async def fetch(self, url: str, expected_hash: str | None = None) -> Fetched:
        """Return a URL's body or the reason there is none, as `fetch_all` does for many."""
        async with aclosing(self.fetch_all([url], [expected_hash])) as window:
            async for _, fetched in window:
                return fetched
        raise AssertionError("a window yields every URL")

    async def fetch_all(
        self, urls: Sequence[str], expected_hashes: Sequence[str | None] | None = None
    ) -> AsyncGenerator[tuple[int, Fetched], None]:
        """Yield (index, outcome) of every URL as each ends, with at most `connections` in flight.

        A URL costs at most `timeout_s`: redirects, robots.txt, further attempts and the waits between them included, but
        not its wait for a slot of its host. A slow host holds its own places, no others; a slow consumer holds new requests
        back. An expected hash is written `sha256:hex` or `md5:hex`.

        Raises:
            ClusterError: the book of host slots does not answer, or no file can be opened any more.

        """
        targets = [_parsed(url) for url in urls]
        hosts = [None if isinstance(target, Fetched) else target.host for target in targets]

        async def one(index: int, is_last: bool) -> Fetched:
            target = targets[index]
            if isinstance(target, Fetched):
                return target
            found = await self._within_deadline(target, is_last)
            expected = expected_hashes[index] if expected_hashes else None
            if found.body is not None and expected:
                try:
                    check_hash(found.body, expected)
                except StopError as stop:
                    return stop.outcome
            return found

        async with aclosing(
            rolling(Turns(hosts, self._gate), self._gate, one, self.settings.connections)
        ) as window:
            async for item in window:
                yield item

    async def _within_deadline(self, target: URL, is_last: bool) -> Fetched:
        """Return the outcome of one URL, whose host's slot is held and given back here."""
        last: Fetched | None = None
        try:
            async with asyncio.timeout(self.settings.timeout_s) as deadline:
                for attempt in range(self.settings.retries + 1):
                    if attempt:
                        await self._take(target, deadline)
                    try:
                        return await self._follow(target, deadline, is_last)
                    except StopError as stop:
                        last = stop.outcome
                        if not stop.is_passing or attempt == self.settings.retries:
                            return last
                        wait_s = max(stop.retry_after_s, backoff_s(attempt))
                    await asyncio.sleep(wait_s)
        except TimeoutError:
            pass
        return last or Fetched(reason=Reason.TIMEOUT, detail="no whole answer within timeout_s")

    async def _take(self, url: URL, deadline: asyncio.Timeout) -> None:
        """Wait for a slot of a URL's host with the deadline standing still."""
        loop = asyncio.get_running_loop()
        left_s = (deadline.when() or loop.time()) - loop.time()
        deadline.reschedule(None)
        await self._gate.take(url.host or "")
        deadline.reschedule(loop.time() + left_s)

    async def _follow(self, url: URL, deadline: asyncio.Timeout, is_last: bool) -> Fetched:
        """Follow a URL to its body; a slot is held for each host while it is asked, and none when this ends."""
        read = functools.partial(read_picture, settings=self.settings)
        for hop in range(MAX_REDIRECTS + 1):
            if hop:
                await self._take(url, deadline)
            try:
                if self.settings.obey_robots_txt:
                    await self._obey_robots(url)
                answer = await self._exchange.get(url, read, is_last)
            finally:
                self._gate.give(url.host or "")
            if isinstance(answer, Fetched):
                return answer
            url = answer
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
        """Return a site's rules, none when it says that it has no robots.txt.

        Raises:
            StopError: its server or the way to it is broken.

        """
        outcome = Fetched(reason=Reason.TIMEOUT, detail="no whole answer in time")
        try:
            async with asyncio.timeout(self.settings.timeout_s / 2):
                for attempt in range(self.settings.retries + 1):
                    try:
                        text = await self._robots_text(url)
                        return RobotsTxt.parse(text, product_of(self.settings.user_agent))
                    except StopError as stop:
                        outcome = stop.outcome
                        if _has_no_robots(outcome):
                            return RobotsTxt()
                        if not stop.is_passing:
                            break
                        await asyncio.sleep(max(stop.retry_after_s, backoff_s(attempt)))
        except TimeoutError:
            pass
        raise StopError(replace(outcome, detail=f"robots.txt: {outcome.detail}"))

    async def _robots_text(self, url: URL) -> bytes:
        """Return the text; the first host's slot is that of whoever asks, further hosts' are taken here."""
        first = url.host
        for _ in range(MAX_REDIRECTS + 1):
            if url.host != first:
                await self._gate.take(url.host or "")
            try:
                answer = await self._exchange.get(url, read_robots)
            finally:
                if url.host != first:
                    self._gate.give(url.host or "")
            if isinstance(answer, bytes):
                return answer
            url = answer
        raise _too_many_redirects()


def _parsed(url: str) -> URL | Fetched:
    try:
        return parse_url(url)
    except UrlRefusedError as error:
        return Fetched(reason=Reason.BAD_URL, detail=str(error))


def _spellings(url: URL) -> tuple[str, str]:
    """Return the target as it is asked for, and with dots resolved and needless escapes undone, as many servers read it."""
    return url.raw_path_qs, URL(str(url)).raw_path_qs


def _too_many_redirects() -> StopError:
    return StopError(Fetched(reason=Reason.TOO_MANY_REDIRECTS, detail=f"more than {MAX_REDIRECTS}"))


def _has_no_robots(outcome: Fetched) -> bool:
    """Say whether an answer means that there are no rules (RFC 9309, 2.3.1.2 and 2.3.1.3)."""
    status = outcome.http_status or 0
    is_status = outcome.reason == Reason.HTTP_STATUS and status < 500
    return is_status or outcome.reason in (Reason.TOO_MANY_REDIRECTS, Reason.BAD_URL)
