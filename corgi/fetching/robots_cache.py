"""What sites' robots.txt say, asked for once a site and kept for a while."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from time import monotonic

from corgi.fetching.response import StopError
from corgi.fetching.robots_txt import RobotsTxt

KEEP_S = 24 * 3600.0
"""Longest use of an answer (RFC 9309, 2.4), s."""
KEEP_FAILURE_S = 30.0
"""Time for which a site whose robots.txt cannot be had is not asked again, s."""
MAX_WEIGHT = 500_000
"""Rules and sites held in memory; those asked for longest ago go first."""

Load = Callable[[], Awaitable[RobotsTxt]]


class RobotsCache:
    """The rules of the sites asked for last; use it inside one event loop."""

    def __init__(self) -> None:
        """Start with no site."""
        self._known: OrderedDict[str, tuple[float, RobotsTxt | StopError]] = OrderedDict()
        self._loading: dict[str, asyncio.Event] = {}
        self._weight = 0

    async def of(self, site: str, load: Load) -> RobotsTxt:
        """Return a site's rules; the first who asks loads them, and the next takes over if that one is cancelled.

        Raises:
            StopError: they cannot be had, so that nothing of the site may be fetched (RFC 9309, 2.3.1.4).

        """
        while (found := self._fresh(site)) is None:
            loading = self._loading.get(site)
            if loading is None:
                return await self._load(site, load)
            await loading.wait()
        if isinstance(found, StopError):
            raise StopError(found.outcome)
        return found

    def _fresh(self, site: str) -> RobotsTxt | StopError | None:
        expires_at, found = self._known.get(site, (0.0, None))
        return found if monotonic() < expires_at else None

    async def _load(self, site: str, load: Load) -> RobotsTxt:
        event = self._loading[site] = asyncio.Event()
        try:
            rules = await load()
            self._keep(site, rules, KEEP_S)
            return rules
        except StopError as stop:
            self._keep(site, StopError(stop.outcome), KEEP_FAILURE_S)
            raise StopError(stop.outcome) from stop
        finally:
            del self._loading[site]
            event.set()

    def _keep(self, site: str, found: RobotsTxt | StopError, seconds: float) -> None:
        self._drop(site)
        self._known[site] = (monotonic() + seconds, found)
        self._weight += _weight(found)
        while self._weight > MAX_WEIGHT and len(self._known) > 1:
            self._drop(next(iter(self._known)))

    def _drop(self, site: str) -> None:
        _, found = self._known.pop(site, (0.0, None))
        if found is not None:
            self._weight -= _weight(found)


def _weight(found: RobotsTxt | StopError) -> int:
    return found.weight if isinstance(found, RobotsTxt) else 1
