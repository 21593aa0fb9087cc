"""The host slots that one fetcher holds and gives to its requests. A slot is the right to one request in flight to a host.

A leased slot is reused without any message, so politeness costs one dictionary look-up per request. Each host belongs to one table; a
table that does not respond delays only its own hosts.
"""

import asyncio
import zlib
from collections import ChainMap
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Protocol

from corgi.fetching.lease_client import Host, LeaseClient, Leases


class RequestQueue(Protocol):
    """Requests that wait for slots, several per host."""

    def num_queued(self, host: str) -> int:
        """Return how many requests wait for a host."""
        ...

    def unblock(self, host: str) -> None:
        """Try again to take slots of a host."""
        ...


class HostSlots:
    """Gives slots to requests; a LeaseClient per table leases, renews and returns them in the background.

    Use it inside one event loop.
    """

    def __init__(self, tables: Sequence[Leases], limit: int, delay_s: float) -> None:
        """Keep at most `limit` requests of a host in flight, started at least `delay_s` apart, by leases from the host's table."""
        self._queues: list[RequestQueue] = []
        self.delay_s = delay_s
        self.clients = [LeaseClient(leases, self, limit, delay_s) for leases in tables]
        self._error: Exception | None = None
        self._releasing = asyncio.Lock()

    @property
    def num_tables(self) -> int:
        """Return the number of tables."""
        return len(self.clients)

    @property
    def hosts(self) -> Mapping[str, Host]:
        """Return the hosts with slots that are held or waited for, over all tables."""
        return ChainMap(*(client.hosts for client in self.clients))

    def table_of(self, host: str) -> int:
        """Return the number of a host's table, the same in every process."""
        return zlib.crc32(host.encode()) % len(self.clients)

    @asynccontextmanager
    async def serving(self, queue: RequestQueue) -> AsyncIterator[None]:
        """Unblock a queue when slots become free, while the block runs; the last block to end returns all slots."""
        async with self._releasing:  # slots that a block takes during a release would be returned too
            self._queues.append(queue)
        try:
            yield
        finally:
            self._queues.remove(queue)
            async with self._releasing:
                if not self._queues:
                    await self.release()

    def take_now(self, host: str) -> bool:
        """Take a free slot, or request one and return False; the queue is unblocked when a slot is available.

        Raises:
            ClusterError: the lease actor cannot be reached.

        """
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        if self._take_free(host):
            return True
        self._client_of(host).want(host)
        return False

    async def take(self, host: str) -> None:
        """Wait for a slot.

        Raises:
            ClusterError: the lease actor cannot be reached.

        """
        if self._take_free(host):
            return
        client, waiter = self._client_of(host), asyncio.get_running_loop().create_future()
        state = client.hosts[host]
        state.waiters.append(waiter)
        client.want(host)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.give(host)
            else:
                with suppress(ValueError):
                    state.waiters.remove(waiter)
            raise

    def give(self, host: str) -> None:
        """Return a slot: to the next request here, or to the lease table if the host is paced or the slot recalled."""
        client = self._client_of(host)
        state = client.hosts[host]
        state.used -= 1
        if self.delay_s > 0 or state.is_recalled:
            state.is_recalled = False
            client.report(host)
            if self.demand(host):
                client.want(host)
        else:
            state.free += 1
            self.hand_on(host)

    async def release(self) -> None:
        """Return all slots and end the background tasks; requests in flight must have ended."""
        await asyncio.gather(*(client.release() for client in self.clients))

    def demand(self, host: str) -> int:
        """Return how many requests wait for a slot of a host."""
        state = self._client_of(host).hosts.get(host)
        return (len(state.waiters) if state else 0) + sum(queue.num_queued(host) for queue in self._queues)

    def hand_on(self, host: str) -> None:
        """Give free slots to waiting requests, then unblock the queues."""
        state = self._client_of(host).hosts[host]
        while state.free and state.waiters:
            waiter = state.waiters.popleft()
            if not waiter.done():
                state.free -= 1
                state.used += 1
                waiter.set_result(None)
        if state.free:
            state.idle_since = monotonic()
            for queue in self._queues:
                queue.unblock(host)

    def fail(self, error: Exception) -> None:
        """Raise an error in every waiting request."""
        self._error = error
        for host, state in self.hosts.items():
            for waiter in state.waiters:
                if not waiter.done():
                    waiter.set_exception(error)
            for queue in self._queues:
                queue.unblock(host)

    def _client_of(self, host: str) -> LeaseClient:
        return self.clients[self.table_of(host)]

    def _take_free(self, host: str) -> bool:
        client = self._client_of(host)
        state = client.hosts.setdefault(host, Host())
        if not state.free or state.waiters or not client.is_fresh():
            return False
        state.free -= 1
        state.used += 1
        return True
