"""A worker alone writes no token; two workers refuse a folder that is not the same one: tests/training/test_loop.py."""

from pathlib import Path

from corgi.training.shared_folder import check_shared


def test_one_worker_alone_writes_nothing(tmp_path: Path) -> None:
    check_shared(tmp_path / "alone")
    assert not (tmp_path / "alone").exists()
