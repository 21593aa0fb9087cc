"""As many URLs in flight as the width allows, whichever is slow."""

import asyncio
from contextlib import aclosing

from corgi.fetching.host_slots import HostSlots
from corgi.fetching.lease_client import LocalLeases
from corgi.fetching.scheduler import as_completed

WIDTH, NUM_URLS = 8, 60


def test_a_slow_consumer_holds_new_requests_back() -> None:
    """Requests that end at once must not pile up their bodies while the consumer is busy."""
    begun = 0

    async def fetch(index: int, is_last: bool) -> int:
        nonlocal begun
        begun += 1
        return index

    async def run() -> tuple[list[int], int]:
        slots = HostSlots(LocalLeases(), 4, 0.0)
        found, most = [], 0
        async with aclosing(as_completed([None] * NUM_URLS, slots, fetch, WIDTH)) as results:
            async for index, _ in results:
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

        slots = HostSlots(LocalLeases(), 4, 0.0)
        found = []
        async with asyncio.timeout(10):
            async with aclosing(as_completed([None] * NUM_URLS, slots, fetch, WIDTH)) as results:
                async for index, _ in results:
                    found.append(index)
                    if len(found) == NUM_URLS - 1:
                        first_may_end.set()
        return found

    assert asyncio.run(run()) == [*range(1, NUM_URLS), 0]


def test_two_consumers_of_one_fetchers_slots_each_get_all_their_urls() -> None:
    """The slots of one host pass from one to the other, and the first that ends takes none from the other."""

    async def consume(slots: HostSlots, number: int) -> list[int]:
        async def fetch(index: int, is_last: bool) -> int:
            await asyncio.sleep(0)
            slots.give("h")
            return index

        async with aclosing(as_completed(["h"] * number, slots, fetch, WIDTH)) as results:
            return [index async for index, _ in results]

    async def run() -> tuple[list[int], list[int]]:
        slots = HostSlots(LocalLeases(), 1, 0.0)
        async with asyncio.timeout(20):
            return await asyncio.gather(consume(slots, 3), consume(slots, NUM_URLS))

    assert [sorted(found) for found in asyncio.run(run())] == [[0, 1, 2], list(range(NUM_URLS))]


def test_a_fetcher_asks_only_for_hosts_whose_turn_comes() -> None:
    """Of 500 hosts a fetcher of width 8 has asked for few when its first request starts, and gets every URL in the end."""

    async def run() -> tuple[list[int], list[int]]:
        slots, asked = HostSlots(LocalLeases(), 4, 0.0), []

        async def fetch(index: int, is_last: bool) -> int:
            asked.append(len(slots.hosts))
            await asyncio.sleep(0)
            slots.give(f"h{index}")
            return index

        hosts = [f"h{number}" for number in range(500)]
        async with asyncio.timeout(20), aclosing(as_completed(hosts, slots, fetch, WIDTH)) as results:
            return [index async for index, _ in results], asked

    found, asked = asyncio.run(run())
    assert sorted(found) == list(range(500))
    assert asked[0] <= 2 * WIDTH
    assert all(number <= at + 3 * WIDTH for at, number in enumerate(asked))
