"""The gate before every request: a slot of its host, leased for the whole cluster, and a breaker for hosts that are down.

Slots once leased are used again and again without asking anybody, so that politeness costs a dictionary look-up a request.
"""

import asyncio
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

from corgi.fetching.lease_table import LEASE_S, Answer, Ask, HostBook

IDLE_S = 1.0
"""Time after which an unused slot is given back, s."""
POLL_S = 0.03
RENEW_S = LEASE_S / 4
MAX_BREAKERS = 20_000


class Lessor(Protocol):
    """Who leases slots: a book in this process, or the cluster's."""

    interval_s: float

    async def ask(self, ask: Ask) -> Answer:
        """Return what a fetcher is given."""
        ...


class LocalLessor:
    """A book of this process alone."""

    interval_s = 0.0

    def __init__(self) -> None:
        """Open an empty book."""
        self.book = HostBook()

    async def ask(self, ask: Ask) -> Answer:
        """Return what a fetcher is given."""
        return self.book.ask(ask, monotonic())


@dataclass
class _Local:
    """One host as this fetcher sees it: slots free, in use, and granted for a moment that is still to come."""

    free: int = 0
    used: int = 0
    pending: int = 0
    queued: int = 0
    waiters: deque[asyncio.Future[None]] = field(default_factory=deque)
    is_recalled: bool = False
    idle_since: float = 0.0

    @property
    def held(self) -> int:
        return self.free + self.used + self.pending

    @property
    def demand(self) -> int:
        return self.queued + len(self.waiters)


