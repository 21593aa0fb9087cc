"""What the guard lets through: judged by the number dialled, never by its spelling."""

import contextlib
import ipaddress
import string
import urllib.request

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corgi.fetching.address import AddressRefusedError, Guard, UrlRefusedError, judge, parse_url
from corgi.settings.errors import SettingsError
from corgi.sources.identity import request_url

HOSTILE = [
    "0.0.0.0", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "168.63.129.16", "169.254.169.254",
    "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1",
    "203.0.113.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1", "2001::1",
    "2001:db8::1", "2002:7f00:1::", "3fff::1", "4000::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0",
    "fec0::1", "ff02::1",
]  # fmt: skip
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "172.32.0.1",
    "192.167.255.255",
    "2606:4700::1111",
    "2a00:1450:4001:81b::200e",
]


@pytest.mark.parametrize("ip", HOSTILE)
def test_addresses_outside_the_public_internet_are_refused(ip: str) -> None:
    with pytest.raises(AddressRefusedError) as caught:
        judge(ip, 443)
    assert ip not in str(caught.value)


@pytest.mark.parametrize("ip", PUBLIC)
def test_public_addresses_pass(ip: str) -> None:
    judge(ip, 80)
    judge(ip, 8080)


@pytest.mark.parametrize("port", [0, 21, 22, 25, 110, 445, 6379, 6667, 11211, 65536])
def test_ports_of_other_services_are_refused(port: int) -> None:
    with pytest.raises(AddressRefusedError):
        judge("8.8.8.8", port)


@pytest.mark.parametrize("text", ["", "localhost", "0x7f000001", "127.1", "8.8.8.8:80", "①27.0.0.1"])
def test_only_numbers_are_judged(text: str) -> None:
    with pytest.raises(AddressRefusedError):
        judge(text, 80)


@given(st.ip_addresses())
def test_nothing_python_calls_private_passes(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    try:
        judge(str(address), 80)
    except AddressRefusedError:
        return
    assert address.is_global
    assert not address.is_multicast


def test_an_opened_pair_opens_that_pair_only() -> None:
    guard = Guard.of(["127.0.0.1:8000", "[::1]:8000"], [])
    guard.judge("127.0.0.1", 8000)
    guard.judge("::1", 8000)
    for ip, port in [("127.0.0.1", 8001), ("127.0.0.2", 8000), ("::ffff:127.0.0.1", 8000)]:
        with pytest.raises(AddressRefusedError):
            guard.judge(ip, port)


@pytest.mark.parametrize(
    "entry", ["localhost:80", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:x", ":80", "127.0.0.1:70000"]
)
def test_a_wrong_opening_is_one_line_naming_it(entry: str) -> None:
    with pytest.raises(SettingsError, match=r"download\.allow_private") as caught:
        Guard.of([entry], [])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("entry", ["a:80", "a:80=b:80", "a=127.0.0.1:80", "a:80=127.0.0.1"])
def test_a_wrong_resolution_is_one_line_naming_it(entry: str) -> None:
    with pytest.raises(SettingsError, match=r"download\.resolve"):
        Guard.of([], [entry])


def test_resolution_pairs_keep_host_and_port() -> None:
    assert Guard.of([], ["Site.Test:80=127.0.0.1:8000"]).resolved == {("site.test", 80): ("127.0.0.1", 8000)}


@pytest.mark.parametrize(
    "text",
    [
        "", "nonsense", "file:///etc/passwd", "data:image/png;base64,AAAA", "ftp://a.test/x", "gopher://a.test/", "http://", "http:///x",
        "http://user:secret@a.test/", "http://a.test:0/", "http://a.test:99999/", "http://a.test/\r\nHost: b", "http://a.test\\@b/",
        "http://a b/", "http://[::1/", "javascript:alert(1)", "//a.test/x", "http://" + "a" * 9000, "http://./", "HTTP:a.test",
    ],
)  # fmt: skip
def test_texts_that_are_no_web_url_are_refused(text: str) -> None:
    with pytest.raises(UrlRefusedError):
        parse_url(text)


@pytest.mark.parametrize(
    "text",
    ["http://a.test", "https://a.test/x.jpg?w=1%20&h=2#f", "HTTP://A.test:8080/é", "https://münchen.test/"],
)
def test_web_urls_pass(text: str) -> None:
    assert parse_url(text).host


@given(st.text(string.ascii_letters + string.digits + string.punctuation, max_size=40))
def test_law_the_target_of_a_url_is_its_text_byte_for_byte(text: str) -> None:
    target = f"/{text.partition('#')[0]}"
    assert parse_url(f"http://a.test{target}").raw_path_qs == target
    assert parse_url(request_url(f"HTTP://A.test:80/{text}")).raw_path_qs == target


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40))
def test_law_what_is_asked_for_is_what_the_standard_library_asks_for(text: str) -> None:
    url = request_url(f"http://a.test/{text}")
    assert parse_url(url).raw_path_qs == urllib.request.Request(url).selector


@given(st.text(max_size=60))
def test_any_text_is_a_url_or_refused(text: str) -> None:
    for candidate in (text, f"http://{text}", f"https://a.test/{text}"):
        with contextlib.suppress(UrlRefusedError):
            assert parse_url(candidate).scheme in ("http", "https")
