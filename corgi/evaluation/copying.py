"""Whether painted pictures are nearer to training pictures than to the true picture: similarity alone would reward copying."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

Rows = Shaped[np.ndarray, "rows values"]
Closeness = Callable[[Rows, Rows], Float[np.ndarray, "rows others"]]
"""(rows, others) -> closeness of each row to each of the others; larger is closer."""
CHUNK = 256
"""Number of training pictures compared at once."""
SLACK = 1e-5
"""Smaller differences of closeness count as rounding: a training picture that is equally near does not make a copy."""


def cosine(a: Rows, b: Rows) -> Float[np.ndarray, "rows others"]:
    """Return the cosines of unit vectors."""
    return a.astype(np.float64) @ b.T.astype(np.float64)


def pixel_closeness(a: Rows, b: Rows) -> Float[np.ndarray, "rows others"]:
    """Return minus the mean squared difference of pictures; they are bytes, and the differences are those of values in 0..1."""
    return square_closeness(a, b) / 255**2


def square_closeness(a: Rows, b: Rows) -> Float[np.ndarray, "rows others"]:
    """Return minus the mean squared difference of rows of numbers."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    square = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return -square / a.shape[1]


def nearest(
    rows: Rows, training: Rows, closeness: Closeness
) -> tuple[Int[np.ndarray, "rows"], Float[np.ndarray, "rows"]]:
    """Return the closest training row of each row, and how close it is."""
    at, best = np.zeros(len(rows), np.int64), np.full(len(rows), -np.inf)
    for first in range(0, len(training), CHUNK):
        close = closeness(rows, training[first : first + CHUNK])
        index = close.argmax(1)
        value = close[np.arange(len(rows)), index]
        at, best = np.where(value > best, index + first, at), np.maximum(value, best)
    return at, best


def is_nearer_to_training(
    painted: Rows, truth: Rows, training: Rows, closeness: Closeness
) -> Bool[np.ndarray, "rows"]:
    """Return which painted pictures are nearer to some training picture than to their own true picture."""
    return nearest(painted, training, closeness)[1] > _to_own(painted, truth, closeness) + SLACK


def is_nearer_to(painted: Rows, truth: Rows, other: Rows, closeness: Closeness) -> Bool[np.ndarray, "rows"]:
    """Return which painted pictures are nearer to their row of `other` than to their own true picture."""
    return _to_own(painted, other, closeness) > _to_own(painted, truth, closeness) + SLACK


def _to_own(rows: Rows, others: Rows, closeness: Closeness) -> Float[np.ndarray, "rows"]:
    """Return the closeness of each row to the same row of `others`."""
    pairs = [closeness(rows[at : at + 1], others[at : at + 1])[0, 0] for at in range(len(rows))]
    return np.array(pairs)
