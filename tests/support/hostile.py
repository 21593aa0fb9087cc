"""What hostile servers do, by the path that makes the fault server do it, and the reason each costs its one row."""

from corgi.tables.schema import Reason

_OK = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n"

RAW: dict[str, bytes] = {
    "nothing": b"",
    "http09": b"<html>a body without a head</html>",
    "noversion": b"HTTP 200 OK\r\n\r\n",
    "badstatus": _OK.replace(b"200", b"abc") + b"\r\n",
    "icy": b"ICY 200 OK\r\nicy-name: radio\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.9\r\n",
    "smtp": b"220 mail.test ESMTP\r\n",
    "tlsalert": b"\x15\x03\x01\x00\x02\x02\x28",
    "binary": bytes(range(256)) * 4,
    "crlf": b"\r\n" * 2000,
    "longstatus": b"HTTP/1.1 200 " + b"O" * 100_000 + b"\r\n\r\n",
    "negativelength": _OK + b"Content-Length: -5\r\n\r\nabcde",
    "twolengths": _OK + b"Content-Length: 5\r\nContent-Length: 7\r\n\r\nabcdefg",
    "wordlength": _OK + b"Content-Length: five\r\n\r\nabcde",
    "overflowlength": _OK + b"Content-Length: 99999999999999999999999999\r\n\r\nabcde",
    "hugelength": _OK + b"Content-Length: 1000000000000\r\n\r\nabcde",
    "lengthandchunks": _OK
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    "badchunk": _CHUNKED + b"zz\r\nabcde\r\n0\r\n\r\n",
    "negativechunk": _CHUNKED + b"-5\r\nabcde\r\n0\r\n\r\n",
    "hugechunk": _CHUNKED + b"ffffffffffffffffff\r\nabcde\r\n",
    "chunkcut": _CHUNKED + b"5\r\nabc",
    "chunksnoend": _CHUNKED + b"5\r\nabcde\r\n",
    "chunkoverrun": _CHUNKED + b"5\r\nabcdefgh\r\n0\r\n\r\n",
    "nocolon": _OK + b"a line without a colon\r\n\r\n",
    "nul": _OK + b"X-Nul: a\x00b\r\nContent-Length: 0\r\n\r\n",
    "headcut": _OK + b"Content-Length: 100\r\n",
    "switch": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\n",
    "status999": b"HTTP/1.1 999 Denied\r\nContent-Length: 0\r\n\r\n",
    "nolocation": b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n",
    "lengthcut": _OK + b"Content-Length: 100\r\n\r\nabc",
}
"""Answers sent as they stand, after which the server closes."""

BODIES: dict[str, bytes] = {
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "json": b'{"error": "gone"}',
    "pixel": bytes.fromhex(
        "47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b"
    ),
    "jpegstart": b"\xff\xd8\xff",
}
"""Whole bodies that are no picture worth keeping, or none at all."""

