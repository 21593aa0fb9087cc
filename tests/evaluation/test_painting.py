"""What the autoencoder alone gives back, a few pictures at once."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from corgi.evaluation.painting import round_trip
from corgi.inference.generate import Generator
from corgi.models.picture_decoder import PAINTED_AT_ONCE
from corgi.models.spatial_autoencoder import PixelCodec, SpatialAutoencoder

SIDE = 4


class Counting(PixelCodec):
    """Pixels, and how many pictures each call had."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def encode(self, pictures: Tensor) -> Tensor:
        self.sizes.append(len(pictures))
        return super().encode(pictures)


def test_pictures_come_back_in_order_and_no_call_takes_more_than_are_painted_at_once() -> None:
    codec = Counting()
    decoder: Any = SimpleNamespace(autoencoder=SpatialAutoencoder(codec, SIDE), device=torch.device("cpu"))
    total = 2 * PAINTED_AT_ONCE + 1
    drawn = np.random.default_rng(0).integers(0, 256, (total, SIDE, SIDE, 3)).astype(np.uint8)
    generator = cast(Generator, SimpleNamespace(decoder=decoder))
    found = round_trip(generator, [Image.fromarray(one) for one in drawn])
    assert codec.sizes == [PAINTED_AT_ONCE, PAINTED_AT_ONCE, 1]
    np.testing.assert_array_equal(np.stack([np.asarray(one) for one in found]), drawn)
