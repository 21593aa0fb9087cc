"""ViT-L-14 as its pretrained tag loads it, a few batches, random weights: 4 GB of memory."""

from pathlib import Path

import pytest

from corgi.settings.clip import TowerRef
from tests.support.pretrained import few_batches


@pytest.mark.timeout(600)
def test_vit_l_14_embeds_a_few_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = TowerRef(name="l14", model="ViT-L-14", pretrained="laion2b_s32b_b82k")
    few_batches(ref, tmp_path, monkeypatch, "bf16")
