"""The HTTP API around a painter of colours: what existing clients send, what they read, and an error body for everything else."""

import base64
import io
import re

import pytest
from PIL import Image
from starlette.testclient import TestClient

from corgi.serving import app as app_module
from corgi.serving.app import make_app
from corgi.serving.gate import Rules
from tests.support.painter import BAD, SIDE, Colours, colour, studio

PAINT, EDIT = "/v1/images/generations", "/v1/images/edits"


@pytest.fixture
def painter() -> Colours:
    return Colours()


@pytest.fixture
def client(painter: Colours):
    with TestClient(
        make_app(studio(painter, examples=["a cat"]), Rules()),
        "http://127.0.0.1:8000",
        raise_server_exceptions=False,
    ) as client:
        yield client


def picture_of(item: dict) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(item["b64_json"])))


def png(size=(20, 10), colour="red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def error_of(response) -> dict:
    """Return the error of an answer, which has the body that clients read and nothing of ours inside."""
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "\n" not in error["message"]
    assert not re.search(r"Traceback|File \"|corgi/|site-packages", response.text)
    return error


def test_a_request_as_existing_clients_send_it(client):
    asked = {
        "model": "gpt-image-1", "prompt": "red heart", "n": 2, "size": "1024x1024", "quality": "high", "style": "vivid",
        "background": "auto", "moderation": "low", "user": "me", "response_format": "b64_json", "seed": 5, "stream": False,
    }  # fmt: skip
    response = client.post(PAINT, json=asked)
    body = response.json()
    assert response.status_code == 200, response.text
    assert isinstance(body["created"], int)
    assert body["size"] == f"{SIDE}x{SIDE}"
    assert [item["corgi"]["seed"] for item in body["data"]] == [5, 6]
    for item, seed in zip(body["data"], (5, 6), strict=True):
        picture = picture_of(item)
        assert picture.format == "PNG"
        assert picture.convert("RGB").tobytes() == colour("red heart", seed).tobytes()
        assert picture.info["prompt"] == "red heart"


def test_without_a_seed_it_is_drawn_and_told_and_paints_the_same_again(client):
    first = client.post(PAINT, json={"prompt": "a"}).json()["data"][0]
    again = client.post(PAINT, json={"prompt": "a", "seed": first["corgi"]["seed"]}).json()["data"][0]
    assert first == again


@pytest.mark.parametrize(("kind", "name"), [("png", "PNG"), ("webp", "WEBP"), ("jpeg", "JPEG")])
def test_formats_and_data_urls(client, kind, name):
    asked = {"prompt": "a", "output_format": kind, "output_compression": 50, "response_format": "url"}
    item = client.post(PAINT, json=asked).json()["data"][0]
    head, _, data = item["url"].partition(",")
    assert head == f"data:image/{kind};base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).format == name
    assert "b64_json" not in item


def test_what_means_nothing_here_is_named_in_the_answer(client):
    assert client.post(PAINT, json={"prompt": "a", "negative_prompt": "ugly"}).json()["corgi"]["ignored"] == [
        "negative_prompt"
    ]
    assert client.post(PAINT, json={"prompt": "a", "negative_prompt": ""}).json()["corgi"]["ignored"] == []


def test_strip_steps_and_mixtures(client):
    corgi = {"strip": True, "prior_steps": 2, "candidates": 2}
    told = client.post(PAINT, json={"prompt": "a", "num_inference_steps": 7, "corgi": corgi}).json()["data"][
        0
    ]["corgi"]
    assert len(told["strip"]) == 3
    assert (told["manner"]["steps"], told["manner"]["best_of"]) == (7, 2)
    mixed = [
        client.post(
            PAINT, json={"prompt": "a", "seed": 1, "corgi": {"mix": {"prompt": "b", "share": share}}}
        ).json()["data"][0]
        for share in (0, 0.5, 1)
    ]
    assert len({item["b64_json"] for item in mixed}) == 3


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": " \n"}, "prompt"),
        ({"prompt": "x" * 401}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"prompt": "a", "n": 0}, "n"),
        ({"prompt": "a", "n": 11}, "n"),
        ({"prompt": "a", "n": 1.5}, "n"),
        ({"prompt": "a", "size": "../../x"}, "size"),
        ({"prompt": "a", "seed": -1}, "seed"),
        ({"prompt": "a", "seed": 2**63}, "seed"),
        ({"prompt": "a", "stream": True}, "stream"),
        ({"prompt": "a", "output_format": "gif"}, "output_format"),
        ({"prompt": "a", "num_inference_steps": 10**9}, "num_inference_steps"),
        ({"prompt": "a", "corgi": {"path": "/etc/passwd"}}, "corgi.path"),
        ({"prompt": "a", "corgi": {"ticket": "../x"}}, "corgi.ticket"),
        ({"prompt": "a", "n": 10, "num_inference_steps": 250, "corgi": {"candidates": 8}}, None),
        ([], None),
    ],
)
def test_a_wrong_request_is_a_400_that_names_the_field(client, painter, asked, param):
    response = client.post(PAINT, json=asked)
    error = error_of(response)
    assert response.status_code == 400
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert painter.calls == []


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"\xff\xfe", b"[" * 60_000, b'{"prompt": ' + b"9" * 6000 + b"}", b'{"prompt": "\\ud800"}',
        b'{"prompt": "a", "guidance_scale": NaN}', b'{"prompt": "a", "guidance_scale": Infinity}', b"null",
    ],
)  # fmt: skip
def test_malformed_json_is_a_400(client, painter, body):
    response = client.post(PAINT, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    error_of(response)
    assert painter.calls == []


def test_json_under_another_content_type_is_refused(client):
    """A page of another site can send text/plain without asking first."""
    assert (
        client.post(PAINT, content=b'{"prompt": "a"}', headers={"Content-Type": "text/plain"}).status_code
        == 400
    )


def test_what_the_models_cannot_do_is_a_400_and_the_line_goes_on(client):
    response = client.post(PAINT, json={"prompt": BAD})
    assert response.status_code == 400
    assert error_of(response)["code"] == "cannot_paint"
    assert client.post(PAINT, json={"prompt": "a"}).status_code == 200


def test_a_fault_of_ours_is_a_500_without_its_text(client, painter, monkeypatch):
    monkeypatch.setattr(Colours, "generate_each", lambda self, captions, seeds: 1 / 0)
    response = client.post(PAINT, json={"prompt": "a"})
    assert response.status_code == 500
    assert "division" not in error_of(response)["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", PAINT, 405),
        ("GET", "/..%2f..%2fetc/passwd", 404),
        ("GET", "/corgi/pictures/..%2f..%2frun.json", 404),
        ("GET", "/corgi/pictures/run.json", 400),
        ("GET", "/corgi/queue/A", 400),
        ("GET", "/v1/models/other", 404),
    ],
)
def test_unknown_paths_and_names_have_an_error_body(client, method, path, status):
    response = client.request(method, path)
    assert response.status_code == status
    error_of(response)


