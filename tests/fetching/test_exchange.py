"""The fetch against a server that misbehaves: each URL costs one outcome, bounded time and bounded bytes."""

import asyncio
import hashlib
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import hypothesis
import pytest
from hypothesis import strategies as st

from corgi.fetching.fetcher import MAX_REDIRECTS, Fetcher
from corgi.fetching.response import Body
from corgi.settings.data import DownloadSettings
from corgi.tables.rejection import Rejection
from corgi.tables.schema import Reason
from tests.support.fault_server import FaultServer
from tests.support.pictures import encoded, scene
from tests.support.programs import require_program
from tests.support.results import body_of, detail_of, reason_of
from tests.support.spellings import hostile_resolver, urls

DEADLINE_S = 1.0


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
        "obey_robots_txt": False,
        "host_max_faults": 0,
        **changes,
    }
    return DownloadSettings.model_validate(values)


def fetch_each(settings: DownloadSettings, urls: list[str]) -> list[Body | Rejection]:
    async def run() -> list[Body | Rejection]:
        async with Fetcher(settings) as fetcher:
            found = {index: fetched async for index, fetched in fetcher.fetch_all(urls)}
        return [found[index] for index in range(len(urls))]

    return asyncio.run(run())


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


def test_a_retry_opens_a_connection_of_its_own(server: FaultServer) -> None:
    """Each connection answers once and then sends bytes that belong to no answer: all four kept-alive ones are unusable."""
    server.forget()

    async def run() -> tuple[list[Body | Rejection], Body | Rejection]:
        async with Fetcher(settings_for(server, timeout_s=5, retries=1, connections=4)) as fetcher:
            first = [found async for _, found in fetcher.fetch_all([server.url("/first/1.jpg")] * 4)]
            return first, await fetcher.fetch(server.url("/first/2.jpg"))

    first, later = asyncio.run(run())
    assert server.connections == 5
    assert [reason_of(found) for found in [*first, later]] == [None] * 5


def test_no_retries_means_one_request(server: FaultServer) -> None:
    server.forget()
    (fetched,) = fetch_each(settings_for(server, retries=0), [server.url("/once/503/9.jpg")])
    assert (reason_of(fetched), fetched.http_status, len(server.requests)) == (Reason.HTTP_STATUS, 503, 1)


def test_retry_after_is_honoured_and_never_outlives_the_deadline(server: FaultServer) -> None:
    server.forget()
    (fetched,) = fetch_each(settings_for(server), [server.url("/status/429?retry_after=86400")])
    assert (reason_of(fetched), fetched.http_status, len(server.requests)) == (Reason.HTTP_STATUS, 429, 1)


def test_each_redirect_is_one_request_and_the_sixth_is_not_made(server: FaultServer) -> None:
    server.forget()
    fetch_each(settings_for(server), [server.url("/redirect/6")])
    assert len(server.requests) == MAX_REDIRECTS + 1
    assert "/ok/1.jpg" not in server.requests


def test_every_hop_asks_for_the_text_it_was_given(server: FaultServer) -> None:
    signed = "/signed/a%2Cb%27%7E|x//c;?u=http%3A%2F%2Fd%2F&s=a%2Bb%3D+[]"
    server.signed, start = {signed}, "/redirect-to?u="
    first, second = start + quote(quote(start + quote(quote(signed)))), start + quote(quote(signed))
    try:
        server.forget()
        (fetched,) = fetch_each(settings_for(server), [server.url(first)])
        assert (reason_of(fetched), server.requests) == (None, [first, second, signed])
    finally:
        server.signed = set()


def test_connections_are_kept_and_bounded(server: FaultServer) -> None:
    server.forget()
    found = fetch_each(
        settings_for(server, connections=4), [server.url(f"/ok/{seed}.jpg") for seed in range(100)]
    )
    assert all(body_of(fetched) for fetched in found)
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
    assert body_of(kept) == encoded(scene(1))
    assert reason_of(other) == Reason.DNS


def test_a_named_place_is_judged_like_any_other(server: FaultServer) -> None:
    settings = settings_for(server, resolve=[f"pictures.test:80={server.address}"], allow_private=[])
    server.forget()
    (fetched,) = fetch_each(settings, ["http://pictures.test/ok/1.jpg"])
    assert (reason_of(fetched), server.connections) == (Reason.BLOCKED_ADDRESS, 0)


