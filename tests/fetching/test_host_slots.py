"""Host slots: fetchers that share a table keep to its limit, one that dies loses its slots, and a leased slot is reused without a request."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import pytest

from corgi.fetching import lease_client
from corgi.fetching.breaker import Breaker
from corgi.fetching.host_slots import HostSlots
from corgi.fetching.lease_client import LocalLeases
from corgi.fetching.lease_table import LEASE_S, LeaseRequest, LeaseResponse, LeaseTable


class Counting(LocalLeases):
    def __init__(self, lease_s: float = 15.0) -> None:
        self.table = LeaseTable(lease_s)
        self.num_requests = 0

    async def lease(self, request: LeaseRequest) -> LeaseResponse:
        self.num_requests += 1
        await asyncio.sleep(0)
        return await super().lease(request)


async def use(
    slots: HostSlots, host: str, in_flight: Counter[str], most: Counter[str], seconds: float
) -> None:
    await slots.take(host)
    in_flight[host] += 1
    most[host] = max(most[host], in_flight[host])
    await asyncio.sleep(seconds)
    in_flight[host] -= 1
    slots.give(host)


def test_three_fetchers_share_the_slots_of_a_host() -> None:
    async def run() -> Counter[str]:
        leases, in_flight, most = Counting(), Counter[str](), Counter[str]()
        fetchers = [HostSlots([leases], 4, 0.0) for _ in range(3)]
        uses = [use(slots, "h", in_flight, most, 0.005) for slots in fetchers for _ in range(40)]
        async with asyncio.timeout(20):
            await asyncio.gather(*uses)
        for slots in fetchers:
            await slots.release()
        assert leases.table.is_idle()
        return most

    assert asyncio.run(run())["h"] == 4


class Clocked(Counting):
    """Reads its time from `now`, which the test moves on."""

    def __init__(self, lease_s: float) -> None:
        super().__init__(lease_s)
        self.now, self.asked = 0.0, list[LeaseRequest]()

    async def lease(self, request: LeaseRequest) -> LeaseResponse:
        self.num_requests += 1
        self.asked.append(request)
        await asyncio.sleep(0)
        return self.table.lease(request, self.now)


def test_a_fetcher_that_dies_gives_way_when_its_lease_ends_and_not_before() -> None:
    async def run() -> None:
        leases = Clocked(lease_s=0.5)
        dead, alive = HostSlots([leases], 2, 0.0), HostSlots([leases], 2, 0.0)
        await dead.take("h")
        await dead.take("h")
        (client,) = dead.clients
        assert client._task is not None
        client._task.cancel()  # as a process that ends: it neither renews nor releases
        waiting, asks = asyncio.create_task(alive.take("h")), leases.num_requests
        async with asyncio.timeout(20):
            while leases.num_requests < asks + 2:
                await asyncio.sleep(0.01)
            assert not waiting.done()
            leases.now = 0.6
            await waiting
        alive.give("h")
        await alive.release()

    asyncio.run(run())


def test_slots_once_leased_are_reused_without_a_request() -> None:
    async def run() -> int:
        leases = Counting()
        slots = HostSlots([leases], 4, 0.0)
        for _ in range(1000):
            await slots.take("h")
            slots.give("h")
        asks = leases.num_requests
        await slots.release()
        return asks

    assert asyncio.run(run()) <= 2


def test_a_cancelled_wait_loses_no_slot() -> None:
    async def run() -> None:
        slots = HostSlots([LocalLeases()], 1, 0.0)
        await slots.take("h")
        waits = [asyncio.create_task(slots.take("h")) for _ in range(3)]
        await asyncio.sleep(0.05)
        waits[0].cancel()
        slots.give("h")
        waits[1].cancel()
        await asyncio.gather(*waits[:2], return_exceptions=True)
        async with asyncio.timeout(2):
            await waits[2]
        slots.give("h")
        await slots.release()

    asyncio.run(run())


class Unsteady(Counting):
    """Fails when told to, having heard nothing; keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.is_down, self.asked = False, list[LeaseRequest]()

    async def lease(self, request: LeaseRequest) -> LeaseResponse:
        self.asked.append(request)
        if self.is_down:
            raise ConnectionError("gone")
        return await super().lease(request)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():
            await asyncio.sleep(0.005)


def test_a_report_that_failed_is_sent_again() -> None:
    """A paced slot is given back while the table cannot be reached: it must not stay leased."""

    async def run() -> None:
        leases = Unsteady()
        slots = HostSlots([leases], 1, 0.001)
        await slots.take("h")
        await asyncio.sleep(0.1)
        leases.is_down = True
        asks = len(leases.asked)
        slots.give("h")
        await until(lambda: len(leases.asked) > asks)
        await asyncio.sleep(0.1)
        leases.is_down = False
        with suppress(ConnectionError):
            slots.take_now("g")
        await slots.release()  # sooner than a renewal
        assert leases.table.is_idle()

    asyncio.run(run())


def test_who_stops_waiting_stands_in_nobodys_way() -> None:
    async def run() -> None:
        leases = Unsteady()
        holder, gone, waiting = (HostSlots([leases], 1, 0.0) for _ in range(3))
        await holder.take("h")
        waits = asyncio.create_task(gone.take("h"))
        await until(lambda: len(leases.asked) > 1)
        asks = len(leases.asked)
        waits.cancel()
        await asyncio.gather(waits, return_exceptions=True)
        await until(
            lambda: any("h" in request.held and not request.wanted for request in leases.asked[asks:])
        )
        holder.give("h")
        async with asyncio.timeout(10):
            await waiting.take("h")
        waiting.give("h")
        for slots in (holder, gone, waiting):
            await slots.release()
        assert leases.table.is_idle()

    asyncio.run(run())


