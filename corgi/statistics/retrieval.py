"""Retrieval among matched rows: the one definition of R@k."""

# pyright: reportUnknownMemberType=false
# numpy has functions without types

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def recall(
    queries: Float[np.ndarray, "n dim"], targets: Float[np.ndarray, "n dim"], ranks: Sequence[int]
) -> dict[int, float]:
    """Return R@k for each k: the share of queries whose own row is among the k nearest targets by cosine.

    Both are unit vectors, matched row by row. Ties count against the query, and so does a cosine that is NaN.
    """
    similarity = queries @ targets.T
    own = np.diagonal(similarity)[:, None]
    num_better = (~(similarity < own)).sum(axis=1) - 1
    return {k: float((num_better < k).mean()) for k in ranks}
