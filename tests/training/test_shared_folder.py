"""Workers refuse a checkpoint folder that is not the same one for all of them."""

from pathlib import Path

import pytest

from corgi.settings.errors import StorageError
from corgi.training.ranks import rank
from corgi.training.shared_folder import check_shared
from tests.support.workers import run_workers


def shared_then_not(root: Path) -> None:
    check_shared(root / "shared")
    with pytest.raises(StorageError, match=r"is not shared: workers 1 of 2 do not see.*set scratch"):
        check_shared(root / f"node-{rank()}")


def test_folders_of_each_node_are_refused_on_every_worker_and_nothing_is_left(tmp_path: Path) -> None:
    run_workers(shared_then_not, 2, tmp_path)
    assert list((tmp_path / "shared").iterdir()) == list((tmp_path / "node-0").iterdir()) == []


def test_one_worker_alone_writes_nothing(tmp_path: Path) -> None:
    check_shared(tmp_path / "alone")
    assert not (tmp_path / "alone").exists()
