"""The same app under Ray Serve: the same pictures, a bounded line, errors with their bodies."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportOptionalSubscript=false, reportArgumentType=false
# the extra `web` is installed by make test-web

import base64
import io
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import openai
import pytest
from PIL import Image

from tests.web.conftest import served

MAX_WAITING, CLIENTS = 2, 16
SLOW = {"prompt": "a fox", "n": 10, "num_inference_steps": 100}
"""Takes far longer than all clients need to ask."""


@pytest.fixture(scope="module")
def on_ray(run: Path):
    with served(run, "--cluster", "--no-nearest", "--max-waiting", str(MAX_WAITING)) as address:
        yield address


def painted(address: str, **extra: object) -> bytes:
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="unused", max_retries=0, timeout=120)
    item = client.images.generate(prompt="red heart", extra_body={"seed": 3, **extra}).data[0]
    with Image.open(io.BytesIO(base64.b64decode(item.b64_json))) as picture:
        return picture.convert("RGB").tobytes()


def test_a_seed_paints_the_picture_that_the_plain_server_paints(on_ray, server):
    plain, by_ray = painted(server), painted(on_ray)
    assert max(abs(a - b) for a, b in zip(plain, by_ray, strict=True)) <= 1


def ask(address: str, seed: int) -> tuple[int, str | None, dict]:
    """Return status, Retry-After and body of the answer to one slow request."""
    body = json.dumps({**SLOW, "seed": seed}).encode()
    asked = Request(f"{address}/v1/images/generations", body, {"Content-Type": "application/json"})
    try:
        with urlopen(asked) as answer:
            return answer.status, None, json.load(answer)
    except HTTPError as error:
        return error.code, error.headers.get("Retry-After"), json.load(error)


def test_a_full_line_is_refused_and_the_others_are_painted(on_ray):
    with ThreadPoolExecutor(CLIENTS) as clients:
        answers = list(clients.map(ask, [on_ray] * CLIENTS, range(CLIENTS)))
    counts = Counter(status for status, _, _ in answers)
    assert set(counts) == {200, 503}
    assert counts[200] >= MAX_WAITING
    for status, retry_after, body in answers:
        if status == 503:
            assert int(retry_after or "0") >= 1
            assert body["error"]["code"] == "queue_full"
        else:
            assert len(body["data"]) == SLOW["n"]


def test_errors_have_their_bodies_and_the_page_is_there(on_ray):
    client = openai.OpenAI(base_url=f"{on_ray}/v1", api_key="unused", max_retries=0)
    with pytest.raises(openai.BadRequestError, match="prompt"):
        client.images.generate(prompt="x" * 401)
    with urlopen(on_ray) as page:
        assert "<title>Corgi</title>" in page.read().decode()
