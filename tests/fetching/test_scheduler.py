"""The rolling window: as many at once as it is wide, whoever is slow."""

import asyncio
from contextlib import aclosing

from corgi.fetching.host_slots import HostGate, LocalLessor
from corgi.fetching.scheduler import Turns, rolling

WIDTH, NUM_URLS = 8, 60


def test_a_slow_consumer_holds_new_requests_back() -> None:
    """Requests that end at once must not pile up their bodies while the consumer is busy."""
    begun = 0

    async def fetch(index: int, is_last: bool) -> int:
        nonlocal begun
        begun += 1
        return index

    async def run() -> tuple[list[int], int]:
        gate = HostGate(LocalLessor(), 4, 0.0)
        found, most = [], 0
        async with aclosing(rolling(Turns([None] * NUM_URLS, gate), gate, fetch, WIDTH)) as window:
            async for index, _ in window:
                found.append(index)
                await asyncio.sleep(0.001)
                most = max(most, begun - len(found))
        return found, most

    found, most = asyncio.run(run())
    assert sorted(found) == list(range(NUM_URLS))
    assert most <= WIDTH


def test_what_is_slow_holds_its_own_place_only() -> None:
    async def run() -> list[int]:
        first_may_end = asyncio.Event()

        async def fetch(index: int, is_last: bool) -> None:
            if index == 0:
                await first_may_end.wait()

        gate = HostGate(LocalLessor(), 4, 0.0)
        found = []
        async with asyncio.timeout(10):
            async with aclosing(rolling(Turns([None] * NUM_URLS, gate), gate, fetch, WIDTH)) as window:
                async for index, _ in window:
                    found.append(index)
                    if len(found) == NUM_URLS - 1:
                        first_may_end.set()
        return found

    assert asyncio.run(run()) == [*range(1, NUM_URLS), 0]
