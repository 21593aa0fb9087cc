"""Search over the HTTP API: by text, example, cluster and picture; a row's whole history; clip-retrieval's clients."""

import base64

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from corgi.serving.app import make_app
from corgi.serving.gate import Rules
from corgi.serving.picture_index import PictureIndex
from corgi.serving.search import Search
from corgi.shift.file import safetensors_bytes
from corgi.tables.manifest import RowCounts
from corgi.tables.run import Run
from tests.support.painter import Colours, studio
from tests.support.tables import DIM, Output, commit_stage, png, tiny_run, vector


class Towers(Colours):
    """Colours whose embeddings are as wide as the run's: a text's vector is that of its words."""

    def text_embedding(self, captions: list[str]) -> torch.Tensor:
        return torch.tensor([vector(caption, DIM) for caption in captions], dtype=torch.float32)

    def image_embedding(self, pictures: list) -> torch.Tensor:
        return self.text_embedding(["picture"] * len(pictures))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    run = tiny_run(tmp_path_factory.mktemp("searched"))
    means = np.array([vector(name, DIM) for name in ("one", "two", "three")], np.float32)
    shift = safetensors_bytes({"mean": means, "count": np.array([3, 9, 1])}, {})
    commit_stage(
        run, "shift", {"all": Output(RowCounts(rows_in=0, kept=0), files={"shift": (".safetensors", shift)})}
    )
    return run


@pytest.fixture(scope="module")
def client(run: Run):
    index = PictureIndex.load(run)
    assert index is not None
    painter = Towers()
    made = studio(painter, index=index, search=Search.load(run, index, painter))
    with TestClient(
        make_app(made, Rules()), "http://127.0.0.1:8000", raise_server_exceptions=False
    ) as client:
        yield client


def uids(run: Run) -> list[str]:
    return [uid for shard in run.embedded() for uid in shard.facts(["uid"])["uid"].to_pylist()]


def by_cosine(run: Run, name: str) -> list[str]:
    query = np.array(vector(name, DIM))
    return sorted(uids(run), key=lambda uid: -float(query @ np.array(vector(uid, DIM))))


def found(response) -> list[str]:
    assert response.status_code == 200, response.text
    return [hit["uid"] for hit in response.json()["hits"]]


def test_by_text_by_example_by_cluster_and_by_picture(client, run):
    assert (
        found(client.post("/corgi/search", json={"text": "a cat", "number": 5}))
        == by_cosine(run, "a cat")[:5]
    )
    first = uids(run)[0]
    assert found(client.post("/corgi/search", json={"uid": first}))[0] == first
    assert found(client.post("/corgi/search", json={"cluster": 1, "number": 3})) == by_cosine(run, "two")[:3]
    sent = client.post(
        "/corgi/search/picture", files={"image": ("a.png", png(), "image/png")}, data={"number": 4}
    )
    assert found(sent) == by_cosine(run, "picture")[:4]


def test_filters_choose_rows(client, run):
    dropped = client.post("/corgi/search", json={"text": "a", "keep": False}).json()["hits"]
    assert [hit["reason"] for hit in dropped] == ["exact_duplicate"]
    test = client.post("/corgi/search", json={"text": "a", "split": "test", "keep": True}).json()["hits"]
    assert {hit["split"] for hit in test} == {"test"}
    assert client.post("/corgi/search", json={"text": "a", "domain": "no.test"}).json()["hits"] == []


def test_each_hit_leads_to_its_whole_history_and_to_its_picture(client, run):
    for uid in uids(run):
        told = client.get(f"/corgi/rows/{uid}").json()
        assert told["facts"]["url"].startswith("http://pictures.test/")
        assert len(told["captions"]) == 2
        assert told["lists"][0] == {"source": "5e" * 32, "row": 0}
        assert told["keep"] == (told["reason"] is None)
        assert uid in told["take_down"]
        assert client.get(f"/corgi/pictures/{uid}").content[:4] == b"\x89PNG"


