"""Which URL is requested next, and how many are in flight: a slow host delays its own URLs only."""

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from corgi.fetching.host_slots import HostSlots

AHEAD = 2
"""Hosts whose slots a fetcher waits for, per request it may have in flight; a host's delay adds as many per second."""
_Result = TypeVar("_Result")


class Schedule:
    """Which URL is next: the first one left of each host that has a free slot, hosts in rotation."""

    def __init__(self, hosts: Sequence[str | None], slots: HostSlots, ahead: int) -> None:
        """Queue the URLs of each host by index; None: no host is contacted, so no slot is needed. Slots of at most `ahead` hosts are waited for."""
        self._slots = slots
        self._ahead = ahead
        self._queues: dict[str, deque[int]] = {}
        self._free = deque(index for index, host in enumerate(hosts) if host is None)
        for index, host in enumerate(hosts):
            if host is not None:
                self._queues.setdefault(host, deque()).append(index)
        self._ready = deque(self._queues)
        self._blocked: set[str] = set()

    @property
    def is_over(self) -> bool:
        """Return whether every URL was started."""
        return not self._queues and not self._free

    def num_queued(self, host: str) -> int:
        """Return how many URLs of a host are left."""
        return len(self._queues.get(host, ()))

    def next_now(self) -> tuple[int, bool] | None:
        """Return the next URL's index, its slot taken, and whether it is its host's last; None if all must wait."""
        if self._free:
            return self._free.popleft(), True
        while self._ready and len(self._blocked) < self._ahead:
            host = self._ready.popleft()
            queue = self._queues[host]
            if not self._slots.take_now(host):
                self._blocked.add(host)
                continue
            index = queue.popleft()
            if queue:
                self._ready.append(host)
            else:
                del self._queues[host]
            return index, not queue
        return None

    def unblock(self, host: str) -> bool:
        """Try a host again, next of all: its slot should not wait for a turn; return whether it was blocked."""
        if host not in self._blocked:
            return False
        self._blocked.discard(host)
        self._ready.appendleft(host)
        return True


class InFlight(Generic[_Result]):
    """At most `width` URLs in flight or waiting for the consumer; each starts as soon as it may and is returned as it ends."""

    def __init__(
        self, schedule: Schedule, fetch: Callable[[int, bool], Awaitable[_Result]], width: int
    ) -> None:
        """Fetch an index by `fetch(index, is_last_of_host)`."""
        self._schedule = schedule
        self._fetch = fetch
        self._width = width
        self._done: asyncio.Queue[tuple[int, _Result] | Exception | None] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._num_started = 0

    async def next(self) -> tuple[int, _Result] | None:
        """Return the next result, or None after the last; what `fetch` raises is raised here."""
        while True:
            self._launch()
            if self._schedule.is_over and not self._num_started:
                return None
            item = await self._done.get()
            if isinstance(item, Exception):
                raise item
            if item is not None:
                self._num_started -= 1
                return item

    def num_queued(self, host: str) -> int:
        """Return how many URLs of a host are left."""
        return self._schedule.num_queued(host)

    def unblock(self, host: str) -> None:
        """Try again to start a host's URLs."""
        if self._schedule.unblock(host):
            self._done.put_nowait(None)

    async def cancel(self) -> None:
        """Cancel what is in flight."""
        left = list(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _launch(self) -> None:
        while self._num_started < self._width and (started := self._schedule.next_now()) is not None:
            self._num_started += 1
            task = asyncio.create_task(self._one(*started))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _one(self, index: int, is_last: bool) -> None:
        try:
            item: tuple[int, _Result] | Exception = (index, await self._fetch(index, is_last))
        except Exception as error:  # handed to the consumer, who raises it
            item = error
        self._done.put_nowait(item)


async def as_completed(
    hosts: Sequence[str | None],
    slots: HostSlots,
    fetch: Callable[[int, bool], Awaitable[_Result]],
    width: int,
) -> AsyncGenerator[tuple[int, _Result], None]:
    """Yield (index, what `fetch(index, is_last_of_host)` returned) as each ends; at most `width` are started and not yielded.

    A slow consumer delays new requests. What `fetch` raises is raised here.
    """
    ahead = math.ceil(width * (AHEAD + slots.delay_s))
    in_flight = InFlight(Schedule(hosts, slots, ahead), fetch, width)
    async with slots.serving(in_flight):
        try:
            while (item := await in_flight.next()) is not None:
                yield item
        finally:
            await in_flight.cancel()
