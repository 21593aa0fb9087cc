"""Over a hundred hostile behaviours at once, among honest answers: each costs its own row, in time, and nothing else."""

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest

from corgi.download.native_engine import NativeEngine
from corgi.fetching.fetcher import Fetcher
from corgi.fetching.response import Body
from corgi.settings.data import DownloadSettings
from corgi.tables.rejection import Rejection
from corgi.tables.schema import Reason
from tests.support.fault_server import FaultServer
from tests.support.hostile import HONEST, HOSTILE, UNDECODABLE, path_of
from tests.support.results import body_of, detail_of, reason_of

DEADLINE_S = 2.0
HOSTS = ("127.0.0.1", "127.0.0.3", "127.0.0.4")
Timed = dict[str, tuple[Body | Rejection, float]]


@pytest.fixture(scope="module")
def servers() -> Iterator[list[FaultServer]]:
    with FaultServer(HOSTS[0]) as one, FaultServer(HOSTS[1]) as two, FaultServer(HOSTS[2]) as three:
        yield [one, two, three]


def settings_for(servers: list[FaultServer]) -> DownloadSettings:
    values = {
        "allow_private": [server.address for server in servers],
        "timeout_s": DEADLINE_S,
        "max_bytes": 2**20,
        "connections": 400,
        "host_connections": 400,
        "retries": 1,
        "image_size": 64,
    }
    return DownloadSettings.model_validate(values)


def spread(servers: list[FaultServer]) -> dict[str, str]:
    """Return the URL of every behaviour, hosts in turn, with an honest picture after each."""
    paths = [path for fault in HOSTILE for path in (fault, f"/ok/1.jpg?after={len(fault)}-{hash(fault)}")]
    return {
        path: servers[place % len(servers)].url(path_of(path)) for place, path in enumerate([*HONEST, *paths])
    }


@pytest.fixture(scope="module")
def found(servers: list[FaultServer]) -> Timed:
    """Fetch everything at once; the seconds are those from the common start to each row's end."""
    urls = spread(servers)

    async def run() -> Timed:
        names, timed = list(urls), {}
        async with Fetcher(settings_for(servers)) as fetcher:
            started = time.monotonic()
            async for index, fetched in fetcher.fetch_all(list(urls.values())):
                timed[names[index]] = (fetched, time.monotonic() - started)
        return timed

    return asyncio.run(asyncio.wait_for(run(), 60))


def test_there_are_over_sixty_of_them() -> None:
    assert len(HOSTILE) + len(UNDECODABLE) > 60


@pytest.mark.parametrize("fault", HOSTILE)
def test_a_fault_costs_its_row_for_its_reason(found: Timed, servers: list[FaultServer], fault: str) -> None:
    fetched, _ = found[fault]
    assert (reason_of(fetched), body_of(fetched)) == (HOSTILE[fault], None)
    assert not any(
        str(server.port) in detail_of(fetched) or server.host in detail_of(fetched) for server in servers
    )


def test_nothing_else_is_lost(found: Timed, promise: Callable[[int, str], None]) -> None:
    assert {path: reason_of(fetched) for path, (fetched, _) in found.items() if path not in HOSTILE} == {
        path: None for path in found if path not in HOSTILE
    }
    slowest = max(seconds for _, seconds in found.values())
    refused = sum(reason == Reason.OPTED_OUT for reason in HOSTILE.values())
    promise(
        22,
        f"{len(HOSTILE)} faults at once: the slowest row took {slowest:.1f} s at a deadline of {DEADLINE_S:.0f} s",
    )
    promise(23, f"{refused} of {refused} refusing answers refused")


def test_bodies_that_are_no_pictures_cost_their_row(servers: list[FaultServer]) -> None:
    paths = [path for fault in UNDECODABLE for path in (fault, f"/ok/1.jpg?after={fault[1:]}")]
    engine = NativeEngine(settings_for(servers).model_copy(update={"timeout_s": 20.0}))
    try:
        outcomes = engine.outcomes([servers[0].url(path) for path in paths])
    finally:
        engine.close()
    reasons: dict[str, Reason | None] = {path: UNDECODABLE.get(path) for path in paths}
    assert {path: reason_of(outcome) for path, outcome in zip(paths, outcomes, strict=True)} == reasons
