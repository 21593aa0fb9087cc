import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from corgi.training.checkpoint import Checkpoints
from corgi.training.listing import COMMITTED
from corgi.training.training import Training
from corgi.training.upload import ObjectStore, Uploader
from tests.support.tiny_training import tiny_training


def put(folder: Path) -> None:
    (folder / "engine").mkdir()
    (folder / "engine" / "mp_rank_00_model_states.pt").write_bytes(os.urandom(3000))
    (folder / "ema.safetensors").write_bytes(os.urandom(200))


def saved(training: Training, *steps: int) -> None:
    checkpoints = Checkpoints(training)
    for step in steps:
        checkpoints.save(step, {"step": step}, put)
    checkpoints.close()


def steps_of(store: ObjectStore) -> list[str]:
    return sorted({name.partition(".")[0] for name in store.names() if name.endswith(COMMITTED)})


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """Serve a bucket from this process."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    values = {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }  # fmt: skip
    kept = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    boto3.client("s3", endpoint_url=values["AWS_ENDPOINT_URL"], region_name="us-east-1").create_bucket(
        Bucket="corgi"
    )
    try:
        yield "s3://corgi"
    finally:
        server.stop()
        for name, value in kept.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_lost_folder_is_fetched_back_and_old_copies_go(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    if kind == "folder":
        (tmp_path / "remote").mkdir()
        url = (tmp_path / "remote").as_uri()
    else:
        url = request.getfixturevalue("bucket")
    training = tiny_training(tmp_path / "work", upload=url)
    (tmp_path / "remote" / training.remote_name).mkdir(parents=True, exist_ok=True)
    saved(training, 4, 8, 12)
    store = ObjectStore(f"{url}/{training.remote_name}")
    assert steps_of(store) == ["step-000000008", "step-000000012"]
    before = {
        p.name: p.read_bytes() for p in (tmp_path / "work").rglob("step-000000012.*/**/*") if p.is_file()
    }
    shutil.rmtree(tmp_path / "work")
    with caplog.at_level(logging.WARNING):
        found = Checkpoints(training).newest()
    assert found is not None
    assert (found.step, found.state) == (12, {"step": 12})
    assert {p.name: p.read_bytes() for p in found.folder.rglob("*") if p.is_file()} == before
    assert "was fetched from object storage" in caplog.text


class Broken:
    """Refuses every put."""

    def put(self, name: str, path: Path) -> None:
        raise ConnectionError("unplugged")

    def get(self, name: str, path: Path) -> None:
        raise ConnectionError("unplugged")

    def names(self) -> Iterator[str]:
        yield from ()

    def delete(self, name: str) -> None:
        raise ConnectionError("unplugged")


def test_an_upload_that_fails_is_one_warning_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(tiny_training(tmp_path))
    checkpoints.uploader = Uploader(Broken(), keep=2)
    with caplog.at_level(logging.WARNING):
        checkpoints.save(4, {}, put)
        checkpoints.close()
    assert len(caplog.records) == 1
    assert "was not uploaded: unplugged; the one on disk is complete" in caplog.text
    assert Checkpoints(tiny_training(tmp_path)).newest() is not None
