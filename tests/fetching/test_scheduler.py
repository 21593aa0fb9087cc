"""As many URLs in flight as the width allows, whichever is slow."""

import asyncio
from contextlib import aclosing

from corgi.fetching.host_slots import HostSlots
from corgi.fetching.lease_client import LocalLeases
from corgi.fetching.lease_table import LeaseRequest, LeaseResponse
from corgi.fetching.scheduler import Room, as_completed

WIDTH, NUM_URLS = 8, 60


def test_a_slow_consumer_holds_new_requests_back() -> None:
    """Requests that end at once must not pile up their bodies while the consumer is busy."""
    begun = 0

    async def fetch(index: int, is_last: bool) -> int:
        nonlocal begun
        begun += 1
        return index

    async def run() -> tuple[list[int], int]:
        slots = HostSlots([LocalLeases()], 4, 0.0)
        found, most = [], 0
        async with aclosing(as_completed([None] * NUM_URLS, slots, fetch, Room(WIDTH))) as results:
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

        slots = HostSlots([LocalLeases()], 4, 0.0)
        found = []
        async with asyncio.timeout(10):
            async with aclosing(as_completed([None] * NUM_URLS, slots, fetch, Room(WIDTH))) as results:
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

        async with aclosing(as_completed(["h"] * number, slots, fetch, Room(WIDTH))) as results:
            return [index async for index, _ in results]

    async def run() -> tuple[list[int], list[int]]:
        slots = HostSlots([LocalLeases()], 1, 0.0)
        async with asyncio.timeout(20):
            return await asyncio.gather(consume(slots, 3), consume(slots, NUM_URLS))

    assert [sorted(found) for found in asyncio.run(run())] == [[0, 1, 2], list(range(NUM_URLS))]


def test_urls_of_hosts_whose_table_does_not_respond_hold_no_others_up() -> None:
    """There are far more such hosts than a fetcher may wait for; the URLs of the other table's hosts all end."""

    class Stuck(LocalLeases):
        async def lease(self, request: LeaseRequest) -> LeaseResponse:
            await may.wait()
            return await super().lease(request)

    may = asyncio.Event()

    async def run() -> tuple[int, int]:
        slots = HostSlots([LocalLeases(), Stuck()], 4, 0.0)
        hosts = [f"h{number}" for number in range(40 * WIDTH)]
        well = sum(slots.table_of(host) == 0 for host in hosts)

        async def fetch(index: int, is_last: bool) -> int:
            slots.give(hosts[index])
            return index

        found = 0
        async with asyncio.timeout(20), aclosing(as_completed(hosts, slots, fetch, Room(WIDTH))) as results:
            async for index, _ in results:
                found += 1
                assert slots.table_of(hosts[index]) == 0 or may.is_set()
                if found == well:
                    may.set()
        return found, len(hosts)

    found, expected = asyncio.run(run())
    assert found == expected


def test_the_next_list_has_the_places_that_slow_hosts_of_the_first_leave_idle() -> None:
    """The first list is held up by one host; the next one ends meanwhile, and together they never have more than the width."""

    async def run() -> tuple[int, bool]:
        slots, room, may_end = HostSlots([LocalLeases()], 2, 0.0), Room(WIDTH), asyncio.Event()
        in_flight = most = 0

        async def consume(hosts: list[str]) -> None:
            async def fetch(index: int, is_last: bool) -> None:
                nonlocal in_flight, most
                in_flight += 1
                most = max(most, in_flight)
                await (may_end.wait() if hosts[index] == "slow" else asyncio.sleep(0))
                in_flight -= 1
                slots.give(hosts[index])

            async with aclosing(as_completed(hosts, slots, fetch, room)) as results:
                assert sorted([index async for index, _ in results]) == list(range(len(hosts)))

        async with asyncio.timeout(20):
            first = asyncio.create_task(consume(["slow"] * 5 + [f"h{n}" for n in range(NUM_URLS)]))
            await asyncio.sleep(0)
            await consume([f"g{n % 7}" for n in range(NUM_URLS)])
            was_held_up = not first.done()
            may_end.set()
            await first
        return most, was_held_up

    assert asyncio.run(run()) == (WIDTH, True)


def test_a_list_that_was_begun_earlier_goes_first() -> None:
    """As long as it has a URL that may start, no later list starts one; a list that is given up leaves its places to the others."""

    async def run() -> list[str]:
        slots, room, began = HostSlots([LocalLeases()], 4, 0.0), Room(WIDTH), list[str]()

        async def consume(name: str, number: int, stop_at: int = -1) -> None:
            async def fetch(index: int, is_last: bool) -> None:
                began.append(name)
                await asyncio.sleep(0)

            async with aclosing(as_completed([None] * number, slots, fetch, room)) as results:
                async for index, _ in results:
                    if index == stop_at:
                        return

        async with asyncio.timeout(20):
            await asyncio.gather(
                consume("first", 3 * NUM_URLS), consume("given up", NUM_URLS, 0), consume("last", NUM_URLS)
            )
        return began

    began = asyncio.run(run())
    assert began.count("first") == 3 * NUM_URLS
    assert began.count("last") == NUM_URLS
    assert began[: 3 * NUM_URLS] == ["first"] * (3 * NUM_URLS)


def test_lists_that_begin_while_the_last_slots_are_given_back_keep_theirs() -> None:
    class Slow(LocalLeases):
        async def lease(self, request: LeaseRequest) -> LeaseResponse:
            await asyncio.sleep(0.002)
            return await super().lease(request)

    async def run() -> int:
        leases = Slow()
        slots, room, found = HostSlots([leases], 2, 0.0), Room(WIDTH), 0

        async def consume(start: int) -> None:
            nonlocal found

            async def fetch(index: int, is_last: bool) -> None:
                await asyncio.sleep(0)
                slots.give("h")

            await asyncio.sleep(start * 0.001)
            async with aclosing(as_completed(["h"] * 3, slots, fetch, room)) as results:
                async for _ in results:
                    found += 1

        async with asyncio.timeout(20):
            await asyncio.gather(*(consume(start) for start in range(40)))
        assert leases.table.is_idle()
        return found

    assert asyncio.run(run()) == 120


def test_a_fetcher_asks_only_for_hosts_whose_turn_comes() -> None:
    """Of 500 hosts a fetcher of width 8 has asked for few when its first request starts, and gets every URL in the end."""

    async def run() -> tuple[list[int], list[int]]:
        slots, asked = HostSlots([LocalLeases()], 4, 0.0), []

        async def fetch(index: int, is_last: bool) -> int:
            asked.append(len(slots.hosts))
            await asyncio.sleep(0)
            slots.give(f"h{index}")
            return index

        hosts = [f"h{number}" for number in range(500)]
        async with asyncio.timeout(20), aclosing(as_completed(hosts, slots, fetch, Room(WIDTH))) as results:
            return [index async for index, _ in results], asked

    found, asked = asyncio.run(run())
    assert sorted(found) == list(range(500))
    assert asked[0] <= 2 * WIDTH
    assert all(number <= at + 3 * WIDTH for at, number in enumerate(asked))
