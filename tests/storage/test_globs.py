"""Globs over pyarrow's file systems: what cannot be listed is an error; it is never left out."""

import errno
from pathlib import Path
from typing import Any

import pyarrow.fs as pa_fs
import pytest
from fsspec.implementations.arrow import ArrowFSWrapper

from corgi.settings.data import PlanSettings
from corgi.settings.errors import InputError
from corgi.sources.sources import sources
from corgi.storage import paths


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make gs:// a bucket of three lists whose folder b cannot be listed."""
    for name in ("a.csv", "b/a.csv", "b/c/a.csv"):
        (tmp_path / "top" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "top" / name).write_text(f"url\nhttps://a.example/{name}\n")
    files, ls = pa_fs.SubTreeFileSystem(str(tmp_path), pa_fs.LocalFileSystem()), ArrowFSWrapper.ls
    monkeypatch.setattr(paths, "opened", lambda uri: (files, uri.removeprefix("gs://")))

    def refusing(self: ArrowFSWrapper, path: str, *more: Any, **options: Any) -> Any:
        if path.rstrip("/").endswith("top/b"):
            raise OSError(errno.EIO, "SLOW_DOWN")
        return ls(self, path, *more, **options)

    monkeypatch.setattr(ArrowFSWrapper, "ls", refusing)


@pytest.mark.parametrize("pattern", ["**/*.csv", "*/*.csv", "b/*.csv", "b/*/a.csv"])
def test_a_folder_that_cannot_be_listed_stops_the_plan(bucket: None, pattern: str) -> None:
    """Without it a plan would be made of the lists that are left, and nobody would know."""
    with pytest.raises(OSError, match="SLOW_DOWN"):
        paths.expand(f"gs://top/{pattern}")
    with pytest.raises(InputError, match=r"cannot be read \(SLOW_DOWN\); nothing was started"):
        sources(PlanSettings(input=(f"gs://top/{pattern}",)))


def test_a_folder_outside_the_glob_is_not_listed(bucket: None) -> None:
    assert paths.expand("gs://top/*.csv") == ["gs://top/a.csv"]
