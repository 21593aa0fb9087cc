"""Publishing on a disk: whole or not at all, never over another."""

from pathlib import Path

from corgi.storage.disk import Disk


def test_a_name_is_given_once(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    assert disk.put_if_absent("a.json", b"first")
    assert not disk.put_if_absent("a.json", b"second")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_bytes() == b"first"
