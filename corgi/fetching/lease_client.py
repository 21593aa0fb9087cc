"""Leases slots for one fetcher: requests, renews and returns them. The table is in this process or in the cluster's lease actor."""

import asyncio
import functools
import uuid
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

from corgi.fetching.lease_table import LEASE_S, LeaseRequest, LeaseResponse, LeaseTable

IDLE_S = 1.0
"""Time after which an unused slot is returned, s."""
POLL_S = 0.03
RENEW_S = LEASE_S / 4


class Leases(Protocol):
    """A source of leases: a table in this process, or one of the cluster's lease actors."""

    interval_s: float

    async def lease(self, request: LeaseRequest) -> LeaseResponse:
        """Return what the table grants."""
        ...


class LocalLeases:
    """A lease table of this process only."""

    interval_s = 0.0

    def __init__(self) -> None:
        """Start with an empty table."""
        self.table = LeaseTable()

    async def lease(self, request: LeaseRequest) -> LeaseResponse:
        """Return what the table grants."""
        return self.table.lease(request, monotonic())


@dataclass
class Host:
    """The slots of one host that a fetcher holds: free, in use, and granted for a later time."""

    free: int = 0
    used: int = 0
    pending: int = 0
    waiters: deque[asyncio.Future[None]] = field(default_factory=deque)
    is_recalled: bool = False
    idle_since: float = 0.0

    @property
    def held(self) -> int:
        """Number of all leased slots."""
        return self.free + self.used + self.pending


class Holder(Protocol):
    """The user of the slots (`HostSlots`)."""

    def demand(self, host: str) -> int:
        """Return how many requests wait for a slot of a host."""
        ...

    def hand_on(self, host: str) -> None:
        """Give free slots to waiting requests."""
        ...

    def fail(self, error: Exception) -> None:
        """Raise an error at every waiting request."""
        ...


class LeaseClient:
    """The slots of one table's hosts that a holder has.

    A background task leases, renews and returns them; it ends with `release` or an error.
    """

    def __init__(self, leases: Leases, holder: Holder, limit: int, delay_s: float) -> None:
        """Lease at most `limit` slots of a host, whose requests start at least `delay_s` apart."""
        self.hosts: dict[str, Host] = {}
        self._leases = leases
        self._holder = holder
        self._limit = limit
        self._request = functools.partial(LeaseRequest, uuid.uuid4().hex, limit=limit, delay_s=delay_s)
        self._changed: set[str] = set()
        self._wanted: set[str] = set()
        self._waiting: set[str] = set()
        self._is_reported = False
        self._since: float | None = None
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._renewed_at = 0.0

    def want(self, host: str) -> None:
        """Lease more slots of a host."""
        self._wanted.add(host)
        self._start()

    def report(self, host: str) -> None:
        """Report that fewer slots of a host are held."""
        self._changed.add(host)
        self._start()

    def is_fresh(self) -> bool:
        """Return whether the lease is certainly valid; it may have expired while the event loop was blocked."""
        if monotonic() - self._renewed_at < LEASE_S / 2:
            return True
        self._start()
        return False

    async def release(self) -> None:
        """End the background task and return all slots."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self.hosts.clear()
        for hosts in (self._changed, self._wanted, self._waiting):
            hosts.clear()
        is_reported, self._is_reported = self._is_reported, False
        if is_reported:
            await self._leases.lease(self._request({}, {}))

    def _start(self) -> None:
        self._wake.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S if self._missing() else IDLE_S):
                        await self._wake.wait()
                self._wake.clear()
                self._return_idle()
                is_due = monotonic() - self._renewed_at > RENEW_S
                if self._wanted or self._changed or is_due or not self._is_reported:
                    await self._lease(is_due)
                if self._leases.interval_s:
                    await asyncio.sleep(self._leases.interval_s)
        except Exception as error:  # raised in the waiting requests; the next request starts a new task
            self._task = None
            self._holder.fail(error)

    def _missing(self) -> dict[str, int]:
        """Return the number of additional slots needed per host, and forget hosts that need none."""
        missing: dict[str, int] = {}
        for host in list(self._wanted):
            state, demand = self.hosts.get(host, Host()), self._holder.demand(host)
            number = min(demand - state.free - state.pending, self._limit - state.held)
            if number > 0:
                missing[host] = number
            elif demand <= state.free + state.pending:
                self._wanted.discard(host)
                if host in self._waiting:  # the next report tells the table that no request waits any more
                    self._waiting.discard(host)
                    self._changed.add(host)
        return missing

    async def _lease(self, is_due: bool) -> None:
        """Send one request: it names the hosts that changed or need slots, none to only renew the lease, all if the table may not know this fetcher."""
        hosts, missing, is_whole = self.hosts, self._missing(), not self._is_reported
        changed, self._changed = self._changed | set(missing), set()
        named = changed | set(hosts) if is_whole else changed
        if not named and not is_due:
            return
        held = {host: hosts[host].held if host in hosts else 0 for host in named}
        started = monotonic()
        try:
            response = await self._leases.lease(
                self._request(held, missing, is_whole=is_whole, since=self._since)
            )
        except (
            BaseException
        ):  # it is unknown whether the table received it, so the next request reports these hosts again
            self._changed |= changed
            raise
        self._renewed_at, self._since = started, response.since
        self._is_reported = is_whole or response.is_known
        if not response.is_known:
            self._lose_free()
        for host, waits in response.grants.items():
            self._grant(host, waits)
        short = {host for host, number in missing.items() if len(response.grants.get(host, ())) < number}
        self._waiting = self._waiting - set(missing) | short
        for host in response.recalled:
            self._recall(host)
        if not self._is_reported:
            self._wake.set()
        if is_due or not response.is_known:
            self._after_renewal()

    def _lose_free(self) -> None:
        """Give up unused slots: the table did not know of them and may have granted them to others."""
        for host, state in self.hosts.items():
            if state.free:
                state.free = 0
                self._changed.add(host)
                if self._holder.demand(host):
                    self._wanted.add(host)

    def _after_renewal(self) -> None:
        """Forget unused hosts; requests that saw an expired lease are waiting for this renewal."""
        for host, state in list(self.hosts.items()):
            demand = self._holder.demand(host)
            if not state.held and not demand and host not in self._changed:
                del self.hosts[host]
            elif state.free and demand:
                self._holder.hand_on(host)

    def _grant(self, host: str, waits: tuple[float, ...]) -> None:
        state = self.hosts.setdefault(host, Host())
        for wait_s in waits:
            if wait_s > 0:
                state.pending += 1
                asyncio.get_running_loop().call_later(wait_s, self._mature, host)
            else:
                state.free += 1
        self._holder.hand_on(host)

    def _mature(self, host: str) -> None:
        """Free a slot whose start time has come."""
        state = self.hosts.get(host)
        if state is not None and state.pending:
            state.pending -= 1
            state.free += 1
            self._holder.hand_on(host)

    def _recall(self, host: str) -> None:
        """Return a slot for which other fetchers wait: now, or when its request ends."""
        state = self.hosts.get(host, Host())
        if state.free:
            state.free -= 1
            self.report(host)
        elif state.held:
            state.is_recalled = True

    def _return_idle(self) -> None:
        """Return slots that were unused for IDLE_S; a paced start that no request used is lost."""
        now = monotonic()
        for host, state in self.hosts.items():
            if state.free and not self._holder.demand(host) and now - state.idle_since > IDLE_S:
                state.free = 0
                self._changed.add(host)
