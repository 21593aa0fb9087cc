"""What a worker says of its torch; that another one is refused on every worker is seen in test_loop's workers."""

import pytest
import torch

from corgi.training.versions import check_versions, installed


@pytest.mark.parametrize(
    ("cuda", "told"), [("12.8", "torch 2.14.1 for CUDA 12.8"), (None, "torch 2.14.1 without CUDA")]
)
def test_the_build_is_told_by_its_cuda(monkeypatch: pytest.MonkeyPatch, cuda: str | None, told: str) -> None:
    monkeypatch.setattr(torch, "__version__", "2.14.1+cu128" if cuda else "2.14.1+cpu")
    monkeypatch.setattr(torch.version, "cuda", cuda)
    assert installed() == told
    check_versions()
