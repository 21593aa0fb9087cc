"""Checks of every request before its route runs: host, origin, token, rate, and a complete body within limits of size and time."""

import asyncio
import hmac
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from corgi.serving.errors import ApiError
from corgi.serving.rate import Rate

UPLOADS = frozenset({"/v1/images/edits", "/corgi/search/picture", "/knn-service"})
"""Paths whose bodies contain a picture."""
COSTLY = frozenset({"/v1/images/generations", "/corgi/search", *UPLOADS})
"""Paths whose requests run a model, so their rate is limited."""
OPEN_PATHS = frozenset(
    {"/", "/page.js", "/page.css", "/health", "/search", "/search.js", "/docs", "/docs.js", "/favicon.ico"}
)
"""Paths answered without a token: the page, on which the user enters the token, and the server's health."""
_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


@dataclass(frozen=True)
class Rules:
    """Which requests are accepted."""

    hosts: frozenset[str] | None = frozenset({"127.0.0.1", "localhost", "::1"})
    """Allowed names in the header Host, without the port: a page under another name that resolves to this machine is rejected (DNS
    rebinding). None: any name; then a token is required."""
    token: str | None = None
    """Bearer token; None: no token is required."""
    max_body_bytes: int = 64 * 2**10
    max_upload_bytes: int = 8 * 2**20
    body_timeout_s: float = 10.0
    """A request whose body has not arrived after this time is rejected."""
    rate: Rate = field(default_factory=lambda: Rate(0))


class Gate:
    """ASGI middleware that rejects requests with an error body, and passes accepted requests on once their body is complete."""

    def __init__(
        self, app: ASGIApp, rules: Rules, seen: Callable[[str, int], None] = lambda path, status: None
    ) -> None:
        """Wrap an app; `seen` is called with the path and the status of every answer."""
        self.app, self.rules, self.seen = app, rules, seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request with an error, or pass it on to the app."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = self._told(scope["path"], send)
        try:
            self._check(scope)
            body = await self._body(scope, receive)
        except ApiError as error:
            await error.response()(scope, receive, answer)
            return
        try:
            await self.app(scope, _replayed(body, receive), answer)
        except Exception:
            self.seen(scope["path"], 500)
            raise

    def _told(self, path: str, send: Send) -> Send:
        """Return a `send` that adds the headers of every answer and reports its status to `seen`."""

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.seen(path, message["status"])
                message = {**message, "headers": [*message["headers"], *_HEADERS]}
            await send(message)

        return answer

    def _check(self, scope: Scope) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        host = _host_of(f"//{headers.get('host', '')}")
        if self.rules.hosts is not None and host not in self.rules.hosts:
            raise ApiError(
                403,
                "the header Host names another server; use the name with which this server was started",
                code="wrong_host",
            )
        origin = headers.get("origin")
        if origin is not None and _host_of(origin) != host:
            raise ApiError(403, "requests from pages of other sites are rejected", code="wrong_origin")
        if self.rules.token is not None and path not in OPEN_PATHS:
            token = headers.get("authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(token.encode(), self.rules.token.encode()):
                raise ApiError(
                    401,
                    "send the header Authorization: Bearer TOKEN with the server's token",
                    code="invalid_api_key",
                )
        if path in COSTLY:
            wait_s = self.rules.rate.wait_s((scope.get("client") or ("",))[0])
            if wait_s:
                raise ApiError(
                    429,
                    "too many requests from this address; wait",
                    code="rate_limit_exceeded",
                    retry_after_s=math.ceil(wait_s),
                )

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """Return the complete body.

        Raises:
            ApiError: it is larger than allowed, or does not arrive in time, or its announced length is not a number.

        """
        limit = self.rules.max_upload_bytes if scope["path"] in UPLOADS else self.rules.max_body_bytes
        announced = Headers(scope=scope).get("content-length", "0")
        if not (announced.isascii() and announced.isdecimal()):
            raise ApiError(400, "the header Content-Length is not a number", code="bad_length")
        if len(announced) > 18 or int(announced) > limit:
            raise _too_large(limit)
        try:
            async with asyncio.timeout(self.rules.body_timeout_s):
                return await _read(receive, limit)
        except TimeoutError:
            raise ApiError(
                408, f"the body did not arrive within {self.rules.body_timeout_s:g} s", code="slow_body"
            ) from None


async def _read(receive: Receive, limit: int) -> bytes:
    parts, size = list[bytes](), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b"".join(parts)
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return b"".join(parts)


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"the body is larger than {limit} bytes", code="body_too_large")


def _host_of(address: str) -> str | None:
    """Return the host of an address, lower case; None if it has none."""
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that first returns the complete body, then the messages that follow it."""
    is_sent = False

    async def again() -> Message:
        nonlocal is_sent
        if not is_sent:
            is_sent = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again
