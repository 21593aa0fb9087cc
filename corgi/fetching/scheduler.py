"""Which URL is requested next, and how many are in flight: a slow host delays its own URLs only."""

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar

from corgi.fetching.host_slots import HostSlots

AHEAD = 2
"""Hosts whose slots a fetcher waits for, per request it may have in flight; a host's delay adds as many per second."""
_Result = TypeVar("_Result")


class Schedule:
    """Which URL is next: the first one left of each host that has a free slot, tables in rotation, and the hosts of each."""

    def __init__(self, hosts: Sequence[str | None], slots: HostSlots, ahead: int) -> None:
        """Queue the URLs of each host by index; None: no host is contacted, so no slot is needed.

        Slots of at most `ahead` hosts are waited for, as many of each table: one that does not respond delays its own hosts only.
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
        """Return whether every URL was started."""
        return not self._queues and not self._free

    @property
    def has_next(self) -> bool:
        """Return whether a URL may be started now, or a host asked for."""
        tables = zip(self._ready, self._blocked, strict=True)
        return bool(self._free) or any(ready and len(blocked) < self._ahead for ready, blocked in tables)

    def num_queued(self, host: str) -> int:
        """Return how many URLs of a host are left."""
        return len(self._queues.get(host, ()))

    def next_now(self) -> tuple[int, bool] | None:
        """Return the next URL's index, its slot taken, and whether it is its host's last; None if all must wait."""
        if self._free:
            return self._free.popleft(), True
        for _ in self._ready:
            self._table = (self._table + 1) % len(self._ready)
            if (started := self._next_of(self._table)) is not None:
                return started
        return None

    def unblock(self, host: str) -> bool:
        """Try a host again, next of all: its slot should not wait for a turn; return whether it was blocked."""
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
    """Who starts URLs in a room."""

    @property
    def has_next(self) -> bool:
        """Return whether it could start one now."""
        ...

    def wake(self) -> None:
        """Let it start what it can."""
        ...


class Room:
    """At most `width` URLs in flight or waiting for their consumers, over all lists that a fetcher has in hand.

    A list that was begun earlier goes first: the next has the places that it leaves free, as when only slow hosts are left of it.
    """

    def __init__(self, width: int) -> None:
        """Start empty."""
        self.width = width
        self._num_taken = 0
        self._starters: list[Starter] = []

    def enter(self, starter: Starter) -> None:
        """Let a list be started after those that are here."""
        self._starters.append(starter)

    def leave(self, starter: Starter, num_places: int) -> None:
        """Take a list out, with the places that it has."""
        self._starters.remove(starter)
        self.give(num_places)

    def is_free_for(self, starter: Starter) -> bool:
        """Return whether a list may start a URL."""
        earlier = self._starters[: self._starters.index(starter)]
        return self._num_taken < self.width and not any(other.has_next for other in earlier)

    def take(self) -> None:
        """Take a place that is free."""
        self._num_taken += 1

    def give(self, num_places: int = 1) -> None:
        """Give places back."""
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
    """The URLs of one list in a room; each starts as soon as it may and is returned as it ends."""

    def __init__(
        self, schedule: Schedule, fetch: Callable[[int, bool], Awaitable[_Result]], room: Room
    ) -> None:
        """Fetch an index by `fetch(index, is_last_of_host)`."""
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
        """Return the next result, or None after the last; what `fetch` raises is raised here."""
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
        """Return how many URLs of a host are left."""
        return self._schedule.num_queued(host)

    def unblock(self, host: str) -> None:
        """Try again to start a host's URLs."""
        if self._schedule.unblock(host):
            self.wake()

    def wake(self) -> None:
        """Let the consumer start what it can."""
        if not self._is_woken:
            self._is_woken = True
            self._done.put_nowait(None)

    async def cancel(self) -> None:
        """Cancel what is in flight and leave the room."""
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
        except Exception as error:  # handed to the consumer, who raises it
            item = error
        self._done.put_nowait(item)


async def as_completed(
    hosts: Sequence[str | None],
    slots: HostSlots,
    fetch: Callable[[int, bool], Awaitable[_Result]],
    room: Room,
) -> AsyncGenerator[tuple[int, _Result], None]:
    """Yield (index, what `fetch(index, is_last_of_host)` returned) as each ends; those started and not yielded are in the room.

    A slow consumer delays new requests. What `fetch` raises is raised here.
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
