"""The gate: fetchers that share a book keep to it, one that dies gives way, and nobody asks twice for what it holds."""

import asyncio
from collections import Counter

import pytest

from corgi.fetching.host_slots import Breaker, HostGate, LocalLessor
from corgi.fetching.lease_table import Answer, Ask, HostBook


class Counting(LocalLessor):
    def __init__(self, lease_s: float = 15.0) -> None:
        self.book = HostBook(lease_s)
        self.asks = 0

    async def ask(self, ask: Ask) -> Answer:
        self.asks += 1
        await asyncio.sleep(0)
        return await super().ask(ask)


async def use(gate: HostGate, host: str, in_flight: Counter[str], most: Counter[str], seconds: float) -> None:
    await gate.take(host)
    in_flight[host] += 1
    most[host] = max(most[host], in_flight[host])
    await asyncio.sleep(seconds)
    in_flight[host] -= 1
    gate.give(host)


def test_three_fetchers_share_the_slots_of_a_host() -> None:
    async def run() -> Counter[str]:
        lessor, in_flight, most = Counting(), Counter[str](), Counter[str]()
        gates = [HostGate(lessor, 4, 0.0) for _ in range(3)]
        uses = [use(gate, "h", in_flight, most, 0.005) for gate in gates for _ in range(40)]
        async with asyncio.timeout(20):
            await asyncio.gather(*uses)
        for gate in gates:
            await gate.release()
        assert lessor.book.is_idle()
        return most

    assert asyncio.run(run())["h"] == 4


class Clocked(Counting):
    """Reads its time from `now`, which the test moves on."""

    def __init__(self, lease_s: float) -> None:
        super().__init__(lease_s)
        self.now = 0.0

    async def ask(self, ask: Ask) -> Answer:
        self.asks += 1
        await asyncio.sleep(0)
        return self.book.ask(ask, self.now)


def test_a_fetcher_that_dies_gives_way_when_its_lease_ends_and_not_before() -> None:
    async def run() -> None:
        lessor = Clocked(lease_s=0.5)
        dead, alive = HostGate(lessor, 2, 0.0), HostGate(lessor, 2, 0.0)
        await dead.take("h")
        await dead.take("h")
        assert dead._task is not None
        dead._task.cancel()  # as a process that ends: it neither renews nor releases
        waiting, asks = asyncio.create_task(alive.take("h")), lessor.asks
        async with asyncio.timeout(20):
            while lessor.asks < asks + 2:
                await asyncio.sleep(0.01)
            assert not waiting.done()
            lessor.now = 0.6
            await waiting
        alive.give("h")
        await alive.release()

    asyncio.run(run())


def test_slots_once_leased_are_used_without_asking() -> None:
    async def run() -> int:
        lessor = Counting()
        gate = HostGate(lessor, 4, 0.0)
        for _ in range(1000):
            await gate.take("h")
            gate.give("h")
        asks = lessor.asks
        await gate.release()
        return asks

    assert asyncio.run(run()) <= 2


def test_a_cancelled_wait_loses_no_slot() -> None:
    async def run() -> None:
        gate = HostGate(LocalLessor(), 1, 0.0)
        await gate.take("h")
        waits = [asyncio.create_task(gate.take("h")) for _ in range(3)]
        await asyncio.sleep(0.05)
        waits[0].cancel()
        gate.give("h")
        waits[1].cancel()
        await asyncio.gather(*waits[:2], return_exceptions=True)
        async with asyncio.timeout(2):
            await waits[2]
        gate.give("h")
        await gate.release()

    asyncio.run(run())


def test_a_book_that_fails_is_told_to_whoever_waits() -> None:
    class Failing(LocalLessor):
        async def ask(self, ask: Ask) -> Answer:
            raise ConnectionError("gone")

    async def run() -> None:
        gate = HostGate(Failing(), 1, 0.0)
        with pytest.raises(ConnectionError):
            async with asyncio.timeout(2):
                await gate.take("h")

    asyncio.run(run())


def test_the_breaker_counts_only_requests_begun_since_the_host_was_heard() -> None:
    breaker = Breaker(2, 10.0)
    breaker.heard("h", 5.0)
    for _ in range(5):
        breaker.failed("h", 4.0, 6.0)
    assert breaker.allows("h", 6.0)
    breaker.failed("h", 5.5, 6.0)
    breaker.failed("h", 5.5, 6.0)
    assert not breaker.allows("h", 6.1)
    assert breaker.allows("other", 6.1)
    assert breaker.allows("h", 16.1)
    assert not breaker.allows("h", 16.2)
    breaker.heard("h", 17.0)
    assert breaker.allows("h", 17.1)
    assert Breaker(0, 1.0).allows("h", 0.0)
