"""The cluster's one book: three fetchers through the named actor keep a host's cap and pace between them."""

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator

import pytest

from corgi.fetching import lease_actor as lease
from corgi.fetching.fetcher import Fetcher
from corgi.fetching.lease_actor import ClusterLessor, close_book, open_book
from corgi.fetching.lease_table import Ask
from corgi.settings.data import DownloadSettings
from tests.support.fault_server import FaultServer
from tests.support.results import body_of


@pytest.fixture
def book(ray_local: None) -> Iterator[None]:
    open_book()
    yield
    close_book()


def fetch_in_threads(settings: DownloadSettings, shares: list[list[str]]) -> list[int]:
    """Run one fetcher with an event loop of its own a share; return how many bodies each got."""
    got = [0] * len(shares)

    async def run(place: int) -> None:
        async with Fetcher(settings, ClusterLessor(len(shares))) as fetcher:
            async for _, fetched in fetcher.fetch_all(shares[place]):
                got[place] += body_of(fetched) is not None

    threads = [
        threading.Thread(target=lambda place=place: asyncio.run(run(place))) for place in range(len(shares))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return got


def test_three_fetchers_keep_the_cap_and_then_the_pace(
    book: None, promise: Callable[[int, str], None]
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


def test_the_book_ends_when_nobody_uses_it_and_starts_anew_when_asked(book: None) -> None:
    async def ask() -> bool:
        return (await ClusterLessor(1).ask(Ask("x", {}, {"h": 1}, 1, 0.0))).grants == {"h": (0.0,)}

    async def give_back() -> None:
        await ClusterLessor(1).ask(Ask("x", {"h": 0}, {}, 1, 0.0))

    assert asyncio.run(ask())
    close_book()
    import ray

    keeper = ray.get_actor(lease.NAME, namespace=lease.NAMESPACE)  # held: still there
    assert ray.get(keeper.num_held.remote("h")) == 1
    asyncio.run(give_back())
    ray.kill(keeper)
    assert asyncio.run(ask())
    asyncio.run(give_back())
