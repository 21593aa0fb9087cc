"""Files on a disk: a lost reply to a link is no error."""

import os
from pathlib import Path

import pytest

from corgi.storage.disk import Disk
from corgi.storage.files import linked


def test_a_lost_reply_to_a_link_that_was_made_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS repeats the request and answers that the name is taken: by the very same file."""
    link = os.link

    def lossy(source: Path, target: Path) -> None:
        link(source, target)
        raise FileExistsError(target)

    monkeypatch.setattr(os, "link", lossy)
    assert Disk(tmp_path).put_if_absent("a.json", b"ours")
    monkeypatch.setattr(os, "link", link)
    other = tmp_path / "other"
    other.write_bytes(b"ours")
    assert not linked(other, tmp_path / "a.json")
