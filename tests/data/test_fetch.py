"""The fetch against a server that misbehaves: each URL costs one outcome, bounded time and bounded bytes."""

import asyncio
import socket
import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from corgi.data.fetch import MAX_REDIRECTS, Fetched, Fetcher
from corgi.settings.data import DownloadSettings
from corgi.tables.schema import Reason
from tests.support.fault_server import FaultServer
from tests.support.pictures import encoded, scene

DEADLINE_S = 1.0
REASONS = {
    "/slow/10": Reason.TIMEOUT,
    "/stall/10": Reason.TIMEOUT,
    "/endless": Reason.TOO_LARGE,
    "/gzipbomb": Reason.TOO_LARGE,
    "/brotli": Reason.NOT_AN_IMAGE,
    "/short": Reason.SHORT_BODY,
    "/reset/0": Reason.CONNECTION,
    "/reset/100": Reason.SHORT_BODY,
    "/halfclose": Reason.CONNECTION,
    "/garbage": Reason.CONNECTION,
    "/headers/64": Reason.CONNECTION,
    "/status/404": Reason.HTTP_STATUS,
    "/status/410": Reason.HTTP_STATUS,
    "/status/503": Reason.HTTP_STATUS,
    "/status/206": Reason.HTTP_STATUS,
    "/redirect/6": Reason.TOO_MANY_REDIRECTS,
    "/redirect-to?u=file:///etc/passwd": Reason.BAD_URL,
    "/redirect-to?u=http://127.0.0.2:80/": Reason.BLOCKED_ADDRESS,
    "/redirect-to?u=http://10.0.0.1/": Reason.BLOCKED_ADDRESS,
    "/redirect-to?u=http://[::1]/": Reason.BLOCKED_ADDRESS,
    "/noai": Reason.OPTED_OUT,
    "/robots?v=all,noindex": Reason.OPTED_OUT,
    "/robots?v=none": Reason.OPTED_OUT,
    "/robots?v=unavailable_after:25 Jun 2010 15:00:00 PST, noai": Reason.OPTED_OUT,
    "/robots?v=corgi: noindex": Reason.OPTED_OUT,
    "/robots?v=otherbot: noai": Reason.OPTED_OUT,
}
WHOLE = [
    "/ok/1.jpg",
    "/ok/1.png",
    "/gzip/1.jpg",
    "/chunked/1.jpg",
    "/redirect/5",
    "/headers/1",
    "/once/503/1.jpg",
    "/robots?v=otherbot: noindex",
    "/robots?v=max-snippet:0",
]


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


def settings_for(server: FaultServer, **changes: object) -> DownloadSettings:
    values = {
        "allow_private": (server.address,),
        "timeout_s": DEADLINE_S,
        "max_bytes": 2**20,
        "connections": 16,
        **changes,
    }
    return DownloadSettings.model_validate(values)


def fetch_each(settings: DownloadSettings, urls: list[str]) -> list[Fetched]:
    async def run() -> list[Fetched]:
        async with Fetcher(settings) as fetcher:
            found = {index: fetched async for index, fetched in fetcher.fetch_all(urls)}
        return [found[index] for index in range(len(urls))]

    return asyncio.run(run())


def encoded_path(path: str) -> str:
    return path.replace(" ", "%20")


def test_every_fault_has_its_reason_within_the_deadline(server: FaultServer) -> None:
    server.forget()
    started = time.monotonic()
    found = fetch_each(settings_for(server), [server.url(encoded_path(path)) for path in REASONS])
    assert (
        time.monotonic() - started < 2 * DEADLINE_S + 1
    )  # more URLs than places: two windows may follow each other
    assert {path: fetched.reason for path, fetched in zip(REASONS, found, strict=True)} == REASONS
    assert all(fetched.body is None for fetched in found)
    assert not any(
        server.address in fetched.detail or str(server.port) in fetched.detail for fetched in found
    )


def test_honest_answers_come_whole(server: FaultServer) -> None:
    server.forget()
    found = fetch_each(settings_for(server), [server.url(encoded_path(path)) for path in WHOLE])
    assert [fetched.reason for fetched in found] == [None] * len(WHOLE)
    jpeg, png = encoded(scene(1)), encoded(scene(1), "PNG")
    assert [fetched.body for fetched in found] == [jpeg, png, *[jpeg] * (len(WHOLE) - 2)]
    assert all(fetched.num_bytes == len(fetched.body or b"") for fetched in found)


