"""The captions of an image in a training: how many are used, how they are arranged in an array, and which one is drawn."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

MAX_CAPTIONS = 8
"""Maximum number of captions of one kind that are used per image. Further ones stay in the embeddings table."""


def side_by_side(
    vectors: Float[np.ndarray, "captions dim"],
    owner: Int[np.ndarray, "captions"],
    num_rows: int,
    num_slots: int | None = None,
) -> tuple[Float[np.ndarray, "rows slots dim"], Int[np.ndarray, "rows"]]:
    """Return the first captions of each row, padded with zeros, and the number of captions of each row.

    `owner` is the row of each caption. The number of slots is `num_slots`, or by default the largest number of captions of a
    row; it is at most MAX_CAPTIONS.
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
    """Return one of the first `count` captions of each row, chosen by a uniform draw u in [0, 1)."""
    index = (u * count).long().clamp(max=captions.shape[1] - 1)
    return captions[torch.arange(len(captions), device=captions.device), index]
