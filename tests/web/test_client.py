"""The official client of `/v1/images/generations` against a served run: pictures, seeds, edits, errors, a token, a rate."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# the extra `web` is installed by make test-web

import base64
import io
from pathlib import Path

import openai
import pytest
from PIL import Image

import corgi
from tests.web.conftest import served

TOKEN = "a-token-of-these-tests"


@pytest.fixture(scope="module")
def client(server: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server}/v1", api_key="unused", max_retries=0, timeout=120)


def picture_of(item) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(item.b64_json))).convert("RGB")


def test_a_seed_paints_the_picture_that_the_library_paints(client, run):
    answer = client.images.generate(
        prompt="red heart", n=2, model="gpt-image-1", size="1024x1024", extra_body={"seed": 3}
    )
    painted = corgi.load(run).generate("red heart", n=2, seed=3)
    for item, picture in zip(answer.data, painted, strict=True):
        served_bytes, own = picture_of(item).tobytes(), picture.tobytes()
        assert max(abs(a - b) for a, b in zip(served_bytes, own, strict=True)) <= 1
    assert picture_of(answer.data[0]).tobytes() != picture_of(answer.data[1]).tobytes()
    assert answer.size == "{}x{}".format(*painted[0].size)


def test_extras_of_other_servers_are_understood(client):
    extras = {
        "seed": 3,
        "num_inference_steps": 2,
        "guidance_scale": 1.0,
        "corgi": {"prior_steps": 2, "nearest": 3, "strip": True},
    }
    item = client.images.generate(prompt="a fox", extra_body=extras).data[0]
    told = item.corgi
    assert (told["manner"]["steps"], told["manner"]["prior_steps"], told["manner"]["guidance"]) == (2, 2, 1.0)
    assert len(told["nearest"]) == 3
    assert told["nearest"][0]["similarity"] >= told["nearest"][2]["similarity"]
    assert base64.b64decode(told["strip"][-1])[:4] == b"\x89PNG"
    assert len(told["strip"]) == 2


def test_the_last_step_of_the_strip_is_the_picture(client):
    item = client.images.generate(prompt="a fox", extra_body={"seed": 1, "corgi": {"strip": True}}).data[0]
    last = Image.open(io.BytesIO(base64.b64decode(item.corgi["strip"][-1]))).convert("RGB")
    assert max(abs(a - b) for a, b in zip(last.tobytes(), picture_of(item).tobytes(), strict=True)) <= 1


def test_variations_of_a_picture(client):
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), "blue").save(buffer, "JPEG")
    answer = client.images.edit(image=("blue.jpg", buffer.getvalue()), prompt="", n=2, extra_body={"seed": 4})
    assert len(answer.data) == 2
    assert picture_of(answer.data[0]).tobytes() != picture_of(answer.data[1]).tobytes()


def test_models_are_listed(client, run: Path):
    assert [model.id for model in client.models.list()] == [run.name]
    assert client.models.retrieve(run.name).id == run.name


def test_errors_are_the_clients_own(client):
    with pytest.raises(openai.BadRequestError, match="prompt"):
        client.images.generate(prompt="x" * 401)
    with pytest.raises(openai.BadRequestError, match="image"):
        client.images.edit(image=("a.png", b"no picture"), prompt="a")
    with pytest.raises(openai.NotFoundError, match="the only model is"):
        client.models.retrieve("other")


def test_a_server_with_a_token_and_a_rate(run):
    with served(run, "--per-minute", "1", "--no-nearest", CORGI_TOKEN=TOKEN) as address:
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{address}/v1", api_key="wrong", max_retries=0).images.generate(
                prompt="a"
            )
        client = openai.OpenAI(base_url=f"{address}/v1", api_key=TOKEN, max_retries=0)
        client.images.generate(prompt="a")
        with pytest.raises(openai.RateLimitError) as refused:
            client.images.generate(prompt="a")
        assert int(refused.value.response.headers["Retry-After"]) >= 1
