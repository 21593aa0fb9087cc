"""Which URL is requested next, and how many are in flight: a slow host delays only its own URLs."""

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar

from corgi.fetching.host_slots import HostSlots

AHEAD = 2
"""Number of hosts for whose slots a fetcher waits, per request that it may have in flight; each second of host delay adds 1."""
_Result = TypeVar("_Result")


class Schedule:
    """The order of URLs: the next is the first remaining URL of a host with a free slot; tables take turns, and so do the hosts of each."""

    def __init__(self, hosts: Sequence[str | None], slots: HostSlots, ahead: int) -> None:
        """Queue the URLs of each host by index; None: no host is contacted, so no slot is needed.

        At most `ahead` hosts are waited for, the same number in each table, so that a table that does not respond delays only its own hosts.
        """
        self._slots = slots
        self._ahead = math.ceil(ahead / slots.num_tables)
        self._queues: dict[str, deque[int]] = {}
        self._free = deque(index for index, host in enumerate(hosts) if host is None)
        for index, host in enumerate(hosts):
            if host is not None:
                self._queues.setdefault(host, deque()).append(index)
        self._ready = [deque[str]() for _ in range(slots.num_tables)]
        for host in self._queues:
            self._ready[slots.table_of(host)].append(host)
        self._blocked = [set[str]() for _ in range(slots.num_tables)]
        self._table = 0

    @property
    def is_over(self) -> bool:
        """Return whether all URLs were started."""
        return not self._queues and not self._free

    @property
    def has_next(self) -> bool:
        """Return whether a URL may be started now, or a slot requested."""
        tables = zip(self._ready, self._blocked, strict=True)
        return bool(self._free) or any(ready and len(blocked) < self._ahead for ready, blocked in tables)

    def num_queued(self, host: str) -> int:
        """Return how many URLs of a host have not been started."""
        return len(self._queues.get(host, ()))

    def next_now(self) -> tuple[int, bool] | None:
        """Take a slot and return the next URL's index and whether it is its host's last; None if all must wait."""
        if self._free:
            return self._free.popleft(), True
        for _ in self._ready:
            self._table = (self._table + 1) % len(self._ready)
            if (started := self._next_of(self._table)) is not None:
                return started
        return None

    def unblock(self, host: str) -> bool:
        """Put a host first in its table, so that its free slot is used at once; return whether it was blocked."""
        table = self._slots.table_of(host)
        if host not in self._blocked[table]:
            return False
        self._blocked[table].discard(host)
        self._ready[table].appendleft(host)
        return True

    def _next_of(self, table: int) -> tuple[int, bool] | None:
        ready, blocked = self._ready[table], self._blocked[table]
        while ready and len(blocked) < self._ahead:
            host = ready.popleft()
            queue = self._queues[host]
            if not self._slots.take_now(host):
                blocked.add(host)
                continue
            index = queue.popleft()
            if queue:
                ready.append(host)
            else:
                del self._queues[host]
            return index, not queue
        return None


class Starter(Protocol):
    """A list whose URLs are started within a room."""

    @property
    def has_next(self) -> bool:
        """Return whether it could start a URL now."""
        ...

    def wake(self) -> None:
        """Let it start what it can."""
        ...


class Room:
    """At most `width` URLs in flight or waiting for their consumers, over all lists of a fetcher.

    A list that was begun earlier has priority: later lists use the places that it leaves free, as when only its slow hosts remain.
    """

    def __init__(self, width: int) -> None:
        """Start empty."""
        self.width = width
        self._num_taken = 0
        self._starters: list[Starter] = []

    def enter(self, starter: Starter) -> None:
        """Add a list with lower priority than those already in the room."""
        self._starters.append(starter)

    def leave(self, starter: Starter, num_places: int) -> None:
        """Remove a list and free its places."""
        self._starters.remove(starter)
        self.give(num_places)

    def is_free_for(self, starter: Starter) -> bool:
        """Return whether a list may start a URL."""
        earlier = self._starters[: self._starters.index(starter)]
        return self._num_taken < self.width and not any(other.has_next for other in earlier)

    def take(self) -> None:
        """Take a free place."""
        self._num_taken += 1

    def give(self, num_places: int = 1) -> None:
        """Free places."""
        self._num_taken -= num_places
        self.offer()

    def offer(self) -> None:
        """Wake the first list that could use a free place."""
        if self._num_taken < self.width:
            for starter in self._starters:
                if starter.has_next:
                    starter.wake()
                    return


class InFlight(Generic[_Result]):
    """The URLs of one list in a room; each is started as soon as possible, and its result is returned as soon as it ends."""

    def __init__(
        self, schedule: Schedule, fetch: Callable[[int, bool], Awaitable[_Result]], room: Room
    ) -> None:
        """Take the function `fetch(index, is_last_of_host)`, which fetches the URL with an index."""
        self._schedule = schedule
        self._fetch = fetch
        self._room = room
        self._done: asyncio.Queue[tuple[int, _Result] | Exception | None] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._num_started = 0
        self._is_woken = False

    @property
    def has_next(self) -> bool:
        """Return whether a URL could be started now."""
        return self._schedule.has_next

    async def next(self) -> tuple[int, _Result] | None:
        """Return the next result, or None after the last; exceptions of `fetch` are raised here."""
        while True:
            self._launch()
            if self._schedule.is_over and not self._num_started:
                return None
            item = await self._done.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                self._is_woken = False
                continue
            self._num_started -= 1
            self._room.give()
            return item

    def num_queued(self, host: str) -> int:
        """Return how many URLs of a host have not been started."""
        return self._schedule.num_queued(host)

    def unblock(self, host: str) -> None:
        """Try again to start a host's URLs."""
        if self._schedule.unblock(host):
            self.wake()

    def wake(self) -> None:
        """Let the consumer start the URLs that it can."""
        if not self._is_woken:
            self._is_woken = True
            self._done.put_nowait(None)

    async def cancel(self) -> None:
        """Cancel the requests in flight and leave the room."""
        left = list(self._tasks)
        for task in left:
            task.cancel()
        try:
            await asyncio.gather(*left, return_exceptions=True)
        finally:
            self._room.leave(self, self._num_started)

    def _launch(self) -> None:
        while self._room.is_free_for(self) and (started := self._schedule.next_now()) is not None:
            self._num_started += 1
            self._room.take()
            task = asyncio.create_task(self._one(*started))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._room.offer()

    async def _one(self, index: int, is_last: bool) -> None:
        try:
            item: tuple[int, _Result] | Exception = (index, await self._fetch(index, is_last))
        except Exception as error:  # passed to the consumer, which raises it
            item = error
        self._done.put_nowait(item)


async def as_completed(
    hosts: Sequence[str | None],
    slots: HostSlots,
    fetch: Callable[[int, bool], Awaitable[_Result]],
    room: Room,
) -> AsyncGenerator[tuple[int, _Result], None]:
    """Yield (index, result of `fetch(index, is_last_of_host)`) as each ends; URLs that were started but not yielded take places in the room.

    A slow consumer delays new requests. Exceptions of `fetch` are raised here.
    """
    ahead = math.ceil(room.width * (AHEAD + slots.delay_s))
    in_flight = InFlight(Schedule(hosts, slots, ahead), fetch, room)
    async with slots.serving(in_flight):
        room.enter(in_flight)
        try:
            while (item := await in_flight.next()) is not None:
                yield item
        finally:
            await in_flight.cancel()