def test_the_user_agent_is_ours_and_proxies_of_the_environment_are_not_used(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.2:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.2:9")
    server.user_agents.clear()
    (fetched,) = fetch_each(settings_for(server, user_agent="corgi/9 (me)"), [server.url("/ok/1.jpg")])
    assert body_of(fetched)
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


def test_the_canary_hears_nothing_whatever_the_spelling(
    server: FaultServer, promise: Callable[[int, str], None]
) -> None:
    with FaultServer("127.0.0.2") as canary:
        urls = spellings(canary.port)
        assert len(urls) >= 100
        plain = [url for url in urls if url.isprintable() and " " not in url and "%00" not in url]
        hops = [server.url(f"/redirect-to?u={quote(url)}") for url in plain]
        found = fetch_each(settings_for(server, connections=64, retries=0), [*urls, *hops])
        assert canary.connections == 0
    assert all(body_of(fetched) is None for fetched in found)
    allowed = {Reason.BAD_URL, Reason.BLOCKED_ADDRESS, Reason.DNS, Reason.HTTP_STATUS}
    assert {reason_of(fetched) for fetched in found} <= allowed
    promise(21, f"{len(urls)} spellings and {len(hops)} redirects to them: 0 connections at the canary")


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
    assert {reason_of(fetched) for fetched in found} <= {Reason.CONNECTION, Reason.BLOCKED_ADDRESS}


@pytest.mark.parametrize("examples", [25])
def test_no_generated_url_reaches_the_canary(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch, examples: int, promise: Callable[[int, str], None]
) -> None:
    """Twenty URLs an example, each asked for directly and as the place of a redirect."""
    with FaultServer("127.0.0.2") as canary:
        monkeypatch.setattr(socket, "getaddrinfo", hostile_resolver(canary.host))
        settings = settings_for(server, connections=64, retries=0, host_connections=64)

        @hypothesis.settings(max_examples=examples, database=None, derandomize=True)
        @hypothesis.given(st.lists(urls(canary.port), min_size=20, max_size=20))
        def reach(generated: list[str]) -> None:
            hops = [server.url(f"/redirect-to?u={quote(url)}") for url in generated]
            found = fetch_each(settings, [*generated, *hops])
            assert not any(body_of(fetched) for fetched in found)
            assert canary.connections == 0

        reach()
    promise(21, f"{20 * examples} generated URLs, each also as a redirect: 0 connections at the canary")


def test_a_chain_of_hosts_ends_before_the_canary(server: FaultServer) -> None:
    with FaultServer("127.0.0.2") as canary, FaultServer("127.0.0.3") as second:
        last = f"/redirect-to?u={quote(canary.url('/ok/1.jpg'))}"
        middle = f"/redirect-to?u={quote(second.url(last))}"
        settings = settings_for(server, allow_private=[server.address, second.address])
        (fetched,) = fetch_each(settings, [server.url(middle)])
        assert (reason_of(fetched), canary.connections, len(second.requests)) == (
            Reason.BLOCKED_ADDRESS,
            0,
            1,
        )


def test_the_canary_can_hear(server: FaultServer) -> None:
    with FaultServer("127.0.0.2") as canary:
        (fetched,) = fetch_each(
            settings_for(server, allow_private=[canary.address]), [canary.url("/ok/1.jpg")]
        )
        assert (body_of(fetched), canary.connections) == (encoded(scene(1)), 1)


def test_a_body_must_have_the_hash_expected(server: FaultServer, promise: Callable[[int, str], None]) -> None:
    body = encoded(scene(1))
    expected = {
        None: None,
        "": None,
        f"sha256:{hashlib.sha256(body).hexdigest()}": None,
        f"MD5:{hashlib.md5(body, usedforsecurity=False).hexdigest().upper()}": None,
        f"sha256:{hashlib.sha256(b'other').hexdigest()}": Reason.HASH_MISMATCH,
        "sha256:": Reason.HASH_MISMATCH,
        "crc32:0": Reason.HASH_MISMATCH,
    }

    async def run() -> list[Body | Rejection]:
        async with Fetcher(settings_for(server)) as fetcher:
            urls = [server.url("/ok/1.jpg")] * len(expected)
            found = {index: fetched async for index, fetched in fetcher.fetch_all(urls, list(expected))}
        return [found[index] for index in range(len(expected))]

    found = asyncio.run(run())
    assert [reason_of(fetched) for fetched in found] == list(expected.values())
    assert all((body_of(fetched) is None) == (reason_of(fetched) is not None) for fetched in found)
    promise(27, "3 of 3 bodies of another hash refused, 4 of 4 others kept")


def test_a_site_that_changes_its_picture_is_found_out(server: FaultServer) -> None:
    server.forget()
    url = server.url("/flip")
    (first,) = fetch_each(settings_for(server), [url])
    digest = hashlib.sha256(body_of(first) or b"").hexdigest()

    async def again() -> Body | Rejection:
        async with Fetcher(settings_for(server)) as fetcher:
            return await fetcher.fetch(url, f"sha256:{digest}")

    assert reason_of(asyncio.run(again())) == Reason.HASH_MISMATCH


def test_a_host_that_is_down_is_given_up_and_asked_again_after_the_pause(server: FaultServer) -> None:
    gone = f"127.0.0.4:{server.port}"
    settings = settings_for(
        server,
        allow_private=[server.address, gone],
        connections=1,
        retries=0,
        host_max_faults=5,
        host_pause_s=1.5,
    )
    urls = [f"http://{gone}/ok/{seed}.jpg" for seed in range(50)] + [server.url("/ok/1.jpg")]

    async def run() -> tuple[list[Reason | None], Reason | None]:
        async with Fetcher(settings) as fetcher:
            found = {index: reason_of(fetched) async for index, fetched in fetcher.fetch_all(urls)}
            await asyncio.sleep(1.6)
            later = await fetcher.fetch(urls[0])
        return [found[index] for index in range(len(urls))], reason_of(later)

    reasons, later = asyncio.run(run())
    assert reasons[:6] == [Reason.CONNECTION] * 5 + [Reason.HOST_UNAVAILABLE]
    assert (
        reasons.count(Reason.HOST_UNAVAILABLE) >= 43
    )  # a machine that stands still for the pause asks once more
    assert reasons[-1] is None
    assert later == Reason.CONNECTION


def test_a_host_that_answers_now_and_then_is_not_given_up(server: FaultServer) -> None:
    paths = [f"/status/503?n={n}" if n % 4 else f"/ok/{n}.jpg" for n in range(60)]
    settings = settings_for(server, connections=1, retries=0, host_max_faults=5)
    found = fetch_each(settings, [server.url(path) for path in paths])
    assert {reason_of(fetched) for fetched in found} == {None, Reason.HTTP_STATUS}


ROBOTS: dict[str, tuple[tuple[int, str] | str, Reason | None]] = {
    "absent": ((404, ""), None),
    "forbidden": ((403, ""), None),
    "open": ((200, "User-agent: *\nDisallow:"), None),
    "page": ((200, "<html>not found</html>"), None),
    "closed": ((200, "User-agent: *\nDisallow: /"), Reason.OPTED_OUT),
    "closed-to-us": ((200, "User-agent: *\nAllow: /\n\nUser-agent: Corgi\nDisallow: /ok"), Reason.OPTED_OUT),
    "closed-to-another": ((200, "User-agent: other\nDisallow: /"), None),
    "usage": ((200, "User-agent: *\nContent-Usage: train-ai=n"), Reason.OPTED_OUT),
    "broken": ((500, ""), Reason.HTTP_STATUS),
    "loop": ((301, "/robots.txt"), None),
    "private": ((301, "http://127.0.0.2/robots.txt"), Reason.BLOCKED_ADDRESS),
    "stall": ("stall", Reason.TIMEOUT),
    "reset": ("reset", Reason.CONNECTION),
}


@pytest.mark.parametrize("name", ROBOTS)
def test_robots_txt_is_asked_for_once_a_site_and_obeyed(server: FaultServer, name: str) -> None:
    server.forget()
    server.robots, reason = ROBOTS[name]
    try:
        settings = settings_for(server, obey_robots_txt=True, retries=0, timeout_s=0.6, connections=4)
        found = fetch_each(settings, [server.url(f"/ok/{seed}.jpg") for seed in range(8)])
        assert {reason_of(fetched) for fetched in found} == {reason}
        assert server.robots_requests == (
            6 if name == "loop" else 1 if name != "reset" else server.robots_requests
        )
        assert len(server.requests) == (8 if reason is None else 0)
    finally:
        server.robots = (404, "")


def test_a_redirect_is_judged_by_the_robots_txt_of_its_own_site(server: FaultServer) -> None:
    with FaultServer("127.0.0.3") as closed:
        closed.robots = (200, "User-agent: *\nDisallow: /")
        settings = settings_for(server, obey_robots_txt=True, allow_private=[server.address, closed.address])
        (fetched,) = fetch_each(settings, [server.url(f"/redirect-to?u={quote(closed.url('/ok/1.jpg'))}")])
        assert (reason_of(fetched), len(closed.requests)) == (Reason.OPTED_OUT, 0)


def test_both_spellings_of_a_target_are_judged_by_robots_txt(server: FaultServer) -> None:
    server.robots = (200, "User-agent: *\nDisallow: /ok/\nDisallow: /signed/a%3Ab")
    try:
        targets = ["/x/../ok/1.jpg", "/%6Fk/1.jpg", "/signed/a%3Ab", "/noise/1.jpg"]
        found = fetch_each(settings_for(server, obey_robots_txt=True), [server.url(path) for path in targets])
        assert [reason_of(fetched) for fetched in found] == [Reason.OPTED_OUT] * 3 + [Reason.TOO_LARGE]
    finally:
        server.robots = (404, "")


def test_a_host_is_never_asked_more_than_its_slots_and_others_do_not_wait() -> None:
    with FaultServer() as server:
        settings = settings_for(
            server,
            connections=16,
            host_connections=2,
            resolve=[f"other.test:80={server.address}"],
            timeout_s=5,
        )
        urls = [server.url("/wait/1000/1.jpg")] * 2 + [server.url(f"/ok/{n}.jpg") for n in range(20)]
        urls += [f"http://other.test/ok/{n}.jpg" for n in range(20)]

        async def order() -> list[int]:
            async with Fetcher(settings) as fetcher:
                return [index async for index, _ in fetcher.fetch_all(urls)]

        found = asyncio.run(order())
        assert server.most_by_host[server.address] == 2
        assert server.most_by_host["other.test"] <= 2
        assert sorted(found[:20]) == list(range(22, 42))
        assert sorted(found) == list(range(42))


def test_the_wait_for_a_slot_is_not_part_of_the_deadline(server: FaultServer) -> None:
    settings = settings_for(server, host_connections=1, host_delay_s=0.2, timeout_s=0.5)
    server.forget()
    found = fetch_each(settings, [server.url(f"/ok/{n}.jpg") for n in range(6)])
    assert [reason_of(fetched) for fetched in found] == [None] * 6
    starts = server.starts[server.address]
    assert starts[-1] - starts[0] > settings.timeout_s  # the last waited longer than a request may take


def self_made(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Return the file of a self-made CA certificate, and a server's context with a certificate for 127.0.0.1 of that CA."""
    openssl = str(require_program("openssl"))

    def run(*words: str) -> None:
        subprocess.run([openssl, *words], cwd=folder, check=True, capture_output=True)

    new = ("-newkey", "rsa:2048", "-nodes")
    run("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca", "-days", "2")
    run("req", *new, "-keyout", "site.key", "-out", "site.csr", "-subj", "/CN=site")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-days", "2")
    run("x509", "-req", "-in", "site.csr", *signed, "-out", "site.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "site.pem", folder / "site.key")
    return folder / "ca.pem", context


def test_a_self_made_ca_is_trusted_only_when_named(tmp_path: Path) -> None:
    ca_file, context = self_made(tmp_path)
    with FaultServer(tls=context) as secure:
        (refused,) = fetch_each(settings_for(secure), [secure.url("/ok/1.jpg")])
        trusting = settings_for(secure, ca_file=str(ca_file))
        urls = [secure.url(f"/ok/{n}.jpg") for n in range(30)]
        assert all(body_of(fetched) for fetched in fetch_each(trusting, urls))
        (plain,) = fetch_each(trusting, [f"http://{secure.address}/ok/1.jpg"])
    assert (reason_of(refused), detail_of(refused)) == (Reason.CONNECTION, "certificate refused")
    assert reason_of(plain) == Reason.CONNECTION