def test_only_passing_faults_are_tried_again(server: FaultServer) -> None:
    for path, tries in {
        "/status/404": 1,
        "/status/503": 3,
        "/status/429": 3,
        "/short": 3,
        "/noai": 1,
        "/endless": 1,
    }.items():
        server.forget()
        fetch_each(settings_for(server, timeout_s=5, retries=2), [server.url(path)])
        assert (path, len(server.requests)) == (path, tries)
    server.forget()
    fetch_each(settings_for(server, timeout_s=5, retries=2), [server.url("/reset/0")])
    assert (
        3 <= len(server.requests) <= 6
    )  # the client itself asks once more when a connection dies before any answer


def test_no_retries_means_one_request(server: FaultServer) -> None:
    server.forget()
    (fetched,) = fetch_each(settings_for(server, retries=0), [server.url("/once/503/9.jpg")])
    assert (fetched.reason, fetched.http_status, len(server.requests)) == (Reason.HTTP_STATUS, 503, 1)


def test_retry_after_is_honoured_and_never_outlives_the_deadline(server: FaultServer) -> None:
    server.forget()
    started = time.monotonic()
    (fetched,) = fetch_each(settings_for(server), [server.url("/status/429?retry_after=86400")])
    assert DEADLINE_S <= time.monotonic() - started < DEADLINE_S + 1
    assert (fetched.reason, fetched.http_status, len(server.requests)) == (Reason.HTTP_STATUS, 429, 1)


def test_each_redirect_is_one_request_and_the_sixth_is_not_made(server: FaultServer) -> None:
    server.forget()
    fetch_each(settings_for(server), [server.url("/redirect/6")])
    assert len(server.requests) == MAX_REDIRECTS + 1
    assert "/ok/1.jpg" not in server.requests


def test_connections_are_kept_and_bounded(server: FaultServer) -> None:
    server.forget()
    found = fetch_each(
        settings_for(server, connections=4), [server.url(f"/ok/{seed}.jpg") for seed in range(100)]
    )
    assert all(fetched.body for fetched in found)
    assert server.connections <= 4
    assert server.most_in_flight <= 4


def test_one_slow_url_does_not_hold_the_others(server: FaultServer) -> None:
    async def order() -> list[int]:
        urls = [server.url("/stall/1"), *[server.url(f"/ok/{seed}.jpg") for seed in range(40)]]
        async with Fetcher(settings_for(server, connections=2)) as fetcher:
            return [index async for index, _ in fetcher.fetch_all(urls)]

    found = asyncio.run(order())
    assert found[-1] == 0
    assert sorted(found) == list(range(41))


def test_an_abandoned_window_leaves_no_request_running(server: FaultServer) -> None:
    async def first() -> int:
        async with Fetcher(settings_for(server)) as fetcher:
            window = fetcher.fetch_all([server.url("/ok/1.jpg"), *[server.url("/stall/1")] * 8])
            index, _ = await anext(window)
            await window.aclose()
            assert len(asyncio.all_tasks()) == 1
            return index

    assert asyncio.run(first()) == 0


def test_the_recipe_may_name_where_a_host_lives(server: FaultServer) -> None:
    settings = settings_for(server, resolve=[f"pictures.test:80={server.address}"])
    kept, other = fetch_each(settings, ["http://pictures.test/ok/1.jpg", "http://pictures.test:81/ok/1.jpg"])
    assert kept.body == encoded(scene(1))
    assert other.reason == Reason.DNS


def test_a_named_place_is_judged_like_any_other(server: FaultServer) -> None:
    settings = settings_for(server, resolve=[f"pictures.test:80={server.address}"], allow_private=[])
    server.forget()
    (fetched,) = fetch_each(settings, ["http://pictures.test/ok/1.jpg"])
    assert (fetched.reason, server.connections) == (Reason.BLOCKED_ADDRESS, 0)


