"""Workers with another torch, or another CUDA, are refused on every worker with one line that names both."""

from pathlib import Path

import pytest
import torch

from corgi.settings.errors import ClusterError
from corgi.training import versions
from corgi.training.ranks import rank
from corgi.training.versions import check_versions, installed
from tests.support.workers import run_workers


def other_on_the_second(folder: Path) -> None:
    check_versions()
    mine = installed()
    if rank() == 1:
        versions.installed = lambda: "torch 1.0.0 for CUDA 9.0"
    with pytest.raises(
        ClusterError, match=r"worker 1 on .* has torch 1\.0\.0 for CUDA 9\.0, worker 0 on .* has"
    ) as found:
        check_versions()
    assert mine in str(found.value)
    (folder / str(rank())).touch()


@pytest.mark.slow
def test_both_versions_are_named_on_every_worker(tmp_path: Path) -> None:
    run_workers(other_on_the_second, 2, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("cuda", "told"), [("12.8", "torch 2.14.1 for CUDA 12.8"), (None, "torch 2.14.1 without CUDA")]
)
def test_the_build_is_told_by_its_cuda(monkeypatch: pytest.MonkeyPatch, cuda: str | None, told: str) -> None:
    monkeypatch.setattr(torch, "__version__", "2.14.1+cu128" if cuda else "2.14.1+cpu")
    monkeypatch.setattr(torch.version, "cuda", cuda)
    assert installed() == told
    check_versions()
