"""The cosine of two samples of one condition: 1 means collapse, and samples should reach the value of the true data."""

from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

Each = Literal["group", "pair"]


def two_sample_cosine(groups: Iterable[Float[np.ndarray, "_ dim"]], each: Each) -> float | None:
    """Return the mean cosine of two different unit rows of the same group; None if no group has two rows.

    Args:
        groups: unit rows of each condition.
        each: what has equal weight in the mean. `group` is for measures over a list of conditions, whatever their
            sizes. `pair` estimates, from all pairs, the cosine c of two samples of the true distribution; the mean of such
            samples would score sqrt(c).

    """
    sums = [_pair_sum(group.astype(np.float64)) for group in groups if len(group) > 1]
    if not sums:
        return None
    if each == "group":
        return float(np.mean([total / number for total, number in sums]))
    return sum(total for total, _ in sums) / sum(number for _, number in sums)


def groups_of(
    rows: Float[np.ndarray, "n dim"], label: Int[np.ndarray, "n"]
) -> Iterator[Float[np.ndarray, "_ dim"]]:
    """Yield the rows of each label that has at least two rows, in order of label."""
    for value in np.flatnonzero(np.bincount(label) > 1) if len(label) else ():
        yield rows[label == value]


def _pair_sum(rows: Float[np.ndarray, "n dim"]) -> tuple[float, int]:
    """Return the sum of the cosines of all ordered pairs of different rows, and the number of pairs."""
    total = rows.sum(axis=0)
    return float(total @ total - (rows * rows).sum()), len(rows) * (len(rows) - 1)
