"""The store of the fleet's bodies: each request is counted once, with its bytes."""

from pathlib import Path

from benchmarks.fleet_counting import Asked, CountingObjects


def test_requests_and_bytes_are_counted(tmp_path: Path) -> None:
    asked = Asked()
    storage = CountingObjects("s3://fleet/store", tmp_path, asked)
    assert storage.put_if_absent("a/manifest-0.json", b"12345")
    with storage.create("a/rows") as sink:
        sink.write(b"123456789")
    assert asked == Asked(2, 0, 14)
    assert storage.read("a/manifest-0.json") == b"12345"
    assert storage.read_range("a/rows", 2, 3) == b"345"
    assert asked == Asked(4, 8, 14)
    first = storage.local("a/rows", "f" * 64)
    assert first == storage.local("a/rows", "f" * 64)
    assert asked.bytes_read >= 8 + 9
    assert sorted(storage.names("a")) == ["manifest-0.json", "rows"]
