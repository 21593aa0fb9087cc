"""The endpoint of S3: whichever variable names it, inputs, root and uploads are read from the same server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from corgi.storage.objects import ObjectStorage
from corgi.storage.paths import opened
from corgi.training.upload import ObjectStore
from tests.support.ports import free_port
from tests.support.s3_server import BUCKET, s3_server

NAMES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with s3_server() as environment:
        yield environment


def written_by_each(folder: Path) -> set[str]:
    """Write an object through each of the three doors; return what an input's reader sees."""
    filesystem, bucket = opened(f"s3://{BUCKET}")
    with filesystem.open_output_stream(f"{bucket}/in/list.csv") as sink:
        sink.write(b"url")
    ObjectStorage(f"s3://{BUCKET}/root").replace("manifest.json", b"{}")
    (folder / "weights").write_bytes(b"1")
    ObjectStore(f"s3://{BUCKET}/uploads").put("weights", folder / "weights")
    keys = ("in/list.csv", "root/manifest.json", "uploads/weights")
    infos = filesystem.get_file_info([f"{bucket}/{key}" for key in keys])
    return {key for key, info in zip(keys, infos, strict=True) if info.is_file}


@pytest.mark.parametrize("name", NAMES)
def test_an_endpoint_holds_for_inputs_root_and_uploads(
    server: dict[str, str], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other, value in server.items():
        monkeypatch.setenv(other, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv(name, server["AWS_ENDPOINT_URL"])
    assert written_by_each(tmp_path) == {"in/list.csv", "root/manifest.json", "uploads/weights"}


def test_the_most_specific_variable_counts_for_all(
    server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other, value in server.items():
        monkeypatch.setenv(other, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server["AWS_ENDPOINT_URL"])
    assert len(written_by_each(tmp_path)) == 3
