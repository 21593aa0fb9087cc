"""The rules of sites' robots.txt, loaded once per site and cached."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from time import monotonic

from corgi.fetching.response import AttemptError
from corgi.fetching.robots_txt import RobotsTxt

KEEP_S = 24 * 3600.0
"""Longest use of a cached robots.txt (RFC 9309, 2.4), s."""
KEEP_FAILURE_S = 30.0
"""Time before a site whose robots.txt could not be loaded is requested again, s."""
MAX_WEIGHT = 500_000
"""Largest number of rules and sites in memory; the least recently loaded are dropped first."""

Load = Callable[[], Awaitable[RobotsTxt]]


class RobotsCache:
    """The rules of recently used sites; use it inside one event loop."""

    def __init__(self) -> None:
        """Start without any site."""
        self._known: OrderedDict[str, tuple[float, RobotsTxt | AttemptError]] = OrderedDict()
        self._loading: dict[str, asyncio.Event] = {}
        self._weight = 0

    async def of(self, site: str, load: Load) -> RobotsTxt:
        """Return a site's rules; the first caller loads them, and the next takes over if that one is cancelled.

        Raises:
            AttemptError: they cannot be loaded, so no URL of the site may be fetched (RFC 9309, 2.3.1.4).

        """
        while (rules := self._fresh(site)) is None:
            loading = self._loading.get(site)
            if loading is None:
                return await self._load(site, load)
            await loading.wait()
        if isinstance(rules, AttemptError):
            raise AttemptError(rules.rejection)
        return rules

    def _fresh(self, site: str) -> RobotsTxt | AttemptError | None:
        expires_at, rules = self._known.get(site, (0.0, None))
        return rules if monotonic() < expires_at else None

    async def _load(self, site: str, load: Load) -> RobotsTxt:
        event = self._loading[site] = asyncio.Event()
        try:
            rules = await load()
            self._keep(site, rules, KEEP_S)
            return rules
        except AttemptError as error:
            self._keep(site, AttemptError(error.rejection), KEEP_FAILURE_S)
            raise AttemptError(error.rejection) from error
        finally:
            del self._loading[site]
            event.set()

    def _keep(self, site: str, rules: RobotsTxt | AttemptError, seconds: float) -> None:
        self._drop(site)
        self._known[site] = (monotonic() + seconds, rules)
        self._weight += _weight(rules)
        while self._weight > MAX_WEIGHT and len(self._known) > 1:
            self._drop(next(iter(self._known)))

    def _drop(self, site: str) -> None:
        _, rules = self._known.pop(site, (0.0, None))
        if rules is not None:
            self._weight -= _weight(rules)


def _weight(rules: RobotsTxt | AttemptError) -> int:
    return rules.weight if isinstance(rules, RobotsTxt) else 1