_RAW_REASONS = dict.fromkeys(RAW, Reason.CONNECTION) | {
    "hugelength": Reason.TOO_LARGE,
    "chunkcut": Reason.SHORT_BODY,
    "chunksnoend": Reason.SHORT_BODY,
    "lengthcut": Reason.SHORT_BODY,
    "switch": Reason.HTTP_STATUS,
    "status999": Reason.HTTP_STATUS,
    "nolocation": Reason.BAD_URL,
}
_REDIRECTS = {
    "file:///etc/passwd": Reason.BAD_URL,
    "ftp://127.0.0.1/x": Reason.BAD_URL,
    "data:image/png;base64,AAAA": Reason.BAD_URL,
    "javascript:alert(1)": Reason.BAD_URL,
    "http://user:secret@127.0.0.1/": Reason.BAD_URL,
    "http://[::1": Reason.BAD_URL,
    "http://": Reason.BAD_URL,
    "http://127.0.0.2:80/": Reason.BLOCKED_ADDRESS,
    "http://10.0.0.1/": Reason.BLOCKED_ADDRESS,
    "http://169.254.169.254/latest/meta-data/": Reason.BLOCKED_ADDRESS,
    "http://100.100.100.200/": Reason.BLOCKED_ADDRESS,
    "http://[::1]/": Reason.BLOCKED_ADDRESS,
    "http://[::ffff:127.0.0.1]/": Reason.BLOCKED_ADDRESS,
    "http://[64:ff9b::7f00:1]/": Reason.BLOCKED_ADDRESS,
    "http://[2002:7f00:1::]/": Reason.BLOCKED_ADDRESS,
    "http://0x7f000001/": Reason.BLOCKED_ADDRESS,
    "http://2130706433/": Reason.BAD_URL,
    "http://1.1.1.1:22/": Reason.BLOCKED_ADDRESS,
}
_STATUSES = (204, 206, 300, 304, 400, 401, 403, 404, 410, 418, 429, 451, 500, 502, 503, 504)
_TAGS = (
    "noai",
    "noimageai",
    "noindex",
    "noimageindex",
    "none",
    "noml",
    "all, noindex",
    "NoAI",
    "corgi: noindex",
    "otherbot: noai",
    "*: none",
    "unavailable_after: Sat, 25 Jun 2010 15:00:00 PST, noindex",
    "max-snippet: 5, noai",
)
HOSTILE: dict[str, Reason] = {
    **{f"/raw/{name}": reason for name, reason in _RAW_REASONS.items()},
    **{f"/split/{name}": _RAW_REASONS[name] for name in RAW if "chunk" in name},
    **{f"/redirect-to?u={place}": reason for place, reason in _REDIRECTS.items()},
    **{f"/status/{status}": Reason.HTTP_STATUS for status in _STATUSES},
    **{f"/robots?v={tag}": Reason.OPTED_OUT for tag in _TAGS},
    "/status/429?retry_after=86400": Reason.HTTP_STATUS,
    "/status/503?retry_after=Fri, 31 Dec 2999 23:59:59 GMT": Reason.HTTP_STATUS,
    "/content-usage?v=train-ai=n": Reason.OPTED_OUT,
    "/content-usage?v=search=y, train-ai=n;x=1": Reason.OPTED_OUT,
    "/content-usage?v=bots=n": Reason.OPTED_OUT,
    "/redirect/6": Reason.TOO_MANY_REDIRECTS,
    "/redirect-to?u=/redirect/9": Reason.TOO_MANY_REDIRECTS,
    "/slow/10": Reason.TIMEOUT,
    "/slow/1000": Reason.TIMEOUT,
    "/stall/0": Reason.TIMEOUT,
    "/stall/10": Reason.TIMEOUT,
    "/silence": Reason.TIMEOUT,
    "/slowheaders": Reason.TIMEOUT,
    "/interimflood": Reason.TIMEOUT,
    "/endless": Reason.TOO_LARGE,
    "/endlesschunked": Reason.TOO_LARGE,
    "/gzipbomb": Reason.TOO_LARGE,
    "/encoded/zlibbomb": Reason.TOO_LARGE,
    "/encoded/broken": Reason.DECODE_FAILED,
    "/encoded/lie": Reason.DECODE_FAILED,
    "/encoded/short": Reason.SHORT_BODY,
    "/encoded/empty": Reason.SHORT_BODY,
    "/encoded/nested": Reason.NOT_AN_IMAGE,
    "/encoded/thrice": Reason.NOT_AN_IMAGE,
    "/encoded/zstd": Reason.NOT_AN_IMAGE,
    "/encoded/unknown": Reason.NOT_AN_IMAGE,
    "/brotli": Reason.NOT_AN_IMAGE,
    "/short": Reason.SHORT_BODY,
    "/reset/0": Reason.CONNECTION,
    "/reset/100": Reason.SHORT_BODY,
    "/halfclose": Reason.CONNECTION,
    "/garbage": Reason.CONNECTION,
    "/headers/64": Reason.CONNECTION,
    "/manyheaders/5000": Reason.CONNECTION,
    "/endlessheaders": Reason.CONNECTION,
}
"""Faults that the fetch itself finds; stateful ones are not among them."""

UNDECODABLE: dict[str, Reason] = {
    "/body/svg": Reason.NOT_AN_IMAGE,
    "/body/json": Reason.NOT_AN_IMAGE,
    "/wrongtype": Reason.NOT_AN_IMAGE,
    "/empty": Reason.NOT_AN_IMAGE,
    "/truncated": Reason.DECODE_FAILED,
    "/bomb/jpeg": Reason.TOO_MANY_PIXELS,
    "/bomb/png": Reason.TOO_MANY_PIXELS,
    "/bomb/thin": Reason.ASPECT_RATIO,
}
"""Whole answers whose body is refused before or in decoding."""

HONEST = (
    "/ok/1.jpg",
    "/ok/1.png",
    "/gzip/1.jpg",
    "/chunked/1.jpg",
    "/redirect/5",
    "/headers/1",
    "/interim/3",
    "/extra/1.jpg",
    "/manyheaders/50",
    "/robots?v=otherbot: noindex",
    "/robots?v=max-snippet:0",
    "/content-usage?v=train-ai=y, search=n",
)
"""Answers a little out of the ordinary that are kept."""


def path_of(behaviour: str) -> str:
    """Return a behaviour's path as it stands in a URL."""
    return behaviour.replace(" ", "%20").replace(";", "%3B").replace("[", "%5B").replace("]", "%5D")