def test_a_renewal_names_no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> list[LeaseRequest]:
        leases = Unsteady()
        slots = HostSlots([leases], 1, 0.0)
        for number in range(20):
            await slots.take(f"h{number}")
        asks = len(leases.asked)
        monkeypatch.setattr(lease_client, "RENEW_S", 0.0)
        await until(lambda: len(leases.asked) > asks)
        for number in range(20):
            slots.give(f"h{number}")
        renewals = leases.asked[asks:]
        assert sum(leases.table.num_held(f"h{number}") for number in range(20)) == 20
        await slots.release()
        assert leases.table.is_idle()
        return renewals

    assert [dict(request.held) for request in asyncio.run(run())][:1] == [{}]


def test_a_fetcher_back_after_its_lease_uses_no_slot_that_others_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        leases = Clocked(lease_s=5.0)
        away, other = HostSlots([leases], 1, 0.0), HostSlots([leases], 1, 0.0)
        await away.take("h")
        away.give("h")  # a free slot, kept for the next request
        leases.now = 6.0
        await other.take("h")
        asks = len(leases.asked)
        with monkeypatch.context() as blocked:  # as if its event loop had stood still
            blocked.setattr(lease_client, "LEASE_S", 0.0)
            blocked.setattr(lease_client, "RENEW_S", 0.0)
            waiting = asyncio.create_task(away.take("h"))
            await until(lambda: len(leases.asked) > asks + 2)
        await asyncio.sleep(0.1)  # by what it heard it may now use its slots again
        assert not waiting.done()
        other.give("h")
        await other.release()
        async with asyncio.timeout(10):
            await waiting
        away.give("h")
        await away.release()

    asyncio.run(run())


def test_a_table_that_fails_is_an_error_for_every_waiting_request() -> None:
    class Failing(LocalLeases):
        async def lease(self, request: LeaseRequest) -> LeaseResponse:
            raise ConnectionError("gone")

    async def run() -> None:
        slots = HostSlots([Failing()], 1, 0.0)
        with pytest.raises(ConnectionError):
            async with asyncio.timeout(2):
                await slots.take("h")

    asyncio.run(run())


HOST_OF = {HostSlots([LocalLeases(), LocalLeases()], 1, 0.0).table_of(host): host for host in "abcdefgh"}
"""A host of each of two tables."""


class Stuck(Counting):
    """Responds when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may = asyncio.Event()

    async def lease(self, request: LeaseRequest) -> LeaseResponse:
        await self.may.wait()
        return await super().lease(request)


def test_each_host_has_one_table_and_all_processes_agree_on_it() -> None:
    async def run() -> None:
        tables = [Counting() for _ in range(4)]
        slots = HostSlots(tables, 2, 0.0)
        hosts = [f"host-{number}.example" for number in range(64)]
        for host in hosts:
            await slots.take(host)
        held = [[table.table.num_held(host) for table in tables] for host in hosts]
        assert [row.index(1) for row in held] == [slots.table_of(host) for host in hosts]
        assert all(sum(row) == 1 for row in held)
        assert min(Counter(row.index(1) for row in held).values()) >= 8
        assert [slots.table_of(host) for host in hosts[:4]] == [1, 2, 3, 0]  # whatever PYTHONHASHSEED is
        for host in hosts:
            slots.give(host)
        await slots.release()
        assert all(table.table.is_idle() for table in tables)

    asyncio.run(run())


def test_only_hosts_of_a_table_that_does_not_respond_wait() -> None:
    async def run() -> None:
        leases, lost = Counting(), Stuck()
        slots = HostSlots([leases, lost], 1, 0.0)
        waiting = asyncio.create_task(slots.take(HOST_OF[1]))
        async with asyncio.timeout(10):
            for _ in range(20):
                await slots.take(HOST_OF[0])
                slots.give(HOST_OF[0])
            assert not waiting.done()
            lost.may.set()
            await waiting
        slots.give(HOST_OF[1])
        await slots.release()
        assert leases.table.is_idle()
        assert lost.table.is_idle()

    asyncio.run(run())


def test_a_table_that_follows_a_lost_one_delays_only_its_own_hosts() -> None:
    """For half a lease it grants nothing; a clock that stands still makes that for ever."""

    async def run() -> None:
        tables = [Clocked(15.0), Clocked(15.0)]
        slots = HostSlots(tables, 2, 0.0)
        async with asyncio.timeout(10):
            for table in (0, 1):
                await slots.take(HOST_OF[table])
                slots.give(HOST_OF[table])
            tables[1].table = LeaseTable(is_recovering=True)
            for table in slots.clients:
                table.report("nothing")  # a message to each table, by which the client hears of the loss
            await until(lambda: HOST_OF[1] not in slots.hosts)
            waiting = asyncio.create_task(slots.take(HOST_OF[1]))
            asks = tables[1].num_requests
            for _ in range(20):
                await slots.take(HOST_OF[0])
                slots.give(HOST_OF[0])
            await until(lambda: tables[1].num_requests > asks + 2)
            assert not waiting.done()
            tables[1].now = LEASE_S / 2
            await waiting
        slots.give(HOST_OF[1])
        await slots.release()

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
