"""The cluster's lease tables: three fetchers through the named actors keep a host's cap and pace between them."""

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from corgi.fetching import lease_actor as lease
from corgi.fetching.fetcher import Fetcher
from corgi.fetching.host_slots import HostSlots
from corgi.fetching.lease_actor import ClusterLeases, cluster_leases, start_lease_actors, stop_lease_actors
from corgi.fetching.lease_table import LeaseRequest
from corgi.settings.data import DownloadSettings
from corgi.settings.errors import ClusterError
from tests.support.fault_server import FaultServer
from tests.support.results import body_of

NUM_TABLES = 3


@pytest.fixture
def lease_actors(ray_local: None) -> Iterator[None]:
    assert start_lease_actors(NUM_TABLES) == NUM_TABLES
    yield
    stop_lease_actors()


def held_by_table(host: str) -> dict[int, int]:
    """Return how many slots of a host each actor that was started has leased."""
    import ray

    found: dict[int, int] = {}
    for table in range(NUM_TABLES):
        with suppress(ValueError):
            actor: Any = ray.get_actor(lease.actor_name(table, NUM_TABLES), namespace=lease.NAMESPACE)
            found[table] = ray.get(actor.num_held.remote(host))
    return found


def fetch_in_threads(settings: DownloadSettings, shares: list[list[str]]) -> list[int]:
    """Run one fetcher per share, each with its own event loop; return how many bodies each got."""
    got = [0] * len(shares)

    async def run(index: int) -> None:
        async with Fetcher(settings, cluster_leases(len(shares), NUM_TABLES)) as fetcher:
            async for _, fetched in fetcher.fetch_all(shares[index]):
                got[index] += body_of(fetched) is not None

    threads = [
        threading.Thread(target=lambda index=index: asyncio.run(run(index))) for index in range(len(shares))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return got


def test_three_fetchers_keep_the_cap_and_then_the_pace(
    lease_actors: None, promise: Callable[[int, str], None]
) -> None:
    with FaultServer() as server:
        values = {
            "allow_private": [server.address],
            "connections": 16,
            "timeout_s": 10.0,
            "obey_robots_txt": False,
        }
        settings = DownloadSettings.model_validate({**values, "host_connections": 4})
        shares = [[server.url(f"/wait/10/{n}.jpg?f={f}") for n in range(40)] for f in range(3)]
        assert fetch_in_threads(settings, shares) == [40, 40, 40]
        assert server.most_by_host[server.address] == 4
        server.forget()
        paced = DownloadSettings.model_validate({**values, "host_connections": 8, "host_delay_s": 0.1})
        assert fetch_in_threads(paced, [share[:5] for share in shares]) == [5, 5, 5]
        starts = sorted(server.starts[server.address])
        assert len(starts) == 15
        assert starts[-1] - starts[0] > 14 * 0.1 - 0.1
        assert sum(later - earlier < 0.05 for earlier, later in itertools.pairwise(starts)) <= 1
        promise(23, "3 fetchers, cap 4: at most 4 requests of the host in flight in 120")


def test_the_actors_end_when_no_fetcher_uses_them_and_start_anew(lease_actors: None) -> None:
    leases = cluster_leases(1, NUM_TABLES)
    hosts = {HostSlots(leases, 1, 0.0).table_of(host): host for host in "abcdefgh"}

    async def ask(table: int, held: int, wanted: int) -> bool:
        host = hosts[table]
        request = LeaseRequest("x", {host: held}, {host: 1} if wanted else {}, 1, 0.0)
        return bool((await leases[table].lease(request)).grants)

    assert asyncio.run(ask(2, 0, 1))
    stop_lease_actors()  # a slot is leased: still there, the first among them
    assert held_by_table(hosts[2]) == {0: 0, 2: 1}
    assert start_lease_actors(5) == NUM_TABLES, "runs at the same time divide hosts alike"
    with pytest.raises(ClusterError, match=r"among 3 tables, this one among 5"):
        asyncio.run(ClusterLeases(1, 0, 5).lease(LeaseRequest("y", {}, {}, 1, 0.0)))
    asyncio.run(ask(2, 0, 0))
    stop_lease_actors()
    assert held_by_table(hosts[2]) == {}
    assert start_lease_actors(1) == 1
    assert start_lease_actors(NUM_TABLES) == 1
    stop_lease_actors()
    assert start_lease_actors(NUM_TABLES) == NUM_TABLES
    assert asyncio.run(ask(2, 0, 1))
    asyncio.run(ask(2, 0, 0))


def test_only_hosts_of_a_lost_actor_wait(lease_actors: None) -> None:
    """Until its successor knows that no slot of the lost one is in use."""
    import ray

    async def run() -> None:
        slots = HostSlots(cluster_leases(1, NUM_TABLES), 1, 0.0)
        hosts = {slots.table_of(host): host for host in "abcdefgh"}
        async with asyncio.timeout(60):
            for host in hosts.values():
                await slots.take(host)
                slots.give(host)
            lost = ray.get_actor(lease.actor_name(2, NUM_TABLES), namespace=lease.NAMESPACE)
            ray.kill(lost, no_restart=False)
            slots.clients[2].report(hosts[2])  # a message by which the client hears of the loss
            while hosts[2] in slots.hosts:
                await asyncio.sleep(0.01)
            waiting = asyncio.create_task(slots.take(hosts[2]))
            for table in (0, 1):
                await slots.take(hosts[table])
                slots.give(hosts[table])
            assert not waiting.done()
            await waiting
        slots.give(hosts[2])
        await slots.release()

    asyncio.run(run())
