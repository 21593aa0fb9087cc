"""Pretended fetchers at real lease tables: the code of fetchers and tables runs, requests to hosts are replaced by a wait.

Time is the event loop's own and is not slept. The CPU of a table is what it takes to read a request, to answer it and to write the
response, as its actor does; Ray's own work per call is not in it.
"""

import asyncio
import pickle
import selectors
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from corgi.fetching import host_slots, lease_client
from corgi.fetching.host_slots import HostSlots
from corgi.fetching.lease_actor import ClusterLeases
from corgi.fetching.lease_table import LeaseRequest, LeaseResponse, LeaseTable
from corgi.fetching.scheduler import Room, as_completed
from corgi.settings.data import DownloadSettings

HOSTS, ROWS = 1_000_000, 1_000
"""Hosts that lists name, by Zipf's law; rows of a fetcher's list."""
REQUEST_S, LATENCY_S = 1.0, 0.002
"""What a host takes to answer a fetcher, and the way to a table and back."""
WARM_S, MEASURED_S = 3.0, 5.0
_DEFAULT = DownloadSettings()


class HostLoad(NamedTuple):
    """What a fleet asks of its tables per second, and what it fetches."""

    busiest_cpu_s: float
    """CPU-seconds of the table that has most to do."""
    requests: float
    """Over all tables."""
    urls: float
    """Of one fetcher."""


@dataclass
class Clock:
    """The time of the event loop."""

    now: float = 0.0

    def time(self) -> float:
        """Return it."""
        return self.now


class _Instant(selectors.DefaultSelector):  # pyright: ignore[reportGeneralTypeIssues, reportUntypedBaseClass]
    """Waits for nothing: time goes on to the next thing to do."""

    clock: Clock

    def select(self, timeout: float | None = None) -> list[Any]:
        self.clock.now += timeout or 0.0
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, clock: Clock) -> None:
        selector = _Instant()
        selector.clock = clock
        super().__init__(selector)
        self._told = clock

    def time(self) -> float:
        return self._told.now


@dataclass
class Accounted:
    """A lease table whose CPU time is accounted."""

    clock: Clock
    table: LeaseTable = field(default_factory=LeaseTable)
    cpu_s: float = 0.0
    num_requests: int = 0

    def lease(self, sent: bytes) -> bytes:
        """Answer a request as it comes over the network."""
        before = time.process_time()
        request: LeaseRequest = pickle.loads(sent)  # noqa: S301 our own
        response = pickle.dumps(self.table.lease(request, self.clock.now))
        self.cpu_s += time.process_time() - before
        self.num_requests += 1
        return response


@dataclass
class Pretended:
    """Where a pretended fetcher leases: spaced as in a cluster."""

    interval_s: float
    accounted: Accounted

    async def lease(self, request: LeaseRequest) -> LeaseResponse:
        """Return what the table grants."""
        await asyncio.sleep(LATENCY_S)
        return pickle.loads(self.accounted.lease(pickle.dumps(request)))  # noqa: S301 our own


def host_load(num_fetchers: int, num_tables: int) -> HostLoad:
    """Return the load of a fleet whose fetchers each have a list of their own, after they have begun."""
    clock = Clock()
    tables = [Accounted(clock) for _ in range(num_tables)]
    with (
        mock.patch.object(lease_client, "monotonic", clock.time),
        mock.patch.object(host_slots, "monotonic", clock.time),
        asyncio.Runner(loop_factory=lambda: _Loop(clock)) as runner,
    ):
        return runner.run(_measured(clock, tables, num_fetchers))


async def _measured(clock: Clock, tables: list[Accounted], num_fetchers: int) -> HostLoad:
    draw, fetched = np.random.default_rng(3), [0]
    interval_s = ClusterLeases(num_fetchers).interval_s
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_fetch(tables, interval_s, _hosts(draw), at / num_fetchers, fetched))
            for at in range(num_fetchers)
        ]
        await asyncio.sleep(WARM_S)
        before = [(table.cpu_s, table.num_requests) for table in tables]
        begun, fetched[0] = clock.now, 0
        await asyncio.sleep(MEASURED_S)
        took_s = clock.now - begun
        spent = [
            (table.cpu_s - cpu_s, table.num_requests - number)
            for table, (cpu_s, number) in zip(tables, before, strict=True)
        ]
        urls = fetched[0] / num_fetchers / took_s
        for task in tasks:
            task.cancel()
    return HostLoad(
        max(cpu_s for cpu_s, _ in spent) / took_s, sum(number for _, number in spent) / took_s, urls
    )


def _hosts(draw: np.random.Generator) -> list[str]:
    ranks = np.minimum(draw.zipf(1.15, ROWS), HOSTS)
    return [f"host-{rank}.example" for rank in ranks]


async def _fetch(
    tables: list[Accounted], interval_s: float, hosts: list[str], begin_s: float, fetched: list[int]
) -> None:
    """Fetch a list as a fetcher does, begun `begin_s` late so that not all ask in the same moment."""
    leases = [Pretended(interval_s, table) for table in tables]
    slots = HostSlots(leases, _DEFAULT.host_connections, _DEFAULT.host_delay_s)

    async def one(index: int, is_last: bool) -> None:
        await asyncio.sleep(REQUEST_S)
        slots.give(hosts[index])

    await asyncio.sleep(begin_s)
    async for _ in as_completed(hosts, slots, one, Room(_DEFAULT.connections)):
        fetched[0] += 1
