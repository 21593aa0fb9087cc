"""The folder of copies: the least recently used go first, and nothing that may be about to be opened."""

import os
import time
from pathlib import Path

import pytest

from corgi.storage import copies


def put(folder: Path, name: str, age_s: float, size: int = 100) -> Path:
    path = folder / name
    path.write_bytes(bytes(size))
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


@pytest.mark.law
@pytest.mark.parametrize(("most", "left"), [(1000, 5), (500, 5), (499, 4), (300, 3), (120, 2), (0, 2)])
def test_law_the_least_recently_used_go_until_the_rest_fits(tmp_path: Path, most: int, left: int) -> None:
    ages = {"a": 5000.0, "b": 700.0, "c": 9000.0, "new": 1.0, "newer": 0.0}
    for name, age_s in ages.items():
        put(tmp_path, name, age_s)
    gone = [path.name for path in copies.bound(tmp_path, most)]
    assert gone == ["c", "a", "b"][: 5 - left]
    assert {path.name for path in tmp_path.iterdir()} == ages.keys() - set(gone)


def test_a_copy_that_is_used_counts_as_new(tmp_path: Path) -> None:
    kept, other = put(tmp_path, "kept", 9000), put(tmp_path, "other", 5000)
    copies.used(kept)
    copies.used(tmp_path / "gone")
    assert copies.bound(tmp_path, 100) == [other]
    (tmp_path / "folder").mkdir()
    assert copies.bound(tmp_path) == []
