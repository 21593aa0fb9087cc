"""URLs that try to reach a canary: private addresses in every spelling, with the tricks that confuse parsers."""

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

_V4 = [
    "127.0.0.2",
    "127.0.0.1",
    "10.1.2.3",
    "172.16.9.9",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
]
_NAMES = [
    "localhost",
    "LOCALHOST.",
    "canary.test",
    "metadata.google.internal",
    "a.127.0.0.2.nip.test",
    "xn--n3h.test",
    "\u2460.test",
]
_FORMS: list[Callable[[int], str]] = [
    lambda n: str(ipaddress.IPv4Address(n)),
    str,
    hex,
    lambda n: f"0{n:o}",
    lambda n: ".".join(hex(byte) for byte in n.to_bytes(4, "big")),
    lambda n: ".".join(f"0{byte:o}" for byte in n.to_bytes(4, "big")),
    lambda n: f"{n >> 24}.{n & 0xFFFFFF}",
    lambda n: f"{n >> 24}.{n >> 16 & 255}.{n & 0xFFFF}",
    lambda n: f"[::ffff:{ipaddress.IPv4Address(n)}]",
    lambda n: f"[::{ipaddress.IPv4Address(n)}]",
    lambda n: f"[64:ff9b::{n >> 16:x}:{n & 0xFFFF:x}]",
    lambda n: f"[2002:{n >> 16:x}:{n & 0xFFFF:x}::]",
    lambda n: f"[2001:0:1:1:0:0:{~n >> 16 & 0xFFFF:x}:{~n & 0xFFFF:x}]",
    lambda n: "".join(
        chr(0xFF10 + int(c)) if c.isdigit() else "\u3002" for c in str(ipaddress.IPv4Address(n))
    ),
    lambda n: "".join(f"%{ord(c):02x}" for c in str(ipaddress.IPv4Address(n))),
]
_BEFORE = [
    "",
    "",
    "",
    "8.8.8.8@",
    "user:x@",
    "a.test#@",
    "a.test?@",
    "a.test\\@",
    "8.8.8.8%2f@",
    "%00",
    "\t",
    " ",
]
_AFTER = ["", "", "", ".", "%2e", "%00", "%20", "\t", "\u200b", "#@8.8.8.8", "?.a.test"]
_SCHEMES = [
    "http://",
    "http://",
    "https://",
    "HTTP://",
    "http:",
    "http:/",
    "http:///",
    "//",
    "ftp://",
    "file://",
    "http:\\\\",
    "ws://",
]


def urls(port: int) -> st.SearchStrategy[str]:
    """Return a strategy of URLs aimed at `port` of a private address."""
    numbers = st.sampled_from([int(ipaddress.IPv4Address(text)) for text in _V4]) | st.integers(
        0x7F000000, 0x7FFFFFFF
    )
    hosts = st.builds(lambda form, n: form(n), st.sampled_from(_FORMS), numbers) | st.sampled_from(_NAMES)
    ports = st.sampled_from([f":{port}", f":0{port}", f":{port}", "", ":80"])
    paths = st.sampled_from(["", "/", "/ok/1.jpg", "/?u=http://8.8.8.8/", "\\x", "/..//", "#x"]) | st.text(
        max_size=6
    )
    parts = (
        st.sampled_from(_SCHEMES),
        st.sampled_from(_BEFORE),
        hosts,
        st.sampled_from(_AFTER),
        ports,
        paths,
    )
    return st.builds(lambda *texts: "".join(texts), *parts)


def hostile_resolver(canary: str) -> Callable[..., list[Any]]:
    """Return a getaddrinfo that reads numbers as the system does and says that every name lives at the canary."""
    real = socket.getaddrinfo

    def look_up(host: str, port: int, **options: Any) -> list[Any]:
        try:
            return real(host, port, **{**options, "flags": socket.AI_NUMERICHOST})
        except (socket.gaierror, UnicodeError):
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (canary, port))]

    return look_up
