"""The captions of an image in a training: how many take part, how they are laid side by side, and which one is drawn."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

MAX_CAPTIONS = 8
"""Captions of one kind with which an image takes part. Further ones stay in the embeddings table."""


def side_by_side(
    vectors: Float[np.ndarray, "captions dim"],
    owner: Int[np.ndarray, "captions"],
    num_rows: int,
    num_slots: int | None = None,
) -> tuple[Float[np.ndarray, "rows slots dim"], Int[np.ndarray, "rows"]]:
    """Return the first captions of each row, padded with zeros, and how many there are of each.

    `owner` is the row of each caption. There are as many slots as the fullest row needs, unless `num_slots` says how
    many; never more than MAX_CAPTIONS.
    """
    if num_slots is None:
        num_slots = int(np.bincount(owner).max(initial=1)) if len(owner) else 1
    num_slots = min(num_slots, MAX_CAPTIONS)
    padded = np.zeros((num_rows, num_slots, vectors.shape[1]), dtype=vectors.dtype)
    counts = np.zeros(num_rows, dtype=np.int64)
    for vector, row in zip(vectors, owner, strict=True):
        if counts[row] < num_slots:
            padded[row, counts[row]] = vector
            counts[row] += 1
    return padded, counts


def drawn_caption(
    captions: Float[Tensor, "batch slots *dims"], count: Int[Tensor, "batch"], u: Float[Tensor, "batch"]
) -> Float[Tensor, "batch *dims"]:
    """Return one of the first `count` captions of each row: the one at a uniform draw u in [0, 1)."""
    index = (u * count).long().clamp(max=captions.shape[1] - 1)
    return captions[torch.arange(len(captions), device=captions.device), index]
