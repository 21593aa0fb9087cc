"""Queries to the metadata servers of AWS and GCP: whether this machine is spot and when the cloud takes it back; no credential is read."""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import aiohttp

TIMEOUT_S = 5.0
"""Longest wait for a complete response, s."""
AWS_PAUSE_S = 5.0
"""Interval at which AWS recommends to check for a notice, s."""
AWS_TOKEN_S = 300
"""Validity of a session token, s; a token is renewed after half of it."""
GCP_WAIT_S = 20
"""How long GCP's server delays its response while there is no notice, s."""
GCP_PAUSE_S = 1.0
GCP_NOTICE_S = 30.0
"""GCP's notice contains no time: a preempted machine is stopped 30 s after it."""
MAX_BODY_BYTES = 4096


class MetadataError(Exception):
    """The metadata server gave no usable response."""


@dataclass(frozen=True)
class Clock:
    """Unix time in seconds, and a way to wait."""

    now: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass(frozen=True)
class Response:
    """A metadata server's response."""

    status: int
    headers: Mapping[str, str]
    text: str


class MetadataServer:
    """HTTP requests to one metadata server: no proxy, no redirect, bounded in time and size."""

    def __init__(self, session: aiohttp.ClientSession, url: str, timeout_s: float = TIMEOUT_S) -> None:
        """Take the server's URL; the time-out is for a complete exchange."""
        self.url = url
        self._session = session
        self._timeout_s = timeout_s

    async def request(
        self, method: str, path: str, headers: Mapping[str, str], wait_s: float = 0.0
    ) -> Response:
        """Return the response, which the server may delay by `wait_s`.

        Raises:
            MetadataError: no response in time, or a response that is not HTTP or is too long.

        """
        limit = aiohttp.ClientTimeout(total=self._timeout_s + wait_s)
        try:
            async with self._session.request(
                method, self.url + path, headers=headers, timeout=limit, allow_redirects=False
            ) as response:
                return Response(response.status, response.headers, await _text(response))
        except TimeoutError as error:
            raise MetadataError(f"no response within {limit.total:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise MetadataError(" ".join(str(error).split()) or type(error).__name__) from error


async def _text(response: aiohttp.ClientResponse) -> str:
    body = bytearray()
    async for piece in response.content.iter_chunked(MAX_BODY_BYTES):
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise MetadataError(f"a response of more than {MAX_BODY_BYTES} bytes")
    return body.decode("utf-8", "replace").strip()


class Cloud(Protocol):
    """The queries of the watcher to a cloud; both raise MetadataError while there is no usable response."""

    pause_s: float

    async def is_spot(self) -> bool:
        """Return whether the cloud may take this machine back."""
        ...

    async def deadline(self) -> float | None:
        """Return the Unix time at which the cloud takes the machine, None without a notice."""
        ...


class Aws:
    """EC2's metadata server, version 2: every request carries a session token.

    Source: docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html.
    """

    url = "http://169.254.169.254"
    pause_s = AWS_PAUSE_S

    def __init__(self, server: MetadataServer, clock: Clock) -> None:
        """Take the server; the token is renewed according to the clock."""
        self._server, self._clock = server, clock
        self._token = ""
        self._token_until = 0.0

    async def is_spot(self) -> bool:
        """Return whether the machine's life cycle is spot."""
        kind = await self._get("instance-life-cycle")
        if not re.fullmatch("[a-z-]+", kind or ""):
            raise MetadataError(f"an instance-life-cycle that is not a word: {(kind or '')[:200]!r}")
        return kind == "spot"

    async def deadline(self) -> float | None:
        """Return the time in the notice; without a notice its path is 404."""
        notice = await self._get("spot/instance-action")
        if notice is None:
            return None
        try:
            return datetime.fromisoformat(json.loads(notice)["time"]).timestamp()
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise MetadataError(f"a notice without a time: {notice[:200]!r}") from error

    async def _get(self, path: str) -> str | None:
        response = await self._with_token(path)
        if response.status == 401:  # the server forgot the token before it expired
            self._token = ""
            response = await self._with_token(path)
        if response.status == 404:
            return None
        if response.status != 200:
            raise MetadataError(f"status {response.status} for {path}")
        return response.text

    async def _with_token(self, path: str) -> Response:
        if not self._token or self._clock.now() >= self._token_until:
            await self._renew()
        return await self._server.request(
            "GET", f"/latest/meta-data/{path}", {"X-aws-ec2-metadata-token": self._token}
        )

    async def _renew(self) -> None:
        asked = self._clock.now()
        lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": str(AWS_TOKEN_S)}
        response = await self._server.request("PUT", "/latest/api/token", lifetime)
        if response.status != 200 or not response.text.isprintable() or not response.text:
            raise MetadataError(f"status {response.status} and no session token")
        self._token, self._token_until = response.text, asked + AWS_TOKEN_S / 2


class Gcp:
    """Compute Engine's metadata server.

    The response is delayed until the value differs from the one whose ETag the request names, so that no change between two requests is missed.
    Sources: cloud.google.com/compute/docs/instances/create-use-spot, cloud.google.com/compute/docs/metadata/querying-metadata.
    """

    url = "http://metadata.google.internal"
    pause_s = GCP_PAUSE_S

    def __init__(self, server: MetadataServer, clock: Clock) -> None:
        """Take the server; the clock gives the time of a notice."""
        self._server, self._clock = server, clock
        self._etag = "0"

    async def is_spot(self) -> bool:
        """Return whether the machine was made preemptible, as every spot machine is."""
        return (await self._get("scheduling/preemptible")).text == "TRUE"

    async def deadline(self) -> float | None:
        """Return the end of the 30 s that follow a notice; they start when it is read."""
        wait = f"?wait_for_change=true&timeout_sec={GCP_WAIT_S}&last_etag={self._etag}"
        response = await self._get(f"preempted{wait}", GCP_WAIT_S)
        self._etag = response.headers.get("ETag", "0")
        return self._clock.now() + GCP_NOTICE_S if response.text == "TRUE" else None

    async def _get(self, path: str, wait_s: float = 0.0) -> Response:
        response = await self._server.request(
            "GET", f"/computeMetadata/v1/instance/{path}", {"Metadata-Flavor": "Google"}, wait_s
        )
        if response.status != 200:
            raise MetadataError(f"status {response.status} for {path.partition('?')[0]}")
        if response.headers.get("Metadata-Flavor") != "Google" or response.text not in ("TRUE", "FALSE"):
            raise MetadataError(
                f"a response that is not from Google's metadata server: {response.text[:200]!r}"
            )
        return response


CLOUDS = {"aws": Aws, "gcp": Gcp}


@contextlib.asynccontextmanager
async def connected(name: str, url: str, clock: Clock, timeout_s: float = TIMEOUT_S) -> AsyncGenerator[Cloud]:
    """Yield the cloud of a name; an empty URL means its own metadata server."""
    kind = CLOUDS[name]
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield kind(MetadataServer(session, url or kind.url, timeout_s), clock)
