"""The gate: what is refused, with which status, before any route sees it; and that a body is read whole within its bounds."""

import asyncio
import json
from collections.abc import Iterable

import pytest
from starlette.types import Message, Receive, Scope, Send

from corgi.serving.gate import Gate, Rules
from corgi.serving.rate import Rate

PAINT, UPLOADS = "/v1/images/generations", "/v1/images/edits"


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the body, as an app behind the gate."""
    message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": message["body"]})


def answer(
    rules: Rules, path: str = PAINT, parts: Iterable[bytes] = (b"{}",), delay_s: float = 0, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of a request whose body comes in parts."""
    given = {"host": "127.0.0.1:8000", **headers}
    scope = {
        "type": "http",
        "path": path,
        "method": "POST",
        "client": ("9.9.9.9", 1),
        "headers": [(name.replace("_", "-").encode(), text.encode()) for name, text in given.items()],
    }
    waiting = [*parts]
    sent: list[Message] = []

    async def receive() -> Message:
        await asyncio.sleep(delay_s)
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(Gate(echo, rules)(scope, receive, send))
    told = {name.decode(): text.decode() for name, text in sent[0]["headers"]}
    return sent[0]["status"], told, b"".join(message.get("body", b"") for message in sent[1:])


def code_of(body: bytes) -> str:
    return json.loads(body)["error"]["code"]


def test_a_request_passes_whole_and_its_answer_forbids_everything_from_outside():
    status, headers, body = answer(Rules(), parts=(b"ab", b"", b"cd"))
    assert (status, body) == (200, b"abcd")
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "host", ["", "evil.test", "127.0.0.1.evil.test", "localhost:8000@evil.test", "[", "user@"]
)
def test_another_host_is_refused(host):
    status, _, body = answer(Rules(), host=host)
    assert (status, code_of(body)) == (403, "wrong_host")


@pytest.mark.parametrize("host", ["127.0.0.1", "LOCALHOST:8000", "[::1]:8000"])
def test_every_name_of_loopback_passes(host):
    assert answer(Rules(), host=host)[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.test", "null", "file://", "http://127.0.0.1.evil.test"])
def test_pages_of_other_sites_are_refused(origin):
    status, _, body = answer(Rules(), origin=origin)
    assert (status, code_of(body)) == (403, "wrong_origin")
    assert answer(Rules(), origin="http://127.0.0.1:8000")[0] == 200


TOKEN = "token-of-16-chars"
CLOSED = (
    PAINT,
    UPLOADS,
    "/metrics",
    "/corgi/about",
    "/openapi.json",
    "/v1/models",
    "/corgi/pictures/0",
    "//",
    "/page.js/",
)


@pytest.mark.parametrize(
    "given", ["", "Bearer wrong", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \u00ff"]
)
def test_without_the_token_only_the_page_and_health_answer(given):
    rules = Rules(hosts=None, token=TOKEN)
    for path in CLOSED:
        status, headers, body = answer(rules, path=path, authorization=given)
        assert (status, code_of(body)) == (401, "invalid_api_key")
        assert headers["www-authenticate"] == "Bearer"
        assert answer(rules, path=path, authorization=f"Bearer {TOKEN}")[0] == 200
    for path in ("/", "/health", "/page.js"):
        assert answer(rules, path=path, authorization=given)[0] == 200


def test_a_body_that_is_too_large_is_refused_by_its_length_and_by_its_bytes():
    rules = Rules(max_body_bytes=10, max_upload_bytes=20)
    for given in ({"content_length": "11"}, {"content_length": "9" * 40}, {}):
        status, _, body = answer(rules, parts=(b"x" * 6, b"x" * 5), **given)  # pyright: ignore[reportArgumentType]
        assert (status, code_of(body)) == (413, "body_too_large")
    assert answer(rules, path=UPLOADS, parts=(b"x" * 20,))[0] == 200
    assert answer(rules, path=UPLOADS, parts=(b"x" * 20, b"x"))[0] == 413


@pytest.mark.parametrize("length", ["-1", "1e3", "٣", "0x10"])
def test_a_length_that_is_no_number_is_refused(length):
    status, _, body = answer(Rules(), content_length=length)
    assert (status, code_of(body)) == (400, "bad_length")


def test_a_slow_body_is_given_up():
    status, _, body = answer(Rules(body_timeout_s=0.05), parts=[b"x"] * 100, delay_s=0.02)
    assert (status, code_of(body)) == (408, "slow_body")


def test_an_address_that_asks_too_often_is_told_when_to_come_back():
    rules = Rules(rate=Rate(2))
    assert [answer(rules)[0] for _ in range(3)] == [200, 200, 429]
    status, headers, body = answer(rules)
    assert (status, code_of(body)) == (429, "rate_limit_exceeded")
    assert 1 <= int(headers["retry-after"]) <= 30
    assert answer(rules, path="/health")[0] == 200
