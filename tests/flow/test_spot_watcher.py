"""A spot machine's notice drains its node once, with the right deadline, whatever the metadata server does before.

That Ray's head accepts the drain: `test_cluster.py`.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from corgi.flow import metadata_server, spot_watcher
from corgi.flow.metadata_server import connected
from corgi.flow.spot_watcher import main, watch
from corgi.settings.errors import ClusterError
from tests.support.metadata_server import (
    FAULTS,
    AwsMetadata,
    ClockEndedError,
    FakeClock,
    GcpMetadata,
    LoopbackMetadata,
)
from tests.support.ports import free_port

CLOUDS = {"aws": AwsMetadata, "gcp": GcpMetadata}
SLACK_S = {"aws": metadata_server.AWS_PAUSE_S, "gcp": metadata_server.GCP_PAUSE_S}
"""Longest time from a notice to its reading."""
SILENT = ("hangs", "drips")
"""Faults that only a time-out ends."""
Drain = Callable[[float], None]


class Drains:
    """What the watcher asked to be drained: (time of the call, deadline); the first `refused` calls are refused."""

    def __init__(self, clock: FakeClock, refused: float = 0) -> None:
        self.clock, self.refused = clock, refused
        self.calls: list[tuple[float, float]] = []

    def __call__(self, deadline: float) -> None:
        self.calls.append((self.clock.time, deadline))
        if len(self.calls) <= self.refused:
            raise ClusterError("the head does not respond; committed work is safe; wait")


def run(name: str, server: LoopbackMetadata, drain: Drain, url: str = "", timeout_s: float = 5.0) -> None:
    """Watch until the watcher ends by itself or the fake clock does."""

    async def whole() -> None:
        async with connected(name, url or server.url, server.clock.clock, timeout_s) as cloud:
            await watch(cloud, drain, server.clock.clock)

    try:
        asyncio.run(whole())
    except ClockEndedError:
        assert server.clock.time >= server.clock.ends_at


@pytest.fixture(params=list(CLOUDS))
def cloud(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("notice_at", [0.0, 3.0, 20.0, 61.0, 400.0])
def test_law_a_notice_is_one_drain_with_the_clouds_deadline(cloud: str, notice_at: float) -> None:
    clock = FakeClock()
    with CLOUDS[cloud](clock, notice_at) as server:
        drains = Drains(clock)
        run(cloud, server, drains)
    [(called, deadline)] = drains.calls
    assert notice_at <= called <= notice_at + SLACK_S[cloud]
    start = notice_at if cloud == "aws" else called  # GCP names no time
    assert deadline == start + server.notice_s


def test_law_without_a_notice_nothing_is_drained(cloud: str) -> None:
    clock = FakeClock(ends_at=900.0)
    with CLOUDS[cloud](clock) as server:
        drains = Drains(clock)
        run(cloud, server, drains)
    assert drains.calls == []
    assert clock.time >= 900.0
    assert len(server.requests) > 30


def test_law_no_request_carries_an_expired_token_and_each_token_serves_many() -> None:
    clock = FakeClock(ends_at=1_500.0)
    with AwsMetadata(clock) as server:
        run("aws", server, Drains(clock))
    tokens = sum(method == "PUT" for method, _ in server.requests)
    looks = sum(path.endswith("instance-action") for _, path in server.requests)
    assert looks == 300, "an expired token would cost a second request"
    assert 5 <= tokens <= 11


def test_a_token_that_the_server_forgot_is_renewed_at_once() -> None:
    clock = FakeClock(ends_at=100.0)
    with AwsMetadata(clock, notice_at=50.0) as server:
        drains = Drains(clock)
        forget = clock.sleep

        async def sleep(seconds: float) -> None:
            server.tokens.clear()
            await forget(seconds)

        clock.sleep = sleep
        run("aws", server, drains)
    assert drains.calls == [(50.0, 170.0)]


@pytest.mark.parametrize("fault", list(FAULTS))
@pytest.mark.parametrize("begins_at", [0.0, 30.0])
def test_law_a_broken_metadata_server_is_survived(
    cloud: str, fault: str, begins_at: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that breaks at the start or later, for three looks, ends in the same one drain."""
    monkeypatch.setattr(metadata_server, "GCP_WAIT_S", 0)
    clock = FakeClock(ends_at=200.0)
    with CLOUDS[cloud](clock, notice_at=100.0) as server:
        drains = Drains(clock)
        told = server.answer

        def answer(handler: Any) -> None:
            if clock.time >= begins_at and server.faults < 3:
                server.faults += 1
                FAULTS[fault](server, handler)
            else:
                told(handler)

        server.answer = answer
        run(cloud, server, drains, timeout_s=0.3 if fault in SILENT else 5.0)
    harmless = cloud == "aws" and fault == "404" and begins_at
    assert server.faults == 3 or harmless
    [(called, deadline)] = drains.calls
    assert deadline == (100.0 if cloud == "aws" else called) + server.notice_s


