"""The cluster's lease table: three fetchers through the named actor keep a host's cap and pace between them."""

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator

import pytest

from corgi.fetching import lease_actor as lease
from corgi.fetching.fetcher import Fetcher
from corgi.fetching.lease_actor import ClusterLeases, start_lease_actor, stop_lease_actor
from corgi.fetching.lease_table import LeaseRequest
from corgi.settings.data import DownloadSettings
from tests.support.fault_server import FaultServer
from tests.support.results import body_of


@pytest.fixture
def lease_actor(ray_local: None) -> Iterator[None]:
    start_lease_actor()
    yield
    stop_lease_actor()


def fetch_in_threads(settings: DownloadSettings, shares: list[list[str]]) -> list[int]:
    """Run one fetcher per share, each with its own event loop; return how many bodies each got."""
    got = [0] * len(shares)

    async def run(index: int) -> None:
        async with Fetcher(settings, ClusterLeases(len(shares))) as fetcher:
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
    lease_actor: None, promise: Callable[[int, str], None]
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


def test_the_actor_ends_when_no_fetcher_uses_it_and_starts_anew(lease_actor: None) -> None:
    async def lease_one() -> bool:
        return (await ClusterLeases(1).lease(LeaseRequest("x", {}, {"h": 1}, 1, 0.0))).grants == {"h": (0.0,)}

    async def give_back() -> None:
        await ClusterLeases(1).lease(LeaseRequest("x", {"h": 0}, {}, 1, 0.0))

    assert asyncio.run(lease_one())
    stop_lease_actor()
    import ray

    actor = ray.get_actor(lease.NAME, namespace=lease.NAMESPACE)  # a slot is leased: still there
    assert ray.get(actor.num_held.remote("h")) == 1
    asyncio.run(give_back())
    ray.kill(actor)
    assert asyncio.run(lease_one())
    asyncio.run(give_back())
