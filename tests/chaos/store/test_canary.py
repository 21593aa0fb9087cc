"""Ten thousand generated URLs, each asked for directly and as the place of a redirect: the canary hears nothing."""

import socket
from collections.abc import Callable
from urllib.parse import quote

import hypothesis
import pytest
from hypothesis import strategies as st

from corgi.settings.data import DownloadSettings
from tests.fetching.test_exchange import fetch_each
from tests.support.fault_server import FaultServer
from tests.support.results import body_of
from tests.support.spellings import hostile_resolver, urls


@pytest.mark.timeout(900)
def test_ten_thousand_urls_reach_no_private_address(
    monkeypatch: pytest.MonkeyPatch, promise: Callable[[int, str], None]
) -> None:
    num_urls = 0
    with FaultServer() as server, FaultServer("127.0.0.2") as canary:
        monkeypatch.setattr(socket, "getaddrinfo", hostile_resolver(canary.host))
        values = {"allow_private": [server.address], "timeout_s": 5.0, "connections": 64, "retries": 0}
        settings = DownloadSettings.model_validate({**values, "host_connections": 64, "host_max_faults": 0})

        @hypothesis.settings(max_examples=500, database=None, derandomize=True)
        @hypothesis.given(st.lists(urls(canary.port), min_size=20, max_size=20))
        def reach(generated: list[str]) -> None:
            nonlocal num_urls
            num_urls += len(generated)
            hops = [server.url(f"/redirect-to?u={quote(url)}") for url in generated]
            assert not any(body_of(fetched) for fetched in fetch_each(settings, [*generated, *hops]))
            assert canary.connections == 0

        reach()
    assert num_urls >= 10_000
    promise(21, f"{num_urls} generated URLs, each also as a redirect: 0 connections at the canary")