def test_clusters_are_listed_largest_first_with_their_pictures(client, run):
    clusters = client.get("/corgi/clusters").json()["clusters"]
    assert [(one["cluster"], one["count"]) for one in clusters] == [(1, 9), (0, 3), (2, 1)]
    kept_train = [
        hit["uid"]
        for hit in client.post("/corgi/search", json={"cluster": 1, "split": "train", "keep": True}).json()[
            "hits"
        ]
    ]
    assert clusters[0]["nearest"] == kept_train[:12]
    second = client.get("/corgi/clusters?first=1&number=1").json()
    assert (second["clusters"], second["total"]) == (clusters[1:2], 3)
    assert client.get("/corgi/clusters?first=3").json()["clusters"] == []
    assert client.get("/corgi/clusters?number=1000").status_code == 400


def test_clip_retrievals_clients_are_answered(client, run):
    asked = {
        "text": "a cat",
        "modality": "image",
        "num_images": 3,
        "indice_name": "x",
        "deduplicate": True,
        "use_safety_model": False,
    }
    hits = client.post("/knn-service", json=asked).json()
    order = by_cosine(run, "a cat")
    assert [hit["url"] for hit in hits] == [
        client.get(f"/corgi/rows/{uid}").json()["facts"]["url"] for uid in order[:3]
    ]
    assert all(hit["caption"].startswith("a picture number") for hit in hits)
    same = client.post("/metadata", json={"ids": [hit["id"] for hit in hits], "indice_name": "x"}).json()
    assert [hit["url"] for hit in same] == [hit["url"] for hit in hits]
    by_vector = client.post(
        "/knn-service", json={"embedding_input": [3 * x for x in vector("a cat", DIM)], "num_images": 3}
    ).json()
    assert [hit["id"] for hit in by_vector] == [hit["id"] for hit in hits]
    by_image = client.post("/knn-service", json={"image": base64.b64encode(png()).decode(), "num_images": 1})
    assert by_image.status_code == 200
    assert client.get("/indices-list").json() == ["tiny"]


def test_no_url_is_ever_fetched(client):
    response = client.post("/knn-service", json={"image_url": "http://169.254.169.254/"})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "no_question")


@pytest.mark.parametrize(
    ("path", "asked", "status"),
    [
        ("/corgi/search", {}, 400),
        ("/corgi/search", {"text": "a", "uid": "0" * 32}, 400),
        ("/corgi/search", {"text": "a", "number": 10**6}, 400),
        ("/corgi/search", {"uid": "../run.json"}, 400),
        ("/corgi/search", {"uid": "0" * 32}, 404),
        ("/corgi/search", {"cluster": 3}, 404),
        ("/corgi/search", {"text": "a", "path": "/etc"}, 400),
        ("/knn-service", {"embedding_input": [1.0]}, 400),
        ("/knn-service", {"embedding_input": [0.0] * DIM}, 400),
        ("/knn-service", {"image": "no base64!"}, 400),
        ("/knn-service", {"image": "ä"}, 400),
        ("/knn-service", {"image": "AAAA"}, 400),
        ("/metadata", {"ids": [-1]}, 400),
    ],
)
def test_a_wrong_question_has_an_error_body(client, path, asked, status):
    response = client.post(path, json=asked)
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}


def test_rows_that_are_not_there_are_left_out_or_404(client):
    assert client.post("/metadata", json={"ids": [10**9]}).json() == []
    assert client.get(f"/corgi/rows/{'0' * 32}").status_code == 404
    assert client.get(f"/corgi/pictures/{'0' * 32}").status_code == 404


def test_without_search_there_are_no_such_routes():
    with TestClient(make_app(studio(), Rules()), "http://127.0.0.1:8000") as client:
        assert client.post("/corgi/search", json={"text": "a"}).status_code == 404
        assert client.get("/corgi/about").json()["has_search"] is False