def test_variations_of_an_upload_and_of_an_upload_with_a_prompt(client):
    files = {"image": ("a.png", png(), "image/png")}
    plain = client.post(EDIT, files=files, data={"n": "2", "seed": "3"})
    assert plain.status_code == 200, plain.text
    assert [item["corgi"]["seed"] for item in plain.json()["data"]] == [3, 4]
    assert picture_of(plain.json()["data"][0]).convert("RGB").getpixel((0, 0)) == (255, 0, 0)
    mixed = client.post(EDIT, files=files, data={"prompt": "a cat", "seed": "3"})
    assert mixed.json()["data"][0]["b64_json"] != plain.json()["data"][0]["b64_json"]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "not_an_image"),
        (b"<svg/>", "not_an_image"),
        (png()[:40], "decode_failed"),
        (b"GIF89a" + bytes(50), "decode_failed"),
    ],
)
def test_an_upload_that_is_no_picture_is_a_400(client, data, code):
    response = client.post(EDIT, files={"image": ("../../a.png", data, "image/png")})
    assert response.status_code == 400
    error = error_of(response)
    assert error["param"] == "image"
    assert code == error["code"] or error["code"] in (
        "not_an_image",
        "decode_failed",
        "too_small",
        "too_many_pixels",
    )


def test_an_upload_with_a_bomb_in_its_header_is_refused_before_it_is_decoded(client):
    bomb = bytearray(png())
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    response = client.post(EDIT, files={"image": ("a.png", bytes(bomb), "image/png")})
    assert (response.status_code, error_of(response)["code"]) == (400, "too_many_pixels")


@pytest.mark.parametrize(
    "fields",
    [
        {"n": "0"},
        {"size": "x"},
        {"seed": "-1"},
        {"response_format": "path"},
        {"prompt": "x" * 401},
        {"prompt_share": "nan"},
        {"ticket": "A"},
    ],
)
def test_wrong_fields_beside_an_upload_are_a_400(client, fields):
    response = client.post(EDIT, files={"image": ("a.png", png(), "image/png")}, data=fields)
    assert response.status_code == 400
    assert error_of(response)["param"] == next(iter(fields))


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=x", "text/plain"])
def test_a_malformed_form_is_a_400(client, kind):
    response = client.post(EDIT, content=b"--y\r\nnothing", headers={"Content-Type": kind})
    assert response.status_code == 400
    error_of(response)


def test_models_health_metrics_and_about(client):
    client.post(PAINT, json={"prompt": "a", "n": 3})
    assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["colours"]
    assert client.get("/v1/models/colours").json()["object"] == "model"
    assert client.get("/health").json() == {"status": "ok", "run": "colours", "waiting": 0}
    assert client.get("/corgi/about").json()["examples"] == ["a cat"]
    client.get("/never-heard-of")
    told = client.get("/metrics").text
    assert "corgi_pictures_total 3.0" in told
    assert 'corgi_answers_total{path="/v1/images/generations",status="200"} 1.0' in told
    assert 'path="other",status="404"' in told
    assert "never-heard-of" not in told


def test_the_document_says_what_is_answered_and_nothing_of_422(client):
    document = client.get("/openapi.json").json()
    for operations in document["paths"].values():
        for operation in operations.values():
            assert {"400", "413", "429", "503"} <= set(operation["responses"])
            assert "422" not in operation["responses"]
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_the_page_names_nothing_outside_and_has_no_inline_script(client):
    for path in ("/", "/docs", "/page.js", "/page.css", "/docs.js"):
        response = client.get(path)
        assert response.status_code == 200
        assert not re.search(r"https?://(?!www\.w3\.org)|//cdn|@import", response.text), path
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", response.text
        ), path
    assert not re.search(r"<script(?![^>]*src=)|\son[a-z]+=", client.get("/").text)


def test_the_page_takes_no_name_of_a_file_from_a_client(client):
    for path in ("/", "/page.js", "/docs"):
        plain = client.get(path)
        assert (
            client.get(path, params={"name": "../app.py", "file": "../app.py", "mime": "x"}).content
            == plain.content
        )


def test_no_file_but_the_pages_own_is_served():
    assert {name for name, _ in app_module.PAGE_FILES.values()} == {
        path.name for path in app_module.PAGE.iterdir()
    }
