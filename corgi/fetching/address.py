"""Which URLs and addresses may be contacted. Nothing here resolves a name or opens a socket.

An address is checked after resolving, never by its spelling: `0x7f000001`, `127.1` and circled digits all resolve to 127.0.0.1.
"""

import ipaddress
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from yarl import URL

from corgi.settings.errors import SettingsError
from corgi.sources.identity import escaped

MAX_URL_LENGTH = 8192
SCHEMES = ("http", "https")
_BLANK_OR_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_PARTS = re.compile(r"[^:/?#]+://([^/?#]*)([^#]*)")
"""Authority and target of an absolute URL's text."""

_DENIED_V4 = (
    "0.0.0.0/8",  # this network
    "10.0.0.0/8",  # private
    "100.64.0.0/10",  # carrier-grade NAT, some clouds' metadata
    "127.0.0.0/8",  # loopback
    "168.63.129.16/32",  # a cloud's host agent, although the address is public
    "169.254.0.0/16",  # link-local, metadata
    "172.16.0.0/12",  # private
    "192.0.0.0/24",  # protocol assignments
    "192.0.2.0/24",  # documentation
    "192.31.196.0/24",  # AS112
    "192.52.193.0/24",  # multicast tunnelling
    "192.88.99.0/24",  # 6to4 relay
    "192.168.0.0/16",  # private
    "192.175.48.0/24",  # AS112
    "198.18.0.0/15",  # benchmarks
    "198.51.100.0/24",  # documentation
    "203.0.113.0/24",  # documentation
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, broadcast
)
_DENIED_V6 = (
    "::/3",  # unspecified, loopback, IPv4-mapped and -compatible, NAT64, discard: all below 2000::
    "4000::/2",  # not assigned
    "8000::/1",  # not assigned, segment routing, unique local, link-local, site-local, multicast
    "2001::/23",  # Teredo, ORCHID, benchmarks and other protocol assignments
    "2001:db8::/32",  # documentation
    "2002::/16",  # 6to4, which carries any IPv4 address
    "2620:4f:8000::/48",  # AS112
    "3fff::/20",  # documentation
)
DENIED_V4 = tuple(ipaddress.IPv4Network(cidr) for cidr in _DENIED_V4)
"""IPv4 networks that no URL of a list may reach."""
DENIED_V6 = tuple(ipaddress.IPv6Network(cidr) for cidr in _DENIED_V6)
"""IPv6 networks that no URL of a list may reach: only global unicast remains."""

_LOW_WEB_PORTS = frozenset({80, 81, 88, 443})
_SERVICE_PORTS = frozenset(
    {
        1719,
        1720,
        1723,
        2049,
        3659,
        4045,
        4190,
        5060,
        5061,
        6000,
        6379,
        6566,
        6665,
        6666,
        6667,
        6668,
        6669,
        6679,
        6697,
        10080,
        11211,
    }
)

Address = tuple[str, int]


class UrlRefusedError(ValueError):
    """The text is not a URL that may be requested; the message is a template."""


class AddressRefusedError(OSError):
    """The address may not be connected to; the message is a template without the address."""


@dataclass(frozen=True)
class Guard:
    """The recipe's exceptions: allowed address:port pairs, and host:port pairs that are mapped to an address:port."""

    opened: frozenset[Address]
    resolved: dict[Address, Address]

    @classmethod
    def of(cls, allow_private: Iterable[str], resolve: Iterable[str]) -> "Guard":
        """Return the guard of the settings `allow_private` and `resolve`.

        Raises:
            SettingsError: an entry is not address:port, or not host:port=address:port.

        """
        return cls(
            frozenset(_pair(text, "allow_private", numeric=True) for text in allow_private),
            resolved_pairs(resolve),
        )

    def judge(self, ip: str, port: int) -> None:
        """Raise AddressRefusedError unless this address and port may be connected to."""
        judge(ip, port, self.opened)


def resolved_pairs(resolve: Iterable[str]) -> dict[Address, Address]:
    """Return the setting `resolve` as {(host, port): (address, port)}.

    Raises:
        SettingsError: an entry is not host:port=address:port.

    """
    pairs = {}
    for entry in resolve:
        name, separator, target = entry.partition("=")
        if not separator:
            raise SettingsError(
                f"download.resolve={entry!r} is not host:port=address:port; nothing was started; correct the recipe"
            )
        pairs[_pair(name, "resolve")] = _pair(target, "resolve", numeric=True)
    return pairs


def judge(ip: str, port: int, allow_private: Collection[Address] = ()) -> None:
    """Raise unless a numeric address and port may be connected to.

    Args:
        ip: the address that will be connected to; a zone such as `%eth0` is allowed in IPv6.
        port: its TCP port.
        allow_private: (address, port) pairs that are always allowed.

    Raises:
        AddressRefusedError: the address is outside the public internet, or the port is not the web's.

    """
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        raise AddressRefusedError("not a numeric address") from None
    if (str(address), port) in allow_private:
        return
    denied = DENIED_V4 if address.version == 4 else DENIED_V6
    if any(address in network for network in denied):
        raise AddressRefusedError("address outside the public internet")
    if not _is_web_port(port):
        raise AddressRefusedError("port of another service")


def parse_url(text: str) -> URL:
    """Return a list's URL after all checks that need no network.

    Host and port are normalised. The target, path and query, is the text byte for byte, with letters outside ASCII escaped;
    all of it is the `raw_path` of the returned URL, which requests send unchanged.

    Raises:
        UrlRefusedError: it is not an http or https URL with a host, or it carries credentials, spaces, control characters, or
            a backslash before its path.

    """
    if not text or len(text) > MAX_URL_LENGTH:
        raise UrlRefusedError("empty or too long")
    if _BLANK_OR_CONTROL.search(text):
        raise UrlRefusedError("space or control character")
    try:
        url = URL(text)
        host, port = url.host, url.port
        target = escaped(_target(text))
    except (ValueError, UnicodeError):
        raise UrlRefusedError("not a URL") from None
    return _checked(url, host, port).with_path(target or "/", encoded=True)


def _target(text: str) -> str:
    parts = _PARTS.match(text)
    if parts is not None and "\\" in parts[1]:
        raise UrlRefusedError("backslash in the host")
    return "" if parts is None else parts[2]


def _checked(url: URL, host: str | None, port: int | None) -> URL:
    if url.scheme not in SCHEMES:
        raise UrlRefusedError("scheme is not http or https")
    if not host or host.strip(".") == "":
        raise UrlRefusedError("no host")
    if url.user is not None or url.password is not None:
        raise UrlRefusedError("credentials in the URL")
    if port is None or not 0 < port < 65536:
        raise UrlRefusedError("no such port")
    return url


def _is_web_port(port: int) -> bool:
    return port in _LOW_WEB_PORTS or (1024 <= port < 65536 and port not in _SERVICE_PORTS)


def _pair(text: str, setting: str, numeric: bool = False) -> Address:
    host, separator, port = text.strip().rpartition(":")
    host = host.removeprefix("[").removesuffix("]").lower()
    try:
        if numeric:
            host = str(ipaddress.ip_address(host))
        number = int(port)
    except ValueError:
        number = 0
    if not separator or not host or not 0 < number < 65536:
        kind = "a numeric address:port" if numeric else "host:port"
        raise SettingsError(
            f"download.{setting}: {text!r} is not {kind}; nothing was started; correct the recipe"
        )
    return host, number
