"""Captions side by side and the one that is drawn."""

import numpy as np
import torch

from corgi.feeding.captions import MAX_CAPTIONS, drawn_caption, side_by_side


def test_every_caption_of_an_image_is_drawn_and_no_padding() -> None:
    text = torch.arange(12, dtype=torch.float32).reshape(2, 3, 2)
    found = torch.stack(
        [drawn_caption(text, torch.tensor([2, 3]), torch.full((2,), u)) for u in np.linspace(0, 0.999, 30)]
    )
    assert set(found[:, 0, 0].tolist()) == {0.0, 2.0}
    assert set(found[:, 1, 0].tolist()) == {6.0, 8.0, 10.0}


def test_captions_are_laid_side_by_side_in_order_and_padded() -> None:
    vectors = np.arange(1, 11, dtype=np.float16).reshape(5, 2)
    padded, counts = side_by_side(vectors, np.array([2, 0, 2, 2, 0]), num_rows=3)
    assert counts.tolist() == [2, 0, 3]
    assert padded.dtype == np.float16
    assert padded[:, :, 0].tolist() == [[3, 9, 0], [0, 0, 0], [1, 5, 7]]
    cut, counts = side_by_side(vectors, np.array([2, 0, 2, 2, 0]), num_rows=3, num_slots=2)
    assert counts.tolist() == [2, 0, 2]
    assert cut[:, :, 0].tolist() == [[3, 9], [0, 0], [1, 5]]


def test_more_captions_than_take_part_are_left_out() -> None:
    many = MAX_CAPTIONS + 3
    padded, counts = side_by_side(np.ones((many, 1), np.float32), np.zeros(many, np.int64), num_rows=1)
    assert counts.tolist() == [MAX_CAPTIONS]
    assert padded.shape == (1, MAX_CAPTIONS, 1)
    nothing, counts = side_by_side(np.ones((0, 4), np.float32), np.zeros(0, np.int64), num_rows=2)
    assert nothing.shape == (2, 1, 4)
    assert counts.tolist() == [0, 0]
