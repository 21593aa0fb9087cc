"""A pretrained tag with the file its download would give: the code path of the tag, without the download."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import open_clip
import pytest
import torch

from corgi.clip.embed import embed_captions, embed_pictures
from corgi.clip.towers import load_tower
from corgi.settings.clip import EmbedSettings, TowerRef
from tests.support.drawn import caption, encoded, picture


def few_batches(
    ref: TowerRef, folder: Path, monkeypatch: pytest.MonkeyPatch, precision: Literal["fp32", "bf16"]
) -> None:
    """Give open_clip random weights where it would download the tag's, then embed two batches."""
    torch.manual_seed(7)
    source: Any = open_clip.create_model(ref.model, pretrained=None)
    checkpoint = folder / "open_clip_pytorch_model.bin"
    torch.save(source.state_dict(), checkpoint)
    asked: list[object] = []

    def download(pretrained_cfg: object, *_: object, **__: object) -> str:
        asked.append(pretrained_cfg)
        return str(checkpoint)

    monkeypatch.setattr("open_clip.factory.download_pretrained", download)
    tower = load_tower(ref, precision)
    assert asked == [open_clip.get_pretrained_cfg(ref.model, ref.pretrained)]
    settings = EmbedSettings(batch_size=2, precision=precision)
    found = embed_pictures([tower], [encoded(picture(number)) for number in range(3)], settings)
    texts = embed_captions([tower], [caption(number) for number in range(3)], 2)
    assert found.is_good().all()
    assert texts.is_good().all()
    transform: Any = open_clip.image_transform(
        tower.image_size, is_train=False, **_preprocessing(ref.model, ref.pretrained)
    )
    with torch.no_grad():
        pixels = torch.stack([transform(picture(number)) for number in range(3)])
        expected = source.eval().encode_image(pixels, normalize=True).numpy()
    cosine = (found.unit[ref.name] * expected).sum(axis=1)
    assert cosine.min() > (0.9999 if precision == "fp32" else 0.99)
    assert np.isfinite(cosine).all()


def _preprocessing(model: str, tag: str) -> dict[str, Any]:
    config = open_clip.get_pretrained_cfg(model, tag)
    names = ("mean", "std", "interpolation", "resize_mode")
    return {name: config[name] for name in names if config.get(name) is not None}