def test_the_user_agent_is_ours_and_proxies_of_the_environment_are_not_used(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.2:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.2:9")
    server.user_agents.clear()
    (fetched,) = fetch_each(settings_for(server, user_agent="corgi/9 (me)"), [server.url("/ok/1.jpg")])
    assert fetched.body
    assert server.user_agents == {"corgi/9 (me)"}


def spellings(port: int) -> list[str]:
    """Return over a hundred ways to write a loopback or private address with the canary's port."""
    hosts = [
        "127.0.0.2", "127.0.0.02", "127.2", "127.0.2", "0x7f000002", "0X7F.0x0.0x0.0x2", "2130706434", "017700000002", "0177.0.0.2",
        "0177.0x0.0.2", "127.0.0.2.", "①②⑦.⓪.⓪.②", "127。0。0。2", "\uff11\uff12\uff17.0.0.2", "[::ffff:127.0.0.2]", "[::ffff:7f00:2]",
        "[0:0:0:0:0:ffff:127.0.0.2]", "[::127.0.0.2]", "[64:ff9b::127.0.0.2]", "[2002:7f00:2::]", "[::1]", "[::]", "0.0.0.0", "0",
        "localhost", "LOCALHOST", "localhost.", "localhost.localdomain", "ip6-localhost", "0x7f.2", "127.0.0.2%00", "127.0.0.2%20",
        "[fe80::1%25lo]", "[::ffff:0:127.0.0.2]", "127.00.00.02", "%31%32%37.0.0.2",
    ]  # fmt: skip
    plain = [f"http://{host}:{port}/ok/1.jpg" for host in hosts]
    secure = [f"https://{host}:{port}/ok/1.jpg" for host in hosts]
    tricks = [
        f"http://8.8.8.8@127.0.0.2:{port}/", f"http://user:x@127.0.0.2:{port}/", f"http://127.0.0.2:{port}\\@8.8.8.8/",
        f"http://8.8.8.8\\@127.0.0.2:{port}/", f"http://8.8.8.8#@127.0.0.2:{port}/", f"http:127.0.0.2:{port}/", f"http:/127.0.0.2:{port}/",
        f"http:////127.0.0.2:{port}/", f"//127.0.0.2:{port}/", f"127.0.0.2:{port}", f"ftp://127.0.0.2:{port}/", f"gopher://127.0.0.2:{port}/_x",
        f"dict://127.0.0.2:{port}/", f"ws://127.0.0.2:{port}/", f"unix://127.0.0.2:{port}", "file:///etc/passwd", "data:image/png;base64,AA",
        f"http://127.0.0.2:{port}\r\nHost: a/", f"http://127.0.0.2\t:{port}/", f" http://127.0.0.2:{port}/", f"http://127.0.0.2 :{port}/",
        f"http://[127.0.0.2]:{port}/", f"http://[::ffff:127.0.0.2:{port}/", f"http://127.0.0.2:+{port}/", f"http://127.0.0.2:0{port}/",
        f"http://127.0.0.2:{port}/?u=http://8.8.8.8/", f"HTTP://127.0.0.2:{port}/", f"hTTp://127.0.0.2:{port}/",
        f"http+unix://127.0.0.2:{port}/", f"jar:http://127.0.0.2:{port}!/",
    ]  # fmt: skip
    return [*plain, *secure, *tricks]


def test_the_canary_hears_nothing_whatever_the_spelling(server: FaultServer) -> None:
    with FaultServer("127.0.0.2") as canary:
        urls = spellings(canary.port)
        assert len(urls) >= 100
        plain = [url for url in urls if url.isprintable() and " " not in url and "%00" not in url]
        hops = [server.url(f"/redirect-to?u={quote(url)}") for url in plain]
        found = fetch_each(settings_for(server, connections=64, retries=0), [*urls, *hops])
        assert canary.connections == 0
    assert all(fetched.body is None for fetched in found)
    allowed = {Reason.BAD_URL, Reason.BLOCKED_ADDRESS, Reason.DNS, Reason.HTTP_STATUS}
    assert {fetched.reason for fetched in found} <= allowed


def test_a_name_that_changes_its_address_is_judged_each_time(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultServer("127.0.0.2") as canary:
        answers = iter(["127.0.0.1"])

        def look_up(host: str, port: int, **_: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers, "127.0.0.2"), canary.port))]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        settings = settings_for(server, allow_private=[f"127.0.0.1:{canary.port}"], retries=2)
        found = fetch_each(
            settings, [f"http://rebind.test:{canary.port}/ok/{seed}.jpg" for seed in range(20)]
        )
        assert canary.connections == 0
    assert {fetched.reason for fetched in found} <= {Reason.CONNECTION, Reason.BLOCKED_ADDRESS}


def test_the_canary_can_hear(server: FaultServer) -> None:
    with FaultServer("127.0.0.2") as canary:
        (fetched,) = fetch_each(
            settings_for(server, allow_private=[canary.address]), [canary.url("/ok/1.jpg")]
        )
        assert (fetched.body, canary.connections) == (encoded(scene(1)), 1)