class HostGate:
    """Hand a fetcher's slots to its requests; lease more, renew them and give them back in the background.

    Use it inside one event loop; `release` gives everything back and ends the background task.
    """

    def __init__(self, lessor: Lessor, slots: int, delay_s: float) -> None:
        """Hold at most `slots` requests of a host in flight, started at least `delay_s` apart."""
        self.on_free: Callable[[str], None] = lambda host: None
        self._lessor = lessor
        self._slots = slots
        self._delay_s = delay_s
        self._fetcher = uuid.uuid4().hex
        self._hosts: dict[str, _Local] = {}
        self._dirty: set[str] = set()
        self._wanting: set[str] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._renewed_at = 0.0
        self._error: Exception | None = None

    def take_now(self, host: str, queued: int) -> bool:
        """Take a free slot if there is one; if not, ask for some and let `on_free` tell.

        Args:
            host: its name.
            queued: how many requests wait for it, this one included.

        Raises:
            ClusterError: the lessor cannot be reached.

        """
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        local = self._hosts.setdefault(host, _Local())
        local.queued = queued
        if local.free and not local.waiters and self._is_fresh():
            local.free -= 1
            local.used += 1
            local.queued -= 1
            return True
        self._want(host)
        return False

    async def take(self, host: str) -> None:
        """Wait for a slot.

        Raises:
            ClusterError: the lessor cannot be reached.

        """
        local = self._hosts.setdefault(host, _Local())
        if local.free and not local.waiters and self._is_fresh():
            local.free -= 1
            local.used += 1
            return
        waiter = asyncio.get_running_loop().create_future()
        local.waiters.append(waiter)
        self._want(host)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.give(host)
            else:
                with suppress(ValueError):
                    local.waiters.remove(waiter)
            raise

    def give(self, host: str) -> None:
        """Give a slot back: to the next request here, or to the lessor when it is paced or recalled."""
        local = self._hosts[host]
        local.used -= 1
        if self._delay_s or local.is_recalled:
            local.is_recalled = False
            local.idle_since = monotonic()
            self._dirty.add(host)
            if local.demand:
                self._want(host)
            self._stir()
        else:
            local.free += 1
            self._hand_on(host, local)

    async def release(self) -> None:
        """End the background task and give every slot back; requests in flight must have ended."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        held = {host: 0 for host, local in self._hosts.items() if local.held} | dict.fromkeys(self._dirty, 0)
        self._hosts.clear()
        self._dirty.clear()
        self._wanting.clear()
        if held:
            await self._lessor.ask(Ask(self._fetcher, held, {}, self._slots, self._delay_s))

    def _is_fresh(self) -> bool:
        """Say whether the lease of this fetcher still runs: a loop that stood still may have lost it."""
        if monotonic() - self._renewed_at < LEASE_S / 2:
            return True
        self._stir()
        return False

    def _want(self, host: str) -> None:
        self._wanting.add(host)
        self._stir()

    def _stir(self) -> None:
        self._wake.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._lease())

    def _hand_on(self, host: str, local: _Local) -> None:
        """Give free slots to those who wait, else say that there are some."""
        while local.free and local.waiters:
            waiter = local.waiters.popleft()
            if not waiter.done():
                local.free -= 1
                local.used += 1
                waiter.set_result(None)
        if local.free:
            local.idle_since = monotonic()
            if local.queued:
                self.on_free(host)

    async def _lease(self) -> None:
        """Talk to the lessor for as long as this fetcher works."""
        try:
            while True:
                patience_s = POLL_S if self._unmet() else IDLE_S
                with suppress(TimeoutError):
                    async with asyncio.timeout(patience_s):
                        await self._wake.wait()
                self._wake.clear()
                self._return_idle()
                if self._wanting or self._dirty or monotonic() - self._renewed_at > RENEW_S:
                    await self._ask(is_whole=monotonic() - self._renewed_at > RENEW_S)
                if self._lessor.interval_s:
                    await asyncio.sleep(self._lessor.interval_s)
        except Exception as error:  # whoever waits for a slot is told, and the next to ask starts anew
            self._task = None
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._error = error
        for waiter in [
            waiter for local in self._hosts.values() for waiter in local.waiters if not waiter.done()
        ]:
            waiter.set_exception(error)
        for host in [host for host, local in self._hosts.items() if local.queued]:
            self.on_free(host)

    def _unmet(self) -> dict[str, int]:
        """Return the further slots wanted of each host, and forget hosts that want none."""
        wants: dict[str, int] = {}
        for host in list(self._wanting):
            local = self._hosts.get(host, _Local())
            missing = min(local.demand - local.free - local.pending, self._slots - local.held)
            if missing > 0:
                wants[host] = missing
            elif local.demand <= local.free + local.pending:
                self._wanting.discard(host)
        return wants

    async def _ask(self, is_whole: bool) -> None:
        wants = self._unmet()
        named = self._hosts if is_whole else self._dirty | set(wants)
        held = {host: self._hosts[host].held if host in self._hosts else 0 for host in named}
        self._dirty.clear()
        if not held and not wants and not is_whole:
            return
        started = monotonic()
        answer = await self._lessor.ask(Ask(self._fetcher, held, wants, self._slots, self._delay_s))
        self._renewed_at = started
        for host, waits in answer.grants.items():
            self._granted(host, waits)
        for host in answer.recalled:
            self._recall(host)
        if not answer.is_known and not is_whole:
            self._renewed_at = min(started, monotonic() - RENEW_S)  # tell everything next
        if is_whole:
            for host, local in list(self._hosts.items()):
                if not local.held and not local.demand and host not in self._dirty:
                    del self._hosts[host]
                elif local.free and local.demand:
                    self._hand_on(host, local)  # who found the lease stale waits for its renewal

    def _granted(self, host: str, waits: tuple[float, ...]) -> None:
        local = self._hosts.setdefault(host, _Local())
        for wait_s in waits:
            if wait_s > 0:
                local.pending += 1
                asyncio.get_running_loop().call_later(wait_s, self._ripe, host)
            else:
                local.free += 1
        self._hand_on(host, local)

    def _ripe(self, host: str) -> None:
        local = self._hosts.get(host)
        if local is not None and local.pending:
            local.pending -= 1
            local.free += 1
            self._hand_on(host, local)

    def _recall(self, host: str) -> None:
        local = self._hosts[host]
        if local.free:
            local.free -= 1
            self._dirty.add(host)
            self._wake.set()
        else:
            local.is_recalled = True

    def _return_idle(self) -> None:
        """Give back the slots that nobody used for a while; a paced start that nobody takes is lost."""
        now = monotonic()
        for host, local in self._hosts.items():
            if local.free and not local.demand and now - local.idle_since > IDLE_S:
                local.free = 0
                self._dirty.add(host)


class Breaker:
    """Hosts that do not answer: after `max_faults` faults in a row they are asked again only every `pause_s`.

    A fault counts when nothing was heard of the host since its request began, so that slow requests which end
    together after the quick ones do not count against it. Memory holds the hosts heard of last.
    """

    def __init__(self, max_faults: int, pause_s: float) -> None:
        """Set the limits; 0 faults: never open."""
        self._max_faults = max_faults
        self._pause_s = pause_s
        self._hosts: OrderedDict[str, tuple[int, float, float]] = OrderedDict()

    def allows(self, host: str, now: float) -> bool:
        """Say whether a request may start; while the breaker is open, one may each pause."""
        faults, heard, open_until = self._hosts.get(host, (0, -1.0, 0.0))
        if not self._max_faults or faults < self._max_faults:
            return True
        if now < open_until:
            return False
        self._hosts[host] = (faults, heard, now + self._pause_s)
        return True

    def heard(self, host: str, now: float) -> None:
        """Note that the host answered."""
        self._keep(host, (0, now, 0.0))

    def failed(self, host: str, began: float, now: float) -> None:
        """Note that a request begun at `began` found nobody, or a host that says it is overloaded."""
        faults, heard, _ = self._hosts.get(host, (0, -1.0, 0.0))
        if began > heard:
            self._keep(host, (faults + 1, heard, now + self._pause_s))

    def _keep(self, host: str, state: tuple[int, float, float]) -> None:
        self._hosts[host] = state
        self._hosts.move_to_end(host)
        if len(self._hosts) > MAX_BREAKERS:
            self._hosts.popitem(last=False)
