"""Pixels come in the order of the pictures, whatever is decoded ahead."""

import pytest
import torch
from torchvision.transforms.functional import pil_to_tensor

from corgi.clip.pictures import pixel_batches
from tests.support.drawn import encoded, picture


@pytest.mark.parametrize("ahead", [1, 3, 50])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_every_picture_once_in_order(ahead: int, batch_size: int) -> None:
    data = [encoded(picture(number)) for number in range(11)]
    batches = list(pixel_batches(data, [pil_to_tensor, pil_to_tensor], batch_size, 3, ahead))
    assert [len(first) for first, _ in batches][:-1] == [batch_size] * (len(batches) - 1)
    expected = torch.stack([pil_to_tensor(picture(number)) for number in range(11)])
    for place in (0, 1):
        assert torch.equal(torch.cat([batch[place] for batch in batches]), expected)


def test_no_picture_is_no_batch() -> None:
    assert list(pixel_batches([], [pil_to_tensor], 4, 2)) == []
