"""Where inputs are stored: globs, folders and object storage give the same rows; what may not be opened is one line."""

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs as pa_fs
import pytest

from corgi.settings.errors import InputError
from corgi.storage import file_memory
from corgi.storage import paths as places
from corgi.storage.paths import ending, expand, inside, opened, sha256_of
from tests.download.test_local import downloaded, recipe_of
from tests.planning.test_stage import joined, plan, rows_of
from tests.support.lists import write_list
from tests.support.ports import free_port
from tests.support.s3_server import BUCKET, s3_server
from tests.support.tars import samples, write_tar


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    with s3_server() as environment:
        yield environment


@pytest.fixture
def bucket(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[pa_fs.FileSystem]:
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    yield opened(f"s3://{BUCKET}")[0]
    file_memory.forget()


def put(filesystem: pa_fs.FileSystem, path: Path, key: str) -> None:
    with filesystem.open_output_stream(key) as sink:
        sink.write(path.read_bytes())


def test_lists_and_tars_on_s3_give_the_plan_of_local_ones(bucket, tmp_path):
    first = write_list(tmp_path / "list-a.csv", rows_of(30))
    second = write_list(tmp_path / "list-b.parquet", rows_of(20, seed=1))
    tar = write_tar(tmp_path / "00000.tar", samples(2))
    for path, key in ((first, "in/list-a.csv"), (second, "in/deep/list-b.parquet"), (tar, "tars/00000.tar")):
        put(bucket, path, f"{BUCKET}/{key}")
    near, _, _ = plan(tmp_path / "near", first, second)
    far, tables, dag = plan(tmp_path / "far", f"s3://{BUCKET}/in/**/list-*.*")
    assert far.digest == near.digest
    assert len(joined(tables)) == len({row["uid"] for row in joined(tables)})
    named = {fact["path"] for fact in dag.store.shards(far)[0].facts["sources"]}
    assert named == {f"s3://{BUCKET}/in/list-a.csv", f"s3://{BUCKET}/in/deep/list-b.parquet"}
    _, found = downloaded(recipe_of(tmp_path / "runs", f"s3://{BUCKET}/tars"))
    assert [row["status"] for row in found["ledger"]] == ["kept", "kept"]


def test_what_is_not_on_s3_is_one_line(bucket, tmp_path):
    for name in (f"s3://{BUCKET}/none.csv", f"s3://{BUCKET}/none-*.csv", "s3://no-such-bucket/a.csv"):
        with pytest.raises(InputError) as found:
            plan(tmp_path / "runs", name)
        assert name in str(found.value)
        assert "\n" not in str(found.value)


def test_an_unreachable_endpoint_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with pytest.raises(InputError) as found:
        plan(tmp_path / "runs", "s3://lists/a.csv")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "place",
    [
        "http://a.example/list.csv",
        "https://a.example/*.csv",
        "simplecache::http://a.example/a.csv",
        "nope://a/b",
    ],
)
def test_the_web_is_no_place_of_a_list(tmp_path, place):
    with pytest.raises(InputError) as found:
        plan(tmp_path / "runs", place)
    assert found.value.exit_code == 3
    assert "nothing was started" in str(found.value)


def test_credentials_in_an_address_are_refused_and_not_repeated(tmp_path):
    with pytest.raises(InputError) as found:
        plan(tmp_path / "runs", "s3://key:secret@lists/a.csv")
    assert "secret" not in str(found.value)


def test_a_folder_of_lists_is_its_lists(tmp_path):
    for name, seed in (("a.csv", 0), ("b.jsonl", 1)):
        write_list(tmp_path / "lists" / name, rows_of(10, seed))
    (tmp_path / "lists" / "readme.md").write_text("no list")
    manifest, _, _ = plan(tmp_path / "runs", tmp_path / "lists")
    assert manifest.rows.rows_in == 20
    assert [Path(path).name for path in inside(str(tmp_path / "lists"))] == ["a.csv", "b.jsonl", "readme.md"]


NAMES = ["a-1.csv", "a-22.csv", "b/a-1.csv", "b/c/a-3.csv", "a[1].csv", "b.csv"]


@pytest.fixture(params=["memory", "gs"])
def far(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URI of NAMES, which are also in tmp_path, on a file system of fsspec and on one of pyarrow."""
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("url\n")
    if request.param == "memory":
        import fsspec

        memory = fsspec.filesystem("memory")
        for name in NAMES:
            memory.pipe(f"/top/{name}", b"url\n")
    else:
        (tmp_path.parent / "top").unlink(missing_ok=True)
        (tmp_path.parent / "top").symlink_to(tmp_path)
        bucket = pa_fs.SubTreeFileSystem(str(tmp_path.parent), pa_fs.LocalFileSystem())
        monkeypatch.setattr(
            places,
            "opened",
            lambda uri: (bucket, uri.removeprefix("gs://")) if uri.startswith("gs://") else opened(uri),
        )
    return f"{request.param}://top"


def test_globs_of_object_storage_mean_what_they_mean_on_a_disk(far: str, tmp_path: Path) -> None:
    for pattern in (
        "a-*.csv",
        "a-?.csv",
        "**/a-*.csv",
        "*/a-*.csv",
        "[ab]*.csv",
        "a[!x]1.csv",
        "**/*.csv",
        "a[1].csv",
        "none/*.csv",
    ):
        near = {os.path.relpath(path, tmp_path) for path in expand(str(tmp_path / pattern))}
        assert {path.partition("top/")[2] for path in expand(f"{far}/{pattern}")} == near, pattern


def test_a_glob_with_two_stars_inside_a_name_is_one_line(far: str) -> None:
    with pytest.raises(
        InputError, match=r"b\*\*\.csv is not a valid glob \(.+\); nothing was started; write"
    ):
        expand(f"{far}/b**.csv")


@pytest.mark.parametrize(
    ("name", "found"),
    [("a/b.csv.gz", ".csv"), ("b.JSONL.zst", ".jsonl"), ("s3://x/y.parquet", ".parquet"), ("b", "")],
)
def test_endings(name, found):
    assert ending(name) == found


def test_a_file_is_hashed_again_when_it_changes(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"1")
    first = sha256_of(str(path))
    path.write_bytes(b"2")
    assert sha256_of(str(path)) != first