def test_trouble_is_one_line_however_long_it_lasts(cloud: str, caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock(ends_at=900.0)
    with caplog.at_level(logging.INFO), CLOUDS[cloud](clock) as server:
        told = server.answer

        def answer(handler: Any) -> None:
            if 100 <= clock.time < 600:
                FAULTS["500"](server, handler)
            else:
                told(handler)

        server.answer = answer
        run(cloud, server, Drains(clock))
    lines = [record.getMessage() for record in caplog.records if record.name == "spot_watcher"]
    assert len(lines) == 3, lines
    assert "500" in lines[1]
    assert "responds again" in lines[2]


def test_a_machine_at_the_full_price_is_one_line_and_the_end(
    cloud: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    with caplog.at_level(logging.INFO), CLOUDS[cloud](clock, notice_at=0.0, is_spot=False) as server:
        drains = Drains(clock)
        run(cloud, server, drains)
    assert drains.calls == []
    assert [r.getMessage() for r in caplog.records if r.name == "spot_watcher"] == [
        "this machine is not spot: nothing to watch"
    ]


@pytest.mark.parametrize("why", ["nobody", "500", "404", "hangs", "the other cloud"])
def test_where_there_is_no_such_cloud_one_line_ends_the_watcher(cloud: str, why: str) -> None:
    clock = FakeClock()
    [other] = set(CLOUDS) - {cloud}
    with CLOUDS[other if why == "the other cloud" else cloud](clock, notice_at=0.0) as server:
        server.fault = why if why in FAULTS else ""
        drains = Drains(clock)
        url = f"http://127.0.0.1:{free_port()}" if why == "nobody" else ""
        with pytest.raises(ClusterError, match=r"^[^\n]*no usable metadata server[^\n]*$"):
            run(cloud, server, drains, url, timeout_s=0.1 if why in SILENT else 5.0)
    assert drains.calls == []


def test_a_drain_that_fails_is_tried_again_until_it_is_accepted(cloud: str) -> None:
    clock = FakeClock()
    with CLOUDS[cloud](clock, notice_at=40.0) as server:
        drains = Drains(clock, refused=5)
        run(cloud, server, drains)
    assert len(drains.calls) == 6
    assert len({deadline for _, deadline in drains.calls}) == 1


def test_a_drain_that_is_never_accepted_ends_at_the_deadline(cloud: str) -> None:
    clock = FakeClock()
    with CLOUDS[cloud](clock, notice_at=40.0) as server:
        drains = Drains(clock, refused=float("inf"))
        with pytest.raises(ClusterError):
            run(cloud, server, drains)
    called, deadline = drains.calls[-1]
    assert deadline - spot_watcher.DRAIN_PAUSE_S <= called <= deadline


def test_law_only_the_notice_and_the_market_are_asked_for(
    cloud: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No credential is read, and no proxy of the environment sees a request."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    clock = FakeClock()
    with CLOUDS[cloud](clock, notice_at=100.0) as server:
        drains = Drains(clock)
        run(cloud, server, drains)
    assert len(drains.calls) == 1
    assert {(method, path.partition("?")[0]) for method, path in server.requests} == {
        "aws": {
            ("PUT", "/latest/api/token"),
            ("GET", "/latest/meta-data/instance-life-cycle"),
            ("GET", "/latest/meta-data/spot/instance-action"),
        },
        "gcp": {
            ("GET", "/computeMetadata/v1/instance/scheduling/preemptible"),
            ("GET", "/computeMetadata/v1/instance/preempted"),
        },
    }[cloud]


def test_without_a_ray_node_the_drain_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private import services

    monkeypatch.setattr(services, "find_node_ids", lambda: set[str]())
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port()}")
    with pytest.raises(ClusterError, match=r"^[^\n]*no Ray node runs on this machine[^\n]*$"):
        spot_watcher.drain_node(4e9)


def test_exit_codes(cloud: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(spot_watcher, "drain_node", asked.append)
    monkeypatch.setattr(spot_watcher, "START_ATTEMPTS", 1)
    monkeypatch.setattr(spot_watcher, "Clock", lambda: FakeClock().clock)
    with CLOUDS[cloud](FakeClock(), notice_at=0.0) as server:
        assert main([cloud, "--metadata-server", server.url]) == 0
        assert asked == pytest.approx([server.notice_s])
        server.is_spot = False
        assert main([cloud, "--metadata-server", server.url]) == 0
    assert main([cloud, "--metadata-server", f"http://127.0.0.1:{free_port()}"]) == 5
    with pytest.raises(SystemExit) as ended:
        main(["azure"])
    assert ended.value.code == 2
