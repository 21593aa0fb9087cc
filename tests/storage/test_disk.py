"""Publishing on a disk: whole or not at all, never over another."""

from pathlib import Path

import pytest

from corgi.storage.disk import Disk


def test_a_name_is_given_once(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    assert disk.put_if_absent("a.json", b"first")
    assert not disk.put_if_absent("a.json", b"second")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_bytes() == b"first"


def test_a_range_is_read_up_to_the_end(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    (tmp_path / "a").write_bytes(b"0123456789")
    assert [disk.read_range("a", *span) for span in ((0, 3), (4, 6), (8, 5), (3, 0))] == [
        b"012",
        b"456789",
        b"89",
        b"",
    ]
    with pytest.raises(FileNotFoundError):
        disk.read_range("b", 0, 1)
