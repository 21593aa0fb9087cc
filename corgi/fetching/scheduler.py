"""A rolling window over a list of URLs: what is slow or must wait holds its own place, never that of others."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from corgi.fetching.host_slots import HostGate

_Found = TypeVar("_Found")


class Turns:
    """Which URL is next: the first one left of each host that has a free slot, hosts in turn."""

    def __init__(self, hosts: Sequence[str | None], gate: HostGate) -> None:
        """Queue the URLs of each host by index; None: no host will be asked, so that no slot is needed."""
        self._gate = gate
        self._queues: dict[str, deque[int]] = {}
        self._free = deque(index for index, host in enumerate(hosts) if host is None)
        for index, host in enumerate(hosts):
            if host is not None:
                self._queues.setdefault(host, deque()).append(index)
        self._ready = deque(self._queues)
        self._blocked: set[str] = set()

    @property
    def is_over(self) -> bool:
        """Say whether every URL had its turn."""
        return not self._queues and not self._free

    def next_now(self) -> tuple[int, bool] | None:
        """Return the next URL's index, its slot taken, and whether it is its host's last; None when all must wait."""
        if self._free:
            return self._free.popleft(), True
        while self._ready:
            host = self._ready.popleft()
            queue = self._queues[host]
            if not self._gate.take_now(host, len(queue)):
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
        """Let a host take part again; say whether it was waiting."""
        if host not in self._blocked:
            return False
        self._blocked.discard(host)
        self._ready.append(host)
        return True


class Window(Generic[_Found]):
    """At most `width` URLs in flight or waiting for the consumer: each starts as soon as it may and comes out as it ends."""

    def __init__(self, turns: Turns, fetch: Callable[[int, bool], Awaitable[_Found]], width: int) -> None:
        """Fetch an index by `fetch(index, is_last_of_host)`."""
        self._turns = turns
        self._fetch = fetch
        self._width = width
        self._done: asyncio.Queue[tuple[int, _Found] | Exception | None] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._untold = 0

    async def next(self) -> tuple[int, _Found] | None:
        """Return what ends next, or None after the last; what `fetch` raises is raised here."""
        while True:
            self._launch()
            if self._turns.is_over and not self._untold:
                return None
            item = await self._done.get()
            if isinstance(item, Exception):
                raise item
            if item is not None:
                self._untold -= 1
                return item

    def freed(self, host: str) -> None:
        """Let a host's URLs have their turn again."""
        if self._turns.unblock(host):
            self._done.put_nowait(None)

    async def cancel(self) -> None:
        """End what is in flight."""
        left = list(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _launch(self) -> None:
        while self._untold < self._width and (turn := self._turns.next_now()) is not None:
            self._untold += 1
            task = asyncio.create_task(self._one(*turn))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _one(self, index: int, is_last: bool) -> None:
        try:
            item: tuple[int, _Found] | Exception = (index, await self._fetch(index, is_last))
        except Exception as error:  # handed to the consumer, who raises it
            item = error
        self._done.put_nowait(item)


async def rolling(
    turns: Turns, gate: HostGate, fetch: Callable[[int, bool], Awaitable[_Found]], width: int
) -> AsyncGenerator[tuple[int, _Found], None]:
    """Yield (index, what `fetch(index, is_last_of_host)` returned) as each ends, with at most `width` begun and not yielded.

    A consumer that is slow holds new requests back. What `fetch` raises is raised here.
    """
    window = Window(turns, fetch, width)
    gate.on_free = window.freed
    try:
        while (item := await window.next()) is not None:
            yield item
    finally:
        gate.on_free = lambda host: None
        await window.cancel()
        await gate.release()
